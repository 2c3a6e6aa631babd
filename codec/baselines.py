"""The standard codecs through Pillow: JPEG, WebP, AVIF, JPEG XL, JPEG 2000, PNG, each an `ImageCodec`.

A file is what Pillow writes for the bare samples: no metadata, no colour profile, nothing taken over from the
file the image came from. Greyscale images are coded as greyscale wherever the format can (all but WebP).
"""

import io
import math
import warnings
from abc import abstractmethod

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, features
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.checks import check_flag, check_integer
from codec.data.image_formats import INSTALL_JXL, NO_AVIF, has_jxl
from codec.errors import ArgumentError, EncodeError, MissingPackageError
from codec.image_codec import ImageCodec, check_image


class PillowCodec(ImageCodec):
    """What the standard codecs share: uint8 `[C, H, W]` to a file of one format and back.

    A subclass names the format and gives `Image.save` its options. Coding runs on the CPU, whatever the
    device of the image.
    """

    format: str  # Pillow's name
    max_side: int  # in pixels, what the format (or the library that decodes it) allows

    @abstractmethod
    def save_options(self, channels: int) -> dict[str, object]:
        """The keyword arguments of `Image.save` for an image of 1 or 3 channels."""

    def encode(self, image: Tensor) -> bytes:
        """The complete file for `image`, uint8 `[C, H, W]`, C in {1, 3}.

        Raises ValueError on anything else, and where a side is longer than the format allows.
        """
        check_image(image)
        return self._save(image, self.save_options(image.shape[0]))

    def decode(self, data: bytes) -> Tensor:
        """The image in a complete file, uint8 `[C, H, W]` on the CPU, with the channels that were encoded.

        Raises BitstreamError if `data` is not a file of this format, is damaged, is neither greyscale nor RGB
        with 8 bits, or claims more than `PIL.Image.MAX_IMAGE_PIXELS` pixels. A format without a checksum
        cannot tell every damage: it then returns some image.
        """
        return _to_tensor(self._open(data))

    def check_size(self, height: int, width: int) -> None:
        self._check_sides(height, width)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and height * width > limit:
            raise ValueError(f"{width}×{height} pixels are not decoded again: the limit is {limit}")

    def size(self, data: bytes) -> tuple[int, int]:
        """Height and width that a file claims; no pixel is decoded. Raises BitstreamError as `decode` does."""
        picture = self._open(data, pixels=False)
        return picture.height, picture.width

    def least_bytes(self, height: int, width: int) -> int:
        """Fewer bytes no file has that `encode` writes for an image of that size. 0: the format sets no limit."""
        return 0

    def _check_sides(self, height: int, width: int) -> None:
        for name, side in (("height", height), ("width", width)):
            if side > self.max_side:
                raise EncodeError(f"{name}={side}: {self.format} allows 1 to {self.max_side} pixels")

    def _save(self, image: Tensor, options: dict[str, object]) -> bytes:
        self._check_sides(*image.shape[-2:])
        samples = image.cpu().numpy()
        # Made from an array, never opened from a file: pillow_jxl would store an opened JPEG's own bytes.
        picture = Image.fromarray(samples[0] if len(samples) == 1 else samples.transpose(1, 2, 0).copy())
        file = io.BytesIO()
        picture.save(file, format=self.format, **options)
        return file.getvalue()

    def _open(self, data: bytes, pixels: bool = True) -> Image.Image:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                picture = Image.open(io.BytesIO(data), formats=[self.format])
            if pixels:
                picture.load()
        except MemoryError:  # what a file may claim is limited: it is this machine that has too little
            raise
        except Image.UnidentifiedImageError:  # its own text is a memory address
            raise BitstreamError(f"not a {self.format} file, or its header is damaged") from None
        except Exception as error:  # plugins raise OSError, SyntaxError, struct.error, RuntimeError and more
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BitstreamError(f"the {self.format} file cannot be decoded: {reason}") from error
        if picture.mode not in ("L", "RGB"):
            raise BitstreamError(f"the {self.format} file holds {picture.mode} samples: allowed are L and RGB")
        return picture


