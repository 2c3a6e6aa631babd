"""What codes the pixels of an image under the networks' mixtures."""

from typing import Protocol

from torch import Tensor

from codec.entropy.digits import CountedDigits, Digits
from codec.entropy.mixture import Mixture, Plane

ADAPTATIONS = ("none", "mixing")


class PixelCoder(Protocol):
    """Writes the planes of one image, or reads them from data, in the same order."""

    @staticmethod
    def least_bits(channels: int) -> float:
        """What a pixel of `channels` coded channels costs at least."""

    def write(self, mixture: Mixture, pixels: Tensor, plane: Plane) -> None:
        """Codes `pixels` `[1, h, w]`, 0…255. Raises EncodeError if the coder does not give them back."""

    def read(self, mixture: Mixture, plane: Plane) -> Tensor:
        """The next pixels, float `[1, h, w]`."""

    def finish(self) -> bytes:
        """All that was written."""

    def bits(self) -> float:
        """How many that are."""

    def end(self) -> None:
        """Raises BitstreamError if what was read is not all of the data."""


def pixel_coder(adaptation: str, counted: bool = False) -> type[PixelCoder]:
    """The class that codes with an adaptation of ADAPTATIONS; `counted`: whose bits only are wanted."""
    if adaptation == "none":
        return CountedDigits if counted else Digits
    from codec.entropy.mixing import AdaptiveMixing  # numba takes a second to import

    return AdaptiveMixing
