"""What `import codec` offers: codecs by name, and images of every kind to files and back.

The command `codec` and Pillow's plugin are made of the same parts. torch is imported where an image is coded, and
not before.
"""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TypeVar

from PIL import Image

from codec import bitstream, pretrained
from codec.bitstream import BitstreamError, MetadataError
from codec.checks import check_choice, check_device, check_integer
from codec.errors import ArgumentError, EncodeError
from codec.metadata import Metadata
from codec.pretrained import PretrainedModel, Weights

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from codec.data.image_file import Picture
    from codec.learned_codec import LearnedCodec

    Decoded = Image.Image | np.ndarray | Tensor
    ImageLike = Decoded | str | Path | BinaryIO

File = bytes | str | Path | BinaryIO
Kind = Literal["pillow", "numpy", "torch"]
KINDS: tuple[Kind, ...] = ("pillow", "numpy", "torch")

T = TypeVar("T")
R = TypeVar("R")


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
        """What a quality may be: integers, or all numbers from the first to the last; None: there is one rate."""
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
        target = {key: value for key, value in target.items() if value is not None}
        if quality is not None and target:
            raise ArgumentError("quality", quality, f"{' and '.join(target)} given too: name one of them")
        done = self.at(quality, effort).compress(image, metadata, **target)
        if done.picture.dropped:
            warnings.warn("; ".join(done.picture.dropped), stacklevel=2)
        return done.data

    def compress(self, image: "ImageLike", metadata: Metadata | None = None, **target: float) -> Compressed:
        """As `encode`, which warns of what `picture.dropped` says; `target` is what `search.encode_to` takes."""
        from codec.data.image_file import check_all_kept
        from codec.search import Found, encode_to

        picture = _picture(image, channels=1 if self.learned.image_channels == 1 else None)
        if self.lossless:
            check_all_kept(picture, image)
        try:
            self.learned.check_size(*picture.image.shape[1:])
        except ValueError as error:
            raise EncodeError(str(error)) from None
        kept = picture.metadata if metadata is None else metadata
        if target:
            found = encode_to(self.learned, picture.image, kept, **target)
        else:
            found = Found(self.learned.encode(picture.image, kept), self.learned.quality)
        return Compressed(found.data, picture, found.quality, found.psnr)

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
        return CodedImage(data, partial).decode(to, self, crop=crop, scale=scale)

    def encode_batch(self, images: "Iterable[ImageLike]", jobs: int = 1, **options: float) -> list[bytes]:
        """The files of several images, of whichever sizes: `[N, 3, H, W]`, `[N, H, W, 3]`, a list, a generator.

        `jobs`, from 1, of them at a time, by threads. `options` and what is raised: see `encode`.
        """
        return _each(lambda image: self.encode(image, **options), images, jobs)

    def decode_batch(self, files: Iterable[File], to: Kind = "pillow", jobs: int = 1) -> "list[Decoded]":
        """The images in several files; `jobs`: see `encode_batch`, the rest: see `decode`."""
        return _each(lambda data: self.decode(data, to), files, jobs)

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


