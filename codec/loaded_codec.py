"""Codec: what `codec.load` gives, images of every kind to files and back."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from PIL import Image

from codec.checks import check_integer, check_number
from codec.coded_image import File, Kind, opened
from codec.errors import ArgumentError, EncodeError, warn_of
from codec.metadata import Metadata
from codec.pretrained import Weights
from codec.side_by_side import batched, each

if TYPE_CHECKING:
    from codec.coded_image import Decoded
    from codec.data.image_file import Picture
    from codec.learned_codec import LearnedCodec

    ImageLike = Decoded | str | Path | BinaryIO

_ON_A_GPU = 8  # images at once


class Compressed(NamedTuple):
    """A complete file, what it was made of, its quality, if there is a choice, and its PSNR in dB, if searched."""

    data: bytes
    picture: "Picture"
    quality: float | None
    psnr: float | None


class Codec:
    """Images to files and back, with one model; `codec.load` makes it.

    `name`: that of the pretrained model, or None. `learned`: the LearnedCodec itself, a LightningModule.
    """

    def __init__(self, learned: "LearnedCodec", weights: Weights | None = None) -> None:
        self.learned = learned
        self.weights = weights
        self.name = None if weights is None else weights.name

    @property
    def quality(self) -> float | None:
        """What files are written at where none is named; None: there is one rate."""
        own = None if self.weights is None else self.weights.quality
        return self.learned.quality if own is None else own

    @property
    def qualities(self) -> range | tuple[float, float] | None:
        """What a quality may be: integers, or all numbers from the first to the last; None: there is one rate.

        Of a larger one files are larger, unless it is JPEG 2000's compression ratio, as of comcnn_jpeg2000.
        """
        return self.learned.qualities

    @property
    def lossless(self) -> bool:
        """Whether every image comes back exactly."""
        return self.learned.lossless

    def encode(
        self,
        image: "ImageLike",
        *,
        quality: float | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        psnr: float | None = None,
        effort: int | None = None,
        metadata: Metadata | None = None,
    ) -> bytes:
        """The complete file for an image.

        `image`: of Pillow, of any mode but F and I; an array, uint8 `[H, W]` or `[H, W, 3]`; a tensor, uint8
        `[1, H, W]` or `[3, H, W]`; or an image file, by its path or opened. It is turned upright, its ICC profile,
        EXIF and XMP are kept; `metadata` is kept instead, and `Metadata()` keeps nothing. What else it has, a lossy
        codec leaves out with a warning: transparency is laid over white, 16 bits are cut to 8.

        `quality`: one of `qualities`, for this file alone. Or what the file must reach, for which the best quality
        is searched, in about 8 encodes: `bpp`, above 0, bits per pixel at most; `max_bytes`, from 1, at most;
        `psnr`, above 0, dB at least. `effort`, 0 to 9: how much work goes into a smaller file.

        Raises ImageFileError for a file that cannot be read, LossyInputError where a lossless codec would lose
        something, EncodeError for an array that is no image, or a target out of reach, ArgumentError for numbers
        that are not allowed; all of them are ValueErrors of one line.

        >>> import codec
        >>> from PIL import Image
        >>> image = Image.radial_gradient("L").resize((64, 48))
        >>> data = codec.load("comcnn_reccnn").encode(image, max_bytes=500)
        >>> len(data) <= 500
        True
        """
        target = {"bpp": bpp, "max_bytes": max_bytes, "psnr": psnr}
        ((data, dropped),) = self._encoded([image], quality, effort, metadata, **target)
        warn_of(dropped)
        return data

    def compress(self, image: "ImageLike", metadata: Metadata | None = None, **target: float) -> Compressed:
        """As `encode`, which warns of what `picture.dropped` says; `target` is what `search.encode_to` takes."""
        from codec.search import Found, encode_to

        picture = self.picture(image)
        kept = picture.metadata if metadata is None else metadata
        if target:
            found = encode_to(self.learned, picture.image, kept, **target)
        else:
            found = Found(self.learned.encode(picture.image, kept), self.learned.quality)
        return Compressed(found.data, picture, found.quality, found.psnr)

    def compress_batch(self, pictures: "Sequence[Picture]", metadata: Metadata | None = None) -> list[Compressed]:
        """As `compress`, of what `picture` gave of several images; see LearnedCodec.encode_batch."""
        kept = [picture.metadata if metadata is None else metadata for picture in pictures]
        files = self.learned.encode_batch([picture.image for picture in pictures], kept)
        return [Compressed(*of_one, self.learned.quality, None) for of_one in zip(files, pictures, strict=True)]

    def picture(self, image: "ImageLike") -> "Picture":
        """What is coded of an image; raises as `encode` does where it has no file."""
        from codec.data.image_file import check_all_kept

        picture = _picture(image, channels=1 if self.learned.image_channels == 1 else None)
        if self.lossless:
            check_all_kept(picture, image)
        try:
            self.learned.check_size(*picture.image.shape[1:])
        except ValueError as error:
            raise EncodeError(str(error)) from None
        return picture

    def decode(
        self,
        data: File,
        to: Kind = "pillow",
        *,
        crop: "tuple[int, int, int, int] | None" = None,
        scale: int = 1,
        partial: bool = False,
    ) -> "Decoded":
        """The image in a file that this codec wrote: its bytes, its path, or opened.

        Of `crop`, (x, y, width, height) in pixels of the image, no more is decoded than lies around it; `scale` 2,
        4 or 8 gives the image at that fraction of its sides, sooner, of models that can; `partial` takes a file
        whose end is missing, too, and gives as much of the image as is there.

        `to`: "pillow" gives an image of mode L or RGB, with metadata in its `info`; "numpy" uint8 `[H, W]` or
        `[H, W, 3]`; "torch" uint8 `[1, H, W]` or `[3, H, W]`, on the CPU. Raises BitstreamError, a ValueError of
        one line, if the file is damaged, or another codec's.
        """
        return opened(data, partial).decode(to, self, crop=crop, scale=scale)

    def encode_batch(
        self, images: "Iterable[ImageLike]", jobs: int = 1, batch: int | None = None, **options: float
    ) -> list[bytes]:
        """The files of several images, of whichever sizes: `[N, 3, H, W]`, `[N, H, W, 3]`, a list, a generator.

        One image, as an array or by its path for instance, is refused.

        `jobs`, from 1, of them at a time, by threads. Of every `batch`, from 1, those of equal size go through the
        analysis transform together; None: of 8 on a GPU, of 1 on a CPU, where that saves nothing. What files are
        then, and where it makes no difference, see `LearnedCodec.encode_batch`; nor does it in a search. `options`
        and what is raised: see `encode`.
        """
        _check_several("images", images)
        several = each(lambda some: self._encoded(some, **options), batched(images, self.batch_size(batch)), jobs)
        files = []
        for some in several:  # warnings are this thread's, and told before another image is refused
            for data, dropped in some:
                warn_of(dropped)
                files.append(data)
        return files

    def decode_batch(self, files: Iterable[File], to: Kind = "pillow", jobs: int = 1) -> "list[Decoded]":
        """The images in several files; `jobs`: see `encode_batch`, the rest: see `decode`."""
        _check_several("files", files)
        images = []
        for image, lost in each(lambda data: opened(data, partial=False).decoded(to, self), files, jobs):
            warn_of(lost)
            images.append(image)
        return images

    def batch_size(self, batch: int | None = None) -> int:
        """How many images are looked at for equal sizes at once, see `encode_batch`. Raises ArgumentError."""
        if batch is not None:
            check_integer("batch", batch, 1)
        if not self.learned.analyses_batches:
            return 1
        return batch or (1 if self.learned.device.type == "cpu" else _ON_A_GPU)

    def _encoded(
        self,
        images: "Sequence[ImageLike]",
        quality: float | None = None,
        effort: int | None = None,
        metadata: Metadata | None = None,
        **named: float | None,
    ) -> list[tuple[bytes, tuple[str, ...]]]:
        """A file for each, and what is not in it: a warning for the thread of who called."""
        target = {key: value for key, value in named.items() if value is not None}
        if quality is not None and target:
            raise ArgumentError("quality", quality, f"{' and '.join(target)} given too: name one of them")
        codec = self.at(quality, effort)
        if len(images) == 1 or target:
            done = (codec.compress(image, metadata, **target) for image in images)
        else:
            done = codec.compress_batch(list(map(codec.picture, images)), metadata)
        return [(of_one.data, of_one.picture.dropped) for of_one in done]

    def at(self, quality: float | None = None, effort: int | None = None) -> "Codec":
        """The same weights at another quality or effort, None being those in use. Raises ArgumentError."""
        if self.weights is not None and quality == self.weights.quality:
            quality = None  # the only one of these weights
        if quality is None and effort is None:
            return self
        learned = self.learned.copied()
        set_to(learned, quality, effort)
        return Codec(learned, self.weights)

    def __repr__(self) -> str:
        at = "" if self.quality is None else f", quality={self.quality:g}"
        return f"<Codec {self.name or self.learned.fingerprint().hex()}{at}, {self.learned.device}>"


def set_to(learned: "LearnedCodec", quality: float | None = None, effort: int | None = None) -> None:
    """Sets quality and effort, None leaving what is set. Raises ArgumentError, also where no file holds it."""
    if quality is not None:
        if learned.qualities is None:
            raise ArgumentError("quality", quality, "the codec of this checkpoint has one quality only")
        check_number("quality", quality)
        quality = int(quality) if float(quality).is_integer() else float(quality)
        learned.set_quality(quality)
        if learned.quality != quality:
            lowest, second, *_, highest = learned.quality_grid
            allowed = f"allowed are {lowest:g} to {highest:g} in steps of {second - lowest:g}"
            raise ArgumentError("quality", quality, allowed)
    if effort is not None:
        learned.set_effort(effort)


def _check_several(key: str, given: object) -> None:
    """Raises ArgumentError for one image or file, of which some can be iterated over, too."""
    import numpy as np
    import torch

    if isinstance(given, np.ndarray):
        one = given.ndim == 2 or (given.ndim == 3 and given.shape[2] in (1, 3))
    elif isinstance(given, torch.Tensor):
        one = given.ndim in (2, 3)
    else:
        single = str | bytes | bytearray | memoryview | os.PathLike | Image.Image
        one = isinstance(given, single) or hasattr(given, "read")
    if one:
        what = f"{os.fsdecode(given)}: " if isinstance(given, str | os.PathLike) else ""
        raise ArgumentError(key, f"{what}this is one and not several: put it into a list, [...]")


def _picture(image: "ImageLike", channels: int | None) -> "Picture":
    """What is coded of an image, see `Codec.encode`; `channels`: 1 makes it grey."""
    import numpy as np
    import torch

    from codec.data.image_file import picture_of, read_picture

    if isinstance(image, str | os.PathLike):
        return read_picture(Path(image), channels)
    if hasattr(image, "read"):
        return read_picture(image, channels)
    if isinstance(image, Image.Image):
        return picture_of(image, channels)
    if isinstance(image, torch.Tensor):
        right, pixels = image.ndim == 3 and image.shape[0] in (1, 3), image
    elif isinstance(image, np.ndarray):
        right, pixels = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3)), image
    else:
        raise EncodeError(f"{type(image).__name__}: allowed are images, arrays, tensors, paths and opened files")
    if not right or image.dtype not in (torch.uint8, np.uint8) or 0 in image.shape:
        raise EncodeError(
            f"{image.dtype} {list(image.shape)}: allowed are arrays, uint8 [H, W] or [H, W, 3], and tensors, "
            "uint8 [1, H, W] or [3, H, W]"
        )
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.cpu().permute(1, 2, 0).numpy()
    return picture_of(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels), channels)