class Jpeg(PillowCodec):
    """JPEG with Huffman tables made for the image.

    `quality` 1 to 95 (above it the files grow and the images hardly change); `subsampling` of the chroma
    "4:2:0", "4:2:2" or "4:4:4"; `progressive` orders the same coefficients in scans.
    """

    format = "JPEG"
    suffix = ".jpg"
    qualities = range(1, 96)
    max_side = 65500
    max_scans = 100  # progressive files have about 10; every one, however short, takes time for all pixels

    def __init__(self, quality: int, subsampling: str = "4:2:0", progressive: bool = False) -> None:
        self.set_quality(quality)
        self.subsampling = _one_of("subsampling", subsampling, ("4:2:0", "4:2:2", "4:4:4"))
        check_flag("progressive", progressive)
        self.progressive = progressive

    def save_options(self, channels: int) -> dict[str, object]:
        return {
            "quality": self.quality,
            "subsampling": self.subsampling,
            "progressive": self.progressive,
            "optimize": True,
        }

    def least_bytes(self, height: int, width: int) -> int:
        # Of every block of 8×8 samples, even if all are alike, the mean's Huffman code is written: a bit at least.
        return -(-height // 8) * -(-width // 8) // 8

    def _open(self, data: bytes, pixels: bool = True) -> Image.Image:
        scans = data.count(b"\xff\xda")
        if scans > self.max_scans:
            raise BitstreamError(f"the JPEG file has {scans} scans: at most {self.max_scans} are read")
        return super()._open(data, pixels)

    def encode(self, image: Tensor) -> bytes:
        # Optimised and progressive JPEGs are written from one buffer, for which Pillow allows a byte a pixel:
        # at high quality that is too little, and it fails. Two bytes a sample are enough at any.
        ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 2 * image.numel())
        return super().encode(image)