class CodedImage:
    """A file that is opened and not decoded: its header says all of this.

    `width`, `height` in pixels; `channels`, 1 or 3; `size`, (width, height), and `mode`, L or RGB, as Pillow has
    them; `bytes`: of the whole file.
    """

    def __init__(self, source: File, partial: bool = False) -> None:
        self.data, self._partial = _read(source), partial
        header, self._sections = bitstream.unpack(self.data, partial)
        self.width, self.height, self.channels = header.width, header.height, header.channels
        self.size = header.width, header.height
        self.mode = "L" if header.channels == 1 else "RGB"
        self.bytes = len(self.data)
        self._fingerprint = header.fingerprint

    @cached_property
    def weights(self) -> Weights | None:
        """The pretrained weights that wrote the file; None: another codec's did."""
        return pretrained.written_by(self._fingerprint)

    @property
    def bpp(self) -> float:
        """Bits per pixel, of the whole file."""
        return 8 * self.bytes / (self.width * self.height)

    @property
    def model(self) -> str | None:
        """The name of the pretrained model that wrote the file; None: another codec did."""
        return None if self.weights is None else self.weights.name

    @property
    def quality(self) -> float | None:
        """What a pretrained model wrote it at; None: that has one rate, or `model` is None."""
        if self.weights is None or not self.weights.accepts:
            return None if self.weights is None else self.weights.quality
        (first,) = self._sections[0][:1] or (0,)  # an empty one is refused as it is decoded
        return first if self.weights.scheme == "comcnn_reccnn" else first / bitstream.QUALITY_UNIT

    @property
    def metadata(self) -> Metadata:
        """ICC profile, EXIF and XMP of the upright image; nothing where they are `damaged`."""
        return self._metadata or Metadata()

    @property
    def damaged(self) -> bool:
        """Whether the metadata cannot be read, without which the image is decoded nonetheless."""
        return self._metadata is None

    @cached_property
    def cut(self) -> bool:
        """Whether its end is missing, which is opened as `partial` only."""
        try:
            bitstream.unpack(self.data)
        except BitstreamError:
            return True
        return False

    @cached_property
    def _metadata(self) -> Metadata | None:
        if self.cut:
            return Metadata()
        try:
            return bitstream.metadata_of(self.data)
        except MetadataError:
            return None

    def decode(
        self,
        to: Kind = "pillow",
        codec: Codec | None = None,
        *,
        crop: "tuple[int, int, int, int] | None" = None,
        scale: int = 1,
    ) -> "Decoded":
        """The image, see `Codec.decode`; None takes the pretrained or registered codec that wrote the file."""
        check_choice("to", to, KINDS)
        learned = _DECODERS.of(self.data, self._partial) if codec is None else codec.learned
        from codec.windows import Crop

        check_integer("scale", scale, 1)
        part = None
        if crop is not None:
            if len(crop) != 4:
                raise ArgumentError("crop", crop, "allowed are four integers: x, y, width, height")
            for number in crop:
                check_integer("crop", number, 0)
            part = Crop(*crop)
        image = learned.decode(self.data, part, scale, self._partial).cpu()
        if to == "torch":
            return image
        from codec.data.image_file import pillow_image

        picture = pillow_image(image)
        if to == "numpy":
            import numpy as np

            return np.array(picture)
        if self.damaged:
            warnings.warn("the file's metadata is damaged and left out", stacklevel=3)
        picture.info |= info_of(self.metadata)
        return picture

    def __repr__(self) -> str:
        of = f" by {self.weights.label}" if self.weights else ""
        return f"<CodedImage {self.width}×{self.height} {self.mode}{of}, {self.bytes:,} bytes>"


class Decoders:
    """The codecs of files: `named`, if it is given, else pretrained ones, each loaded once, on `device`.

    Threads may share it.
    """

    def __init__(self, named: "LearnedCodec | None" = None, device: "str | torch.device" = "cpu") -> None:
        self._named = named
        self._device = device
        self._loaded: dict[bytes, LearnedCodec] = {}
        self._loading = threading.Lock()

    def of(self, data: bytes, partial: bool = False) -> "LearnedCodec":
        """The codec to decode a file with, of which, if `partial`, the end may be missing.

        Raises BitstreamError if none of those that are known wrote it.
        """
        if self._named is not None:
            return self._named
        fingerprint = bitstream.unpack(data, partial)[0].fingerprint
        if fingerprint in self._loaded:
            return self._loaded[fingerprint]
        weights = pretrained.written_by(fingerprint)
        if weights is None:
            raise BitstreamError(
                f"the file was written with weights {fingerprint.hex()}, those of no pretrained model: "
                "name what wrote it, by --checkpoint or codec.load(checkpoint=...)"
            )
        return self.of_weights(weights)

    def of_weights(self, weights: Weights) -> "LearnedCodec":
        """The codec of pretrained weights, at their own quality. Raises CheckpointError if they are damaged."""
        from codec.checkpoint import load_pretrained

        fingerprint = bytes.fromhex(weights.fingerprint)
        with self._loading:
            if fingerprint not in self._loaded:
                self._loaded[fingerprint] = load_pretrained(weights).to(self._device)
            return self._loaded[fingerprint]

    def add(self, learned: "LearnedCodec") -> None:
        """Has files of this codec decoded by it."""
        self._loaded[learned.fingerprint()] = learned


_DECODERS = Decoders()


def models() -> list[PretrainedModel]:
    """The models that come with the package, as `codec models` lists them: the default one first.

    >>> import codec
    >>> codec.models()[0]
    <PretrainedModel diffusion_wavelet: lossy, colour, quality 0–100>
    """
    return pretrained.pretrained_models()


def load(
    model: str | None = None,
    quality: float | None = None,
    *,
    checkpoint: str | Path | None = None,
    effort: int | None = None,
    device: "str | torch.device" = "cpu",
) -> Codec:
    """The codec of a pretrained `model`, None being the default one, or of a `checkpoint`.

    `checkpoint`: a run's folder, a .ckpt or a .safetensors. `quality` and `effort` are what files are written at
    where `encode` is not told otherwise, None: the codec's own; `device`: cpu, cuda, cuda:N, mps. Raises
    CheckpointError if there is no such model, quality of it, or checkpoint; ArgumentError for other numbers that
    are not allowed, or a device that is not there.

    >>> import codec
    >>> from PIL import Image
    >>> c = codec.load("diffusion_wavelet", quality=30)
    >>> data = c.encode(Image.new("RGB", (60, 40)))
    >>> c.decode(data)
    <PIL.Image.Image image mode=RGB size=60x40 at 0x...>
    >>> c.decode(data, "numpy").shape
    (40, 60, 3)
    """
    if model is not None and checkpoint is not None:
        raise ArgumentError(f"model={model} and checkpoint={checkpoint}: name one of them")
    where = device_of(device)
    from codec.checkpoint import load_codec, load_pretrained

    if checkpoint is not None:
        codec = Codec(load_codec(checkpoint, where))
    else:
        weights = pretrained.choose(model, quality)
        codec = Codec(load_pretrained(weights).to(where), weights)
    return codec.at(quality, effort)


