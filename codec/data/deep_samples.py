"""Samples of more than 8 bits, whole: what Pillow does not give of colour, and the TIFF files it does not know."""

import logging
from types import ModuleType
from typing import BinaryIO

import numpy as np
from PIL import Image

from codec.metadata import Metadata

BITS_TAG, PHOTOMETRIC_TAG, PLANAR_TAG = 258, 262, 284  # of TIFF
WHITE_IS_ZERO, IN_PLANES = 0, 2  # values of the last two
ICC_TAG, XMP_TAG = 34675, 700
OTHER_BYTES = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B"}  # of each sample, little-endian machines


def raw_mode(image: Image.Image) -> str:
    """How the samples lie in the file, as Pillow names it; to be asked before they are loaded."""
    arguments = image.tile[0].args if image.tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0]) if arguments else ""


def depth(image: Image.Image, file: BinaryIO) -> int:
    """Bits a sample in the file of an image that is opened, but not loaded; 8 for fewer, too."""
    if image.format == "TIFF":
        return max(8, *image.tag_v2.get(BITS_TAG, (8,)))
    if image.format == "PPM" and isinstance(image.tile[0].args, tuple):
        return 16 if image.tile[0].args[-1] > 255 else 8
    if image.format in ("JPEG2000", "AVIF"):
        return _declared_depth(file)
    return 16 if "16" in raw_mode(image) else 8


def _declared_depth(file: BinaryIO) -> int:
    """What the headers of JPEG 2000 (marker SIZ) and AVIF (box pixi) say, which Pillow decodes to 8 bits."""
    position = file.tell()
    file.seek(0)
    beginning = file.read(1 << 16)
    file.seek(position)
    for mark, offset, plus in ((b"\xff\x4f\xff\x51", 42, 1), (b"pixi\0\0\0\0", 9, 0)):
        found = beginning.find(mark)
        if 0 <= found < len(beginning) - offset:
            return max(8, (beginning[found + offset] & 0x7F) + plus)
    return 8


def deep_samples(image: Image.Image, raw: str, file: BinaryIO) -> np.ndarray | None:
    """The samples of a loaded image with 16 bits each, uint16 `[H, W, S]`; None: it has 8 or fewer.

    S: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. `raw`: its `raw_mode`; `file` is what it was opened from.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        samples = np.array(image).astype(np.uint16)
        if image.format == "TIFF":
            bits = image.tag_v2.get(BITS_TAG, (16,))[0]
            samples <<= 16 - bits
            if image.tag_v2.get(PHOTOMETRIC_TAG) == WHITE_IS_ZERO:
                samples = 65535 - samples
        return samples[..., None]
    if raw[-4:] not in OTHER_BYTES:
        return None
    # Pillow gives one byte of each sample, the high one. Opened once more, it is told of the other byte order.
    again = Image.open(file, formats=[image.format])
    other = "RGBA" if raw.startswith("LA") else raw[:-4] + OTHER_BYTES[raw[-4:]]
    again.tile = [
        tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:])) for tile in again.tile
    ]
    low = np.array(again).astype(np.uint16)
    if raw.startswith("LA"):  # both bytes of grey, both bytes of alpha
        return low[..., ::2] << 8 | low[..., 1::2]
    return np.array(image).astype(np.uint16) << 8 | low


def in_8_bits(samples: np.ndarray, transparent: int | tuple[int, ...] | None) -> tuple[Image.Image, bool]:
    """The high bytes, as L, LA, RGB or RGBA, and whether nothing is lost: each sample is 257 times an 8-bit one.

    `transparent`: the grey value or colour that makes a pixel transparent, 16 bits each.
    """
    high = (samples >> 8).astype(np.uint8)
    exact = bool((samples == high * np.uint16(257)).all())
    if transparent is not None and samples.shape[2] in (1, 3):
        opaque = (samples != np.array(transparent, np.uint16)).any(2, keepdims=True)
        high = np.concatenate([high, np.where(opaque, 255, 0).astype(np.uint8)], 2)
    return Image.fromarray(high[..., 0] if high.shape[2] == 1 else high), exact


def is_deep_tiff(image: Image.Image) -> bool:
    """Whether an opened TIFF has 16-bit samples in separate planes, which Pillow takes for 8-bit ones."""
    tags = image.tag_v2
    return 16 in tags.get(BITS_TAG, ()) and tags.get(PLANAR_TAG) == IN_PLANES


def _tifffile() -> ModuleType:
    """Imported only for the files that need it, and silenced: what it logs of damaged ones, its exceptions say."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return tifffile


def tiff_size(file: BinaryIO) -> tuple[int, int]:
    """Width and height of the upright picture, of any TIFF."""
    tifffile = _tifffile()
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        sideways = page.tags.valueof("Orientation", default=1) in (5, 6, 7, 8)
        size = page.imagewidth, page.imagelength
    return size[::-1] if sideways else size


def tiff_samples(file: BinaryIO) -> tuple[np.ndarray, int, Metadata, int]:
    """Samples uint8 or uint16 `[H, W, S]`, orientation, metadata, pages: of a TIFF that Pillow does not know.

    Such as 16-bit colour in separate planes, and 16-bit grey with alpha. EXIF is not looked for. Raises ValueError,
    and whatever tifffile meets in damaged files.
    """
    tifffile = _tifffile()
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        height, width = page.imagelength, page.imagewidth
        if Image.MAX_IMAGE_PIXELS is not None and height * width > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{width}x{height} pixels are too many")
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            kind = getattr(page.photometric, "name", page.photometric)
            raise ValueError(f"TIFF of the kind {kind} is not supported")
        samples = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)  # [S, H, W] -> [H, W, S]
        orientation = page.tags.valueof("Orientation", default=1)
        icc, xmp = (page.tags.valueof(tag) for tag in (ICC_TAG, XMP_TAG))
        pages = len(tiff.pages)
    samples = samples[..., None] if samples.ndim == 2 else samples
    known = [(height, width, s) for s in (1, 2, 3, 4)]
    if samples.dtype not in (np.uint8, np.uint16) or samples.shape not in known:
        raise ValueError(f"TIFF samples of {samples.dtype} {list(samples.shape)} are not supported")
    return samples, orientation, Metadata(icc=icc, xmp=xmp), pages
