"""A file's bytes to an upright 8-bit picture, and what was lost on the way.

Nothing that only describes the picture makes it unreadable: what is damaged of it is left out and named.
"""

import contextlib
import io
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from codec.bitstream import MAGIC
from codec.data import colour_spaces
from codec.data import deep_samples as deep
from codec.data.image_formats import FOOTER, FORMATS, readable
from codec.data.not_kept import Loss
from codec.data.png_chunks import SIGNATURE, read_png
from codec.data.tiff_tags import exif_from_tiff
from codec.metadata import LARGEST_PART, Metadata, is_exif

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION_TAG = 274  # of TIFF and EXIF
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange height and width
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Decoded(NamedTuple):
    """`image`: upright, 8 bits a sample, opaque, of any mode that Pillow converts to L and RGB faithfully.

    `grey`: whether the file is. `metadata`: of the upright image, whole and readable.
    """

    image: Image.Image
    grey: bool
    metadata: Metadata
    losses: tuple[Loss, ...]


def decode(file: BinaryIO, suffix: str) -> Decoded:
    """The first picture in a file. Raises exceptions of every kind if it is damaged or of a kind not supported."""
    file, beginning, metadata, frames, losses = _prepared(file)
    image = _opened(file, beginning, suffix, losses)
    if image is None:
        samples, orientation, metadata, frames = deep.tiff_samples(file)
        depth, transparent, pages = 8 * samples.itemsize, None, "pages"
        grey = samples.shape[2] < 3
    else:
        pages = {"TIFF": "pages", "MPO": "pictures"}.get(image.format, "frames")
        try:
            frames = max(frames, getattr(image, "n_frames", 1))
        except Exception:  # decoders meet damaged files with exceptions of every kind
            losses.append(Loss("frames after the first, damaged", "other frames"))
        raw, depth = deep.raw_mode(image), deep.depth(image, file)
        image.load()  # which turns a TIFF upright
        if metadata is None:
            metadata = _with_colours(_metadata(image), image.format, file, losses)
        orientation = 1 if image.format == "TIFF" else _orientation(image, metadata)
        samples, transparent = deep.deep_samples(image, raw, file), image.info.get("transparency")
        grey = image.mode in GREY_MODES or (samples is not None and samples.shape[2] < 3)
    if frames > 1:
        others = f"other {frames - 1} {pages}" if frames > 2 else f"second {pages.removesuffix('s')}"
        losses.append(Loss(f"first of {frames} {pages}", others))
    image = _in_8_bits(image, samples, transparent, depth, losses)
    return _upright(image, grey, metadata, orientation, losses)


def decode_pillow(image: Image.Image) -> Decoded:
    """A picture that Pillow holds, its current frame, as `decode` gives that of a file.

    Its metadata are those in `image.info`. Raises exceptions of every kind as it is loaded, if its file is damaged.
    """
    image.load()
    losses: list[Loss] = []
    grey, metadata = image.mode in GREY_MODES, _metadata(image)
    orientation = 1 if image.format == "TIFF" else metadata.orientation()
    deep_samples = np.array(image).astype(np.uint16)[..., None] if image.mode.startswith("I;16") else None
    depth = 8 if deep_samples is None else 16
    image = _in_8_bits(image, deep_samples, image.info.get("transparency"), depth, losses)
    return _upright(image, grey, metadata, orientation, losses)


def _in_8_bits(
    image: Image.Image | None,
    samples: np.ndarray | None,
    transparent: int | tuple[int, ...] | None,
    depth: int,
    losses: list[Loss],
) -> Image.Image:
    """`image`, or that of `samples`, uint8 or uint16 `[H, W, S]`, where they are given."""
    exact = depth <= 8
    if samples is not None:
        image, exact = deep.in_8_bits(samples, transparent)
    if not exact:
        losses.append(Loss(f"{depth} → 8 bits", f"{depth}-bit samples"))
    elif depth > 8:
        losses.append(Loss(f"{depth} → 8 bits, of which the samples are multiples"))
    return image


def _upright(image: Image.Image, grey: bool, metadata: Metadata, orientation: int, losses: list[Loss]) -> Decoded:
    metadata = _checked(metadata, losses)
    image, metadata = _in_colours(image, metadata, losses)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return Decoded(_opaque(image, losses), grey, metadata.upright(), tuple(losses))


def size(file: BinaryIO, suffix: str) -> tuple[int, int]:
    """Width and height of what `decode` gives, without decoding pixels. Raises exceptions of every kind."""
    file, beginning, metadata, _, losses = _prepared(file, pixels=False)
    image = _opened(file, beginning, suffix, losses)
    if image is None:
        return deep.tiff_size(file)
    # Pillow tells the upright size of a TIFF that has the tag, but turns it for XMP too.
    turned = image.format == "TIFF" and ORIENTATION_TAG in image.tag_v2
    sideways = not turned and _orientation(image, metadata or _metadata(image)) in SIDEWAYS
    return image.size[::-1] if sideways else image.size


def _prepared(file: BinaryIO, pixels: bool = True) -> tuple[BinaryIO, bytes, Metadata | None, int, list[Loss]]:
    """The file for Pillow, its beginning; of a PNG also metadata, number of frames and losses."""
    beginning = file.read(16)
    file.seek(0)
    if not beginning.startswith(SIGNATURE):
        return file, beginning, None, 1, []
    png = read_png(file, pixels)
    return png.file, beginning, png.metadata, png.frames, list(png.losses)


