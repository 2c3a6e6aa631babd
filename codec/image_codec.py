"""ImageCodec: anything with `encode(image) -> bytes` and `decode(bytes) -> image`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

from codec.checks import check_within
from codec.errors import ArgumentError


class ImageCodec(ABC):
    """What JPEG and every learned codec are; `codec.measure` says how good one is.

    `suffix` is what is added to an image's name for its file. Where `lossless` is true, every image comes back
    exactly. `qualities` are those that files may be written at: a range of integers, or a pair (lowest, highest) of
    all numbers between; None: there is one rate. `quality` is the one in use. `efforts` are how much work may be
    put into writing a file, None: there is no choice; `effort` is the one in use, None: the codec's own.
    `decode_options` are by name the integers that `set_decoding` takes.
    """

    suffix: str = ".qnt"
    lossless: bool = False
    qualities: range | tuple[float, float] | None = None
    quality: float | None = None
    efforts: range | None = None
    effort: int | None = None
    decode_options: Mapping[str, range] = MappingProxyType({})

    @property
    def quality_grid(self) -> Sequence[float] | None:
        """All of `qualities` that a file can have, from small files to large; None if they are endless."""
        return self.qualities if isinstance(self.qualities, range) else None

    @abstractmethod
    def encode(self, image: Tensor) -> bytes:
        """The complete file for `image`, uint8 `[C, H, W]`, C in {1, 3}. Raises ValueError on anything else."""

    @abstractmethod
    def decode(self, data: bytes) -> Tensor:
        """The image in a complete file, uint8 `[C, H, W]`. Raises BitstreamError if it cannot be decoded."""

    def set_quality(self, quality: float) -> None:
        """Has files written at another of `qualities` from now on. Raises ArgumentError."""
        if self.qualities is None:
            raise ArgumentError("quality", quality, "this codec has one rate only")
        check_within("quality", quality, self.qualities)
        self.quality = quality

    def set_effort(self, effort: int) -> None:
        """Has another of `efforts` put into files from now on. Raises ArgumentError."""
        if self.efforts is None:
            raise ArgumentError("effort", effort, "this codec has no such choice")
        check_within("effort", effort, self.efforts)
        self.effort = effort

    def set_decoding(self, **options: int) -> None:
        """Has files decoded with other values of `decode_options` from now on. Raises ArgumentError."""
        for name, value in options.items():
            if name not in self.decode_options:
                raise ArgumentError(name, value, "this codec's decoder has no such option")
            check_within(name, value, self.decode_options[name])
            setattr(self, name, value)

    def copied(self) -> Self:
        """Another with a quality, an effort and a decoding of its own, and the same weights."""
        return copy.copy(self)

    def check_size(self, height: int, width: int) -> None:  # noqa: B027
        """Raises ValueError where an image of so many pixels has no file in this format. Here: all have one."""

    def estimated_bits(self, image: Tensor) -> float | None:
        """What training would have estimated for the sections of this image's file; None: there is no estimate."""
        return None

    def extra_columns(self, image: Tensor) -> dict[str, float]:
        """What else is told of an image, uint8 `[C, H, W]`, in the row that `measure` makes of it."""
        return {}


def check_image(image: Tensor) -> None:
    """Raises ValueError unless `image` is uint8 `[C, H, W]` with C in {1, 3} and at least one pixel."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(
            f"expected an image as uint8 [C, H, W] with 1 or 3 channels, got {image.dtype} {list(image.shape)}"
        )
