"""Image files to uint8 tensors and back: every ordinary kind of file comes out right or is refused by name."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from codec.data import image_decoder
from codec.data.image_formats import INSTALL_JXL, writable
from codec.data.image_list import printable
from codec.data.not_kept import Loss
from codec.data.save_options import save_options
from codec.errors import UserError
from codec.metadata import Metadata
from codec.whole_file import whole_file

Source = str | Path | BinaryIO | Image.Image | np.ndarray | Tensor  # of a picture; errors tell its name
PROFILES = {1: b"GRAY", 3: b"RGB "}  # the colour space that an ICC profile names, by channels


class NamedImage(NamedTuple):
    """One whole picture: `image` is uint8 `[C, H, W]`, C in {1, 3}; `name` is how results call it."""

    name: str
    image: Tensor


class Picture(NamedTuple):
    """What a file holds: `image`, uint8 `[C, H, W]`, C in {1, 3}, upright, and what travels with it.

    `metadata`: that of the upright image; its colour profile, if there is one, is that of `image`. `dropped`: what
    the file has and these two have not, in words: "transparency laid over white", "16 → 8 bits", "first of 12
    frames", "damaged EXIF left out". `not_kept`: the same of the pixels only, as what is missing: "transparency",
    "16-bit samples". Empty where the picture is all there, whatever its file's kind: an alpha channel that is
    opaque everywhere is `dropped`, and so are 16 bits that are 257 times an 8-bit sample, but nothing is lost.
    """

    image: Tensor
    metadata: Metadata
    dropped: tuple[str, ...]
    not_kept: tuple[str, ...]


class ImageFileError(UserError, ValueError):
    """An image file that cannot be read or written; `key` is its name, `allowed` the cause."""


class LossyInputError(ImageFileError):
    """A picture of which a lossless codec would not keep everything; one line that says what."""


def read_picture(source: str | Path | BinaryIO, channels: int | None = None) -> Picture:
    """The picture in a file; `image` is uint8 `[C, H, W]`, 0 black to 255 white.

    `channels` None gives C = 1 for grey files and 3 for all others; 1 or 3 converts. Transparency is laid over
    white, 16-bit samples are cut to their high byte, of an animation the first frame is taken. Colours are as they
    are in the file, and their profile is kept with them; inks (CMYK) become sRGB, by their profile if there is one.
    Raises ImageFileError if the file is missing, damaged, no image, absurdly large or of a kind without a defined
    white (floating point, 32-bit).
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels={channels}: allowed are 1, 3 and null")
    try:
        with _opened(source) as file:
            return _picture(image_decoder.decode(file, _suffix(source)), channels)
    except Exception as error:  # decoders meet damaged files with exceptions of every kind
        raise _image_file_error(source, error) from error


def picture_of(image: Image.Image, channels: int | None = None) -> Picture:
    """As `read_picture`, of what Pillow holds: its current frame, upright, and the metadata in its `info`.

    Of 16-bit colour and of colours that a file declares without an ICC profile Pillow keeps nothing: `read_picture`
    of the file does.
    """
    try:
        return _picture(image_decoder.decode_pillow(image), channels)
    except Exception as error:  # as it is loaded, see above
        raise _image_file_error(image, error) from error


def _picture(decoded: image_decoder.Decoded, channels: int | None) -> Picture:
    image, grey, metadata, losses = decoded
    mode = "L" if channels == 1 or (channels is None and grey) else "RGB"
    coloured = mode == "L" and not grey and _has_colour(image)
    pixels = np.array(image.convert(mode))  # [H, W] or [H, W, 3]
    if coloured:
        losses += (Loss("colour → grey", "colour"),)
    tensor = torch.from_numpy(pixels if mode == "RGB" else pixels[..., None]).permute(2, 0, 1).contiguous()
    if metadata.icc and metadata.icc[16:20] != PROFILES[len(tensor)]:
        metadata = metadata._replace(icc=None)
        losses += (Loss(f"ICC profile left out: it is not one of {'grey' if mode == 'L' else 'RGB'}"),)
    return Picture(
        tensor,
        metadata,
        tuple(dict.fromkeys(loss.said for loss in losses)),
        tuple(loss.what for loss in losses if loss.what),
    )