def _opened(file: BinaryIO, beginning: bytes, suffix: str, losses: list[Loss]) -> Image.Image | None:
    """The image that Pillow opens; None: a TIFF that it does not know."""
    # An open file, since Pillow maps the pixels of a named one and then mixes up the rows of sideways TIFFs.
    formats = readable(beginning, suffix, _end(file))
    try:
        image = Image.open(file, formats=formats)
    except Image.UnidentifiedImageError:
        if beginning.startswith(TIFF_BEGINNINGS):
            return None
        if beginning.startswith(MAGIC):
            raise ValueError("coded already: `codec decompress` makes an image of it") from None
        raise ValueError(f"not an image we read ({', '.join(FORMATS)}, TGA), or its beginning is damaged") from None
    except Exception:
        file.seek(0)
        data = file.read()
        if beginning[4:8] != b"ftyp" or b"Exif" not in data:
            raise
        # An AVIF, of which nothing is read if its EXIF is damaged. An item of another kind is passed over.
        image = Image.open(io.BytesIO(data.replace(b"Exif", b"free", 1)), formats=formats)
        losses.append(Loss("damaged EXIF left out"))
    return None if image.format == "TIFF" and deep.is_deep_tiff(image) else image


def _end(file: BinaryIO) -> bytes:
    """The last bytes of a file."""
    file.seek(-min(FOOTER, file.seek(0, io.SEEK_END)), io.SEEK_END)
    end = file.read()
    file.seek(0)
    return end


def _metadata(image: Image.Image) -> Metadata:
    """What Pillow found, as it is in the file."""
    icc, exif, xmp = (image.info.get(key) for key in ("icc_profile", "exif", "xmp"))
    if image.format == "TIFF":
        with contextlib.suppress(Exception):  # of every kind, from damaged directories
            exif = exif_from_tiff(image.getexif())
    return Metadata(*(part if isinstance(part, bytes) else None for part in (icc, _bare(exif), xmp)))


def _with_colours(metadata: Metadata, format: str | None, file: BinaryIO, losses: list[Loss]) -> Metadata:
    """`metadata` with a profile that Pillow overlooks, or one made for colours that are declared otherwise."""
    if metadata.icc or format not in ("JPEG2000", "AVIF"):
        return metadata
    file.seek(0)
    beginning = file.read(2 * LARGEST_PART)
    if format == "JPEG2000":
        return metadata._replace(icc=colour_spaces.profile_of_jp2(beginning))
    icc, lost = colour_spaces.profile_of_avif(beginning)
    losses += lost
    return metadata._replace(icc=icc)


def _bare(exif: bytes | None) -> bytes | None:
    while exif and exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    return exif


def _orientation(image: Image.Image, metadata: Metadata) -> int:
    # A JPEG XL codestream has an orientation of its own, which its decoder applies and EXIF only repeats.
    codestream = image.format == "JXL" and not image.jpeg
    return 1 if codestream else metadata.orientation()


def _checked(metadata: Metadata, losses: list[Loss]) -> Metadata:
    """`metadata` without what is damaged or too large to be kept."""
    icc, exif, xmp = metadata
    if icc and (len(icc) < 128 or icc[36:40] != b"acsp"):
        losses.append(Loss("damaged ICC profile left out"))
        icc = None
    if exif and not is_exif(exif):
        losses.append(Loss("damaged EXIF left out"))
        exif = None
    kept = []
    for name, part in zip(("ICC profile", "EXIF", "XMP"), (icc, exif, xmp), strict=True):
        fits = not part or len(part) <= LARGEST_PART
        if not fits:
            losses.append(Loss(f"{name} of {len(part):,} bytes left out"))
        kept.append(part if part and fits else None)
    return Metadata(*kept)


def _in_colours(image: Image.Image, metadata: Metadata, losses: list[Loss]) -> tuple[Image.Image, Metadata]:
    """`image` in light instead of inks, or else. Raises ValueError if its samples have no defined white."""
    if image.mode in ("F", "I"):
        kind = {"F": "floating-point", "I": "32-bit integer"}[image.mode]
        raise ValueError(f"{kind} samples have no defined white: save it with 8 or 16 bits")
    if image.mode in ("LAB", "YCbCr", "HSV"):  # as a TIFF may have them; Pillow gives those of a JPEG as RGB
        losses.append(Loss(f"{image.mode} → RGB", f"{image.mode} colours"))
        return image.convert("RGB"), metadata
    if image.mode != "CMYK":
        return image, metadata
    by_profile = None
    if metadata.icc:
        from PIL import ImageCms  # rarely needed

        with contextlib.suppress(ImageCms.PyCMSError, ImportError, OSError):
            profile = ImageCms.ImageCmsProfile(io.BytesIO(metadata.icc))
            by_profile = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    losses.append(Loss("CMYK → RGB" + " by its profile" * (by_profile is not None), "four inks"))
    return by_profile or image.convert("RGB"), metadata._replace(icc=None)


def _opaque(image: Image.Image, losses: list[Loss]) -> Image.Image:
    """`image` laid over white, if it is transparent anywhere."""
    if not image.has_transparency_data:
        return image
    if image.mode == "1":
        image = image.convert("L")  # as which its transparent value is meant
    has_alpha = "A" in image.getbands()
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        if has_alpha:
            losses.append(Loss("alpha left out, opaque everywhere"))
        return image
    losses.append(Loss("transparency laid over white", "transparency"))
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