class WebP(PillowCodec):
    """WebP with the slowest and smallest of its methods.

    `quality` 0 to 100. Where `lossless`, the image is exact and `quality` is the effort spent on the file.

    WebP has no greyscale: a grey image is stored as three equal planes, and a file whose planes agree (within
    1, the rounding of its YUV) is decoded to one channel. For the rare image of which that is wrong, an RGB
    one without colour, `encode` adds an EXIF tag of 52 bytes that says how many channels there are.
    To know, it decodes each file that it writes: about 5 % of the time.
    """

    format = "WEBP"
    suffix = ".webp"
    qualities = range(101)
    max_side = 16383

    def __init__(self, quality: int, lossless: bool = False) -> None:
        self.set_quality(quality)
        self.lossless = lossless
        if lossless:
            self.qualities = None

    def save_options(self, channels: int) -> dict[str, object]:
        return {"quality": self.quality, "lossless": self.lossless, "method": 6}

    def encode(self, image: Tensor) -> bytes:
        data = super().encode(image)
        channels = image.shape[0]
        if self.decode(data).shape[0] == channels:
            return data
        exif = Image.Exif()
        exif[ExifTags.Base.SamplesPerPixel] = channels
        return self._save(image, {**self.save_options(channels), "exif": exif})

    def least_bytes(self, height: int, width: int) -> int:
        # Every 16×16 pixels have two prediction modes, which cost 3 bits at least; of lossless WebP, nothing does.
        return 0 if self.lossless else -(-height // 16) * -(-width // 16) * 3 // 8

    def decode(self, data: bytes) -> Tensor:
        picture = self._open(data)
        image = _to_tensor(picture)
        try:
            channels = picture.getexif().get(ExifTags.Base.SamplesPerPixel)
        except Exception as error:  # Pillow reads tags from whatever bytes are there
            raise BitstreamError("the WEBP file's EXIF tags cannot be read") from error
        if channels is None:
            channels = 1 if (image.amax(0) - image.amin(0)).max() <= 1 else 3
        return image[:1] if channels == 1 else image


class Avif(PillowCodec):
    """AVIF.

    `quality` 0 to 100; `speed` 0 (smallest) to 10 (fastest); `subsampling` of the chroma "4:2:0", "4:2:2" or
    "4:4:4"; `tune` is what libaom optimises: "psnr", "ssim", or None for the library's choice. It runs on one
    thread, because libaom's files depend on their number. Raises MissingPackageError where Pillow was built
    without AVIF.
    """

    format = "AVIF"
    suffix = ".avif"
    qualities = range(101)
    max_side = 32768

    def __init__(self, quality: int, speed: int = 4, subsampling: str = "4:2:0", tune: str | None = None) -> None:
        self.set_quality(quality)
        check_integer("speed", speed, 0, 10)
        self.speed = speed
        self.subsampling = _one_of("subsampling", subsampling, ("4:2:0", "4:2:2", "4:4:4"))
        self.tune = _one_of("tune", tune, (None, "psnr", "ssim"))
        if not features.check("avif"):
            raise MissingPackageError(NO_AVIF)

    def save_options(self, channels: int) -> dict[str, object]:
        return {
            "quality": self.quality,
            "speed": self.speed,
            "subsampling": self.subsampling if channels == 3 else "4:0:0",
            "advanced": {"tune": self.tune} if self.tune else {},
            "max_threads": 1,
        }


class JpegXL(PillowCodec):
    """JPEG XL, as a bare codestream.

    `quality` 0 to 99, or None for lossless; `effort` 1 (fastest) to 10 (smallest). Only bare codestreams are
    decoded, not those in a container. Raises MissingPackageError where Pillow's plugin is not installed.
    """

    format = "JXL"
    suffix = ".jxl"
    qualities = range(100)
    max_side = 2**30

    def __init__(self, quality: int | None, effort: int = 7) -> None:
        check_integer("effort", effort, 1, 10)
        self.effort = effort
        self.lossless = quality is None
        if quality is None:
            self.qualities = None
        else:
            self.set_quality(quality)
        if not has_jxl():
            raise MissingPackageError(INSTALL_JXL)

    def save_options(self, channels: int) -> dict[str, object]:
        if self.quality is None:
            return {"lossless": True, "effort": self.effort}
        return {"quality": self.quality, "effort": self.effort}

    def _open(self, data: bytes, pixels: bool = True) -> Image.Image:
        # The plugin decodes all pixels before Pillow can ask for the size.
        width, height = _codestream_size(data)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and width * height > limit:
            raise BitstreamError(f"the JXL file claims {width}×{height} pixels: the limit is {limit}")
        return super()._open(data, pixels)


class Jpeg2000(PillowCodec):
    """JPEG 2000 in a JP2 file, with the colour transform.

    `ratio`, a number from 1, is the size of the samples over the size of the file: the file has 8·C / ratio
    bits per pixel, by the irreversible wavelet. None is lossless, by the reversible one. The ratio is this codec's
    quality, the only one whose files become smaller as it rises.
    """

    format = "JPEG2000"
    suffix = ".jp2"
    qualities = (1, math.inf)
    max_side = 2**31 - 1

    def __init__(self, ratio: float | None) -> None:
        if ratio is not None and not (type(ratio) in (int, float) and ratio >= 1):
            raise ArgumentError("ratio", ratio, "allowed are numbers from 1, or null for lossless")
        self.lossless = ratio is None
        if ratio is None:
            self.qualities = None
        else:
            self.set_quality(ratio)

    def save_options(self, channels: int) -> dict[str, object]:
        options: dict[str, object] = {"mct": int(channels == 3)}  # Pillow codes R, G and B apart unless asked
        if not self.lossless:
            options |= {"irreversible": True, "quality_mode": "rates", "quality_layers": [self.quality]}
        return options


class Png(PillowCodec):
    """PNG, deflated as small as zlib can; always lossless."""

    format = "PNG"
    suffix = ".png"
    lossless = True
    max_side = 2**31 - 1

    def save_options(self, channels: int) -> dict[str, object]:
        return {"optimize": True}


def _to_tensor(picture: Image.Image) -> Tensor:
    samples = torch.from_numpy(np.array(picture))
    return samples[None] if samples.ndim == 2 else samples.permute(2, 0, 1).contiguous()


def _codestream_size(data: bytes) -> tuple[int, int]:
    """Width and height in the SizeHeader of a bare JPEG XL codestream (ISO 18181-1; the lowest bit is first)."""
    if data[:2] != b"\xff\x0a":
        raise BitstreamError("not a JXL file: it does not begin as a bare JPEG XL codestream")
    bits = int.from_bytes(data[2:14], "little")

    def read(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(small: bool) -> int:
        return 8 * (read(5) + 1) if small else read((9, 13, 18, 30)[read(2)]) + 1

    small = bool(read(1))
    height = side(small)
    ratio = read(3)
    if ratio == 0:
        return side(small), height
    numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * numerator // denominator, height


def _one_of(name: str, value: str | None, allowed: tuple[str | None, ...]) -> str | None:
    if value not in allowed:
        raise ArgumentError(name, value, f"allowed are {', '.join(map(str, allowed))}")
    return value
