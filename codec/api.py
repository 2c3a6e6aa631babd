"""What `import codec` offers: codecs by name, and images of every kind to files and back.

The command `codec` and Pillow's plugin are made of the same parts. torch is imported where an image is coded, and
not before.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from codec import pretrained
from codec.checks import check_device
from codec.coded_image import CodedImage, File, Kind, opened
from codec.decoders import DECODERS
from codec.errors import ArgumentError
from codec.loaded_codec import Codec
from codec.metadata import Metadata
from codec.pretrained import PretrainedModel

if TYPE_CHECKING:
    import torch

    from codec.coded_image import Decoded

__all__ = ["Codec", "CodedImage", "Metadata", "decode", "load", "models", "open", "register"]


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


def open(source: File, *, partial: bool = False) -> CodedImage:
    """A file of ours, by its path, its bytes, or opened: its size, model and quality, without decoding it.

    `partial` takes a file whose end is missing, too. Raises BitstreamError if it is none of ours, or is cut or
    damaged; OSError if it cannot be read.

    >>> import codec
    >>> from PIL import Image
    >>> file = codec.open(codec.load(quality=30).encode(Image.new("RGB", (60, 40))))
    >>> file.size, file.mode, file.model, file.quality
    ((60, 40), 'RGB', 'diffusion_wavelet', 30.0)
    """
    return opened(source, partial)


def decode(
    data: File,
    to: Kind = "pillow",
    *,
    crop: tuple[int, int, int, int] | None = None,
    scale: int = 1,
    partial: bool = False,
) -> "Decoded":
    """The image in a file, with the pretrained or registered codec that wrote it; see `Codec.decode`."""
    return opened(data, partial).decode(to, crop=crop, scale=scale)


def register(codec: Codec) -> None:
    """Has `codec.decode`, `codec.open` and Pillow decode the files of a codec that is not in the package."""
    DECODERS.add(codec.learned)


def shared(model: str | None = None, quality: float | None = None) -> Codec:
    """The codec for `quality`, on the CPU and not set to it yet, its weights loaded once in a process.

    Raises what `load` does.
    """
    weights = pretrained.choose(model, quality)
    return Codec(DECODERS.of_weights(weights), weights)


def device_of(device: "str | torch.device") -> "torch.device":
    """Raises ArgumentError if there is no such device."""
    import torch

    check_device(device)
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's own words name its builds and web pages
        raise ArgumentError("device", str(device), "torch finds no such device here") from error
