"""Digits: codes the pixels of an image under the networks' mixtures as they are, in two digits each."""

import torch
from torch import Tensor

from codec.bitstream import StringReader, pack_strings
from codec.entropy.mixture import LEAST_BITS, LogisticMixture, Mixture, Plane
from codec.errors import EncodeError


class Digits:
    """Writes the planes of one image, or reads them from `data`: two strings a plane (see LogisticMixture)."""

    def __init__(
        self,
        model: LogisticMixture,
        size: tuple[int, int, int],
        order: tuple[int, ...],
        data: bytes | None = None,
    ) -> None:
        self.model = model
        self.strings: list[bytes] = []
        self.reader = None if data is None else StringReader(data)

    @staticmethod
    def least_bits(channels: int) -> float:
        """What a pixel of `channels` coded channels costs at least."""
        return channels * LEAST_BITS

    def write(self, mixture: Mixture, pixels: Tensor, plane: Plane) -> None:
        """Codes `pixels` `[1, h, w]`, 0…255. Raises EncodeError if the coder does not give them back."""
        strings = self.model.encode(mixture, pixels)
        if not torch.equal(self.model.decode(mixture, strings), pixels.float()):
            raise EncodeError(
                "the coder does not give back what it wrote: this machine does not compute as it should"
            )
        self.strings += strings

    def read(self, mixture: Mixture, plane: Plane) -> Tensor:
        """The next pixels, float `[1, h, w]`. Raises BitstreamError where the data end too soon."""
        return self.model.decode(mixture, [self.reader.next(), self.reader.next()])

    def finish(self) -> bytes:
        """All that was written."""
        return pack_strings(self.strings)

    def end(self) -> None:
        """Raises BitstreamError if not all has been read."""
        self.reader.end()

    def bits(self) -> float:
        """How many were written."""
        return 8.0 * len(self.finish())


class CountedDigits(Digits):
    """Counts what Digits would write, by the counts that the coder is told, without a coder."""

    counted = 0.0

    def write(self, mixture: Mixture, pixels: Tensor, plane: Plane) -> None:
        self.counted += float(self.model.bits(mixture, pixels).sum())

    def bits(self) -> float:
        return self.counted