def open(source: File) -> CodedImage:
    """A file of ours, by its path, its bytes, or opened: its size, model and quality, without decoding it.

    Raises BitstreamError if it is none, or is cut or damaged; OSError if it cannot be read.

    >>> import codec
    >>> from PIL import Image
    >>> file = codec.open(codec.load(quality=30).encode(Image.new("RGB", (60, 40))))
    >>> file.size, file.mode, file.model, file.quality
    ((60, 40), 'RGB', 'diffusion_wavelet', 30.0)
    """
    return CodedImage(source)


def decode(data: File, to: Kind = "pillow") -> "Decoded":
    """The image in a file, with the pretrained or registered codec that wrote it; see `Codec.decode`."""
    return CodedImage(data).decode(to)


def register(codec: Codec) -> None:
    """Has `codec.decode`, `codec.open` and Pillow decode the files of a codec that is not in the package."""
    _DECODERS.add(codec.learned)


def shared(model: str | None = None, quality: float | None = None) -> Codec:
    """The codec for `quality`, on the CPU and not set to it yet, its weights loaded once in a process.

    Raises what `load` does.
    """
    weights = pretrained.choose(model, quality)
    return Codec(_DECODERS.of_weights(weights), weights)


def set_to(learned: "LearnedCodec", quality: float | None = None, effort: int | None = None) -> None:
    """Sets quality and effort, None leaving what is set. Raises ArgumentError, also where no file holds it."""
    if quality is not None:
        if learned.qualities is None:
            raise ArgumentError("quality", quality, "the codec of this checkpoint has one quality only")
        quality = int(quality) if float(quality).is_integer() else float(quality)
        learned.set_quality(quality)
        if learned.quality != quality:
            lowest, second, *_, highest = learned.quality_grid
            allowed = f"allowed are {lowest:g} to {highest:g} in steps of {second - lowest:g}"
            raise ArgumentError("quality", quality, allowed)
    if effort is not None:
        learned.set_effort(effort)


def device_of(device: "str | torch.device") -> "torch.device":
    """Raises ArgumentError if there is no such device."""
    import torch

    check_device(device)
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's own words name its builds and web pages
        raise ArgumentError("device", str(device), "torch finds no such device here") from error


def info_of(metadata: Metadata) -> dict[str, bytes]:
    """Metadata as Pillow has it in an image's `info`."""
    exif = metadata.exif and b"Exif\0\0" + metadata.exif
    named = {"icc_profile": metadata.icc, "exif": exif, "xmp": metadata.xmp}
    return {key: value for key, value in named.items() if value}


@contextmanager
def side_by_side(workers: int) -> Iterator[None]:
    """Prepares what all threads share, so that none changes it under another, and divides the cores among them."""
    if workers < 2:
        yield
        return
    import torch

    from codec.entropy.coder import default_coder

    default_coder()  # may compile, for which it turns standard output away
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        # What every encode and decode sets, and puts back where it was.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)


def _each(one: Callable[[T], R], items: Iterable[T], jobs: int) -> list[R]:
    check_integer("jobs", jobs, 1)
    if jobs == 1:
        return [one(item) for item in items]
    from concurrent.futures import Future, ThreadPoolExecutor

    done: list[R] = []
    waiting: deque[Future[R]] = deque()
    with side_by_side(jobs), ThreadPoolExecutor(jobs) as pool:
        for item in items:  # of which few are to be in memory at once
            waiting.append(pool.submit(one, item))
            if len(waiting) > 2 * jobs:
                done.append(waiting.popleft().result())
        return done + [future.result() for future in waiting]


def _read(source: File) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    return Path(source).read_bytes() if isinstance(source, str | Path) else source.read()


def _picture(image: "ImageLike", channels: int | None) -> "Picture":
    """What is coded of an image, see `Codec.encode`; `channels`: 1 makes it grey."""
    import numpy as np
    import torch

    from codec.data.image_file import picture_of, read_picture

    if isinstance(image, str | Path) or hasattr(image, "read"):
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
