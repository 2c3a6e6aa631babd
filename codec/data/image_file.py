"""Image files to uint8 tensors and back: every ordinary kind of file comes out right or is refused by name."""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
import torch
from PIL import Image, ImageOps
from PIL.ExifTags import Base
from torch import Tensor

from codec.errors import UserError
from codec.whole_file import whole_file

with suppress(ImportError):
    import pillow_jxl  # noqa: F401  # its import teaches Pillow JPEG XL

SUFFIXES = frozenset(
    ".avif .bmp .gif .jp2 .jpeg .jpg .jxl .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()  # noqa: SIM905
)
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
BITS_TAG, PHOTOMETRIC_TAG, PLANAR_TAG = 258, 262, 284  # of TIFF


class NamedImage(NamedTuple):
    """One whole picture: `image` is uint8 `[C, H, W]`, C in {1, 3}; `name` is how results call it."""

    name: str
    image: Tensor


class ImageFileError(UserError, ValueError):
    """An image file that cannot be read or written; one line that names the file and the cause."""


def read_image(path: str | Path, channels: int | None = None) -> Tensor:
    """The picture in a file, upright, as uint8 `[C, H, W]`, 0 black to 255 white.

    `channels` None gives C = 1 for grey files and 3 for all others; 1 or 3 converts. Transparency is laid over
    white, 16-bit samples are scaled to 8, of an animation the first frame is taken, colour profiles are ignored.
    Raises ImageFileError if the file is missing, damaged, no image, absurdly large or of a kind without a defined
    white (floating point, 32-bit).
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels}: allowed are 1, 3 and null")
    try:
        with Path(path).open("rb") as file, _open(file) as image:
            grey = image.mode in GREY_MODES
            mode = "L" if channels == 1 or (channels is None and grey) else "RGB"
            image.load()  # which turns a TIFF upright, so it comes before a look at the orientation
            upright = ImageOps.exif_transpose(_to_8_bit(image))
            pixels = np.array(upright.convert(mode))  # [H, W] or [H, W, 3]
    except Exception as error:  # decoders meet damaged files with exceptions of every kind
        raise _image_file_error(path, error) from error
    return torch.from_numpy(pixels if mode == "RGB" else pixels[..., None]).permute(2, 0, 1).contiguous()


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of the upright picture, from the file's header. Raises ImageFileError."""
    try:
        with Path(path).open("rb") as file, _open(file) as image:
            width, height = image.size
            # The size of a TIFF is that of the upright picture already. PNG's own getexif decodes all pixels.
            sideways = image.format != "TIFF" and Image.Image.getexif(image).get(Base.Orientation) in SIDEWAYS
    except Exception as error:
        raise _image_file_error(path, error) from error
    return (width, height) if sideways else (height, width)


def write_image(path: str | Path, image: Tensor) -> None:
    """Writes uint8 `[C, H, W]`, C in {1, 3}, in the format of the suffix: the whole file, or none at all.

    Raises ImageFileError if the suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    pixels = image.permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    try:
        file_format = Image.registered_extensions().get(path.suffix.lower())
        if file_format not in Image.SAVE:
            raise ValueError(f"suffix {path.suffix!r} is no image format: use .png")  # noqa: TRY301
        with whole_file(path) as file:
            picture.save(file, format=file_format)
    except (OSError, ValueError) as error:
        raise _image_file_error(path, error) from error


def list_images(folder: str | Path) -> list[Path]:
    """All image files in `folder` and below, by suffix, in sorted order; hidden files and folders are left out."""
    folder = Path(folder)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _open(file: BinaryIO) -> Image.Image:
    # An open file, since Pillow maps the pixels of a named one and then mixes up the rows of sideways TIFFs.
    try:
        image = Image.open(file)
    except Image.UnidentifiedImageError:
        if Path(file.name).suffix.lower() not in (".tif", ".tiff"):
            raise ValueError("not an image, or of an unknown kind") from None
        return _open_deep_tiff(file)
    if image.format == "TIFF" and 16 in image.tag_v2.get(BITS_TAG, ()):
        separate = image.tag_v2.get(PLANAR_TAG) == tifffile.PLANARCONFIG.SEPARATE
        return _open_deep_tiff(file) if separate else image  # Pillow takes such planes for 8-bit ones
    return image


def _open_deep_tiff(file: BinaryIO) -> Image.Image:
    """The TIFF files that Pillow does not know, such as 16-bit colour in separate planes."""
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        height, width = page.imagelength, page.imagewidth
        if height * width > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{width}x{height} pixels are too many")
        if page.photometric not in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK):
            raise ValueError(f"TIFF of the kind {page.photometric.name} is not supported")
        samples = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            samples = np.moveaxis(samples, 0, -1)  # [S, H, W] -> [H, W, S]
        orientation = page.tags.valueof("Orientation", default=1)
    if samples.dtype == np.uint16:
        samples = _scale_16_to_8(samples)
    if samples.dtype != np.uint8 or samples.shape not in [(height, width, s) for s in (3, 4)] + [(height, width)]:
        raise ValueError(f"TIFF samples of {samples.dtype} {list(samples.shape)} are not supported")
    image = Image.fromarray(samples)
    image.getexif()[Base.Orientation] = orientation
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """`image` in a mode that Pillow converts to L and RGB faithfully; its orientation tag is kept."""
    orientation = image.getexif().get(Base.Orientation, 1)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        samples = _scale_16_to_8(np.array(image))
        if image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC_TAG) == tifffile.PHOTOMETRIC.MINISWHITE:
            samples = 255 - samples
        image = Image.fromarray(samples)
    elif image.mode in ("F", "I"):
        kind = {"F": "floating-point", "I": "32-bit integer"}[image.mode]
        raise ValueError(f"{kind} samples have no defined white: save it with 8 or 16 bits")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    else:
        return image
    image.getexif()[Base.Orientation] = orientation
    return image


def _scale_16_to_8(samples: np.ndarray) -> np.ndarray:
    return (samples >> 8).astype(np.uint8)  # the high byte, as Pillow takes it from 16-bit colour


def _image_file_error(path: str | Path, error: Exception) -> ImageFileError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ImageFileError(f"{os.fspath(path)}: {' '.join(cause.split()) or type(error).__name__}")