def read_image(path: str | Path | BinaryIO, channels: int | None = None) -> Tensor:
    """The image of `read_picture`, uint8 `[C, H, W]`, for data sets: what the file has beside it is not told.

    So a lossless codec that is trained or measured on files with 16 bits or transparency is measured on the opaque
    8-bit picture. Raises ImageFileError.
    """
    return read_picture(path, channels).image


def check_all_kept(picture: Picture, source: Source) -> None:
    """For lossless codecs: raises LossyInputError if a file with `picture.image` would not hold all of `source`."""
    if picture.not_kept:
        raise LossyInputError(
            _name(source),
            f"a lossless model cannot keep its {' and '.join(picture.not_kept)}: "
            "convert the image first, or take a lossy model, which leaves that out",
        )


def image_size(path: str | Path | BinaryIO) -> tuple[int, int]:
    """Height and width in pixels of the upright picture, from the file's header. Raises ImageFileError."""
    try:
        with _opened(path) as file:
            width, height = image_decoder.size(file, _suffix(path))
    except Exception as error:
        raise _image_file_error(path, error) from error
    return height, width


def write_image(
    target: str | Path | BinaryIO, image: Tensor, metadata: Metadata | None = None, format: str | None = None
) -> tuple[str, ...]:
    """Writes uint8 `[C, H, W]`, C in {1, 3}: the whole file, or none at all.

    Gives the names (of `Metadata.names`) of what the file cannot hold of `metadata`. `format`: Pillow's name of it;
    by default that of the suffix, for a stream PNG. JPEG is written with quality 95 and whole colours, AVIF with
    90; WebP and JPEG XL without loss. Raises ImageFileError if the suffix is unknown or the file cannot be written,
    OSError where a stream cannot be.
    """
    picture = pillow_image(image)
    try:
        encoded, left_out = _encoded(picture, format or _format(target), metadata or Metadata())
        if isinstance(target, str | Path):
            with whole_file(Path(target)) as file:
                file.write(encoded)
    except (OSError, ValueError) as error:
        raise _image_file_error(target, error) from error
    if not isinstance(target, str | Path):
        target.write(encoded)
    return left_out


def pillow_image(image: Tensor) -> Image.Image:
    """uint8 `[C, H, W]`, C in {1, 3} → an image of mode L or RGB."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _encoded(picture: Image.Image, format: str, metadata: Metadata) -> tuple[bytes, tuple[str, ...]]:
    """The file, and the names of what it cannot hold of `metadata`."""
    file = io.BytesIO()
    options, left_out = save_options(metadata, format, len(picture.getbands()))
    try:
        picture.save(file, format=format, **options)
    except Exception:  # writers meet damaged metadata with exceptions of every kind
        if not metadata:
            raise
        return _encoded(picture, format, Metadata())[0], metadata.names()
    return file.getvalue(), left_out


def _has_colour(image: Image.Image) -> bool:
    pixels = np.array(image.convert("RGB"))
    return bool((pixels != pixels[..., :1]).any())


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[BinaryIO]:
    """A file to read from any position."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file, _opened(file) as seekable:  # a path may be a pipe's
            yield seekable
    else:
        yield source if source.seekable() else io.BytesIO(source.read())


def _name(source: Source) -> str:
    if isinstance(source, str | Path):
        return printable(source)
    if hasattr(source, "read"):
        return str(getattr(source, "name", "the stream"))
    return printable(getattr(source, "filename", "") or "the image")


def _suffix(source: str | Path | BinaryIO) -> str:
    return Path(source if isinstance(source, str | Path) else str(getattr(source, "name", ""))).suffix.lower()


def _format(target: str | Path | BinaryIO) -> str:
    suffix = _suffix(target) if isinstance(target, str | Path) else ".png"
    name = writable(suffix)
    if name is None:
        raise ValueError(INSTALL_JXL if suffix == ".jxl" else f"suffix {suffix!r} is none we write: use .png")
    return name


def _image_file_error(source: Source, error: Exception) -> ImageFileError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ImageFileError(_name(source), " ".join(cause.split()) or type(error).__name__)
