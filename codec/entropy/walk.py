"""What can be done on the way through a prior: train it, measure with it, write a file, read one.

A prior walks through its latents in coding order and calls `code(part, distribution, levels)` once for every
decoding pass: all symbols whose distributions are known at that time. What it gets back is known from there on.
Where nothing is trained, levels may be symbols that are read and written in their own place, as of a Tensor (see
codec.entropy.priors.positions).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from codec.bitstream import CHECKSUM_BYTES, BitstreamError, StringReader
from codec.entropy.trace import observed
from codec.networks.exact import whole


class Distribution(Protocol):
    """A distribution for every symbol of one pass, whose levels are `[B, C, h, w]`.

    Where `[…, B, C, h, w]` is said, levels may be several for each symbol.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the levels."""

    def at(self, part: slice) -> "Distribution":
        """Those of the symbols `levels[:, :, part]`."""

    def bits(self, levels: Tensor) -> Tensor:
        """Bits of each level, `[…, B, C, h, w]`, which need not be whole; differentiable."""

    @staticmethod
    def total_bits(passes: Sequence[tuple["Distribution", Tensor]]) -> Tensor:
        """Bits of each image, `[B]`, in several passes of this kind of distribution with their levels."""

    def file_bits(self, levels: Tensor) -> Tensor:
        """As `bits`, of whole levels, from the integer counts that the coder uses."""

    def cheaper(self, targets: Tensor, worth: Tensor) -> Tensor:
        """Of each of `targets`, `[B, C, …]`, the level that costs least by `file_bits`, see codec.entropy.rdoq."""

    def encode(self, levels: Tensor) -> bytes:
        """The levels of one image, B = 1, as a coded string."""

    def decode(self, data: bytes) -> Tensor:
        """The levels that `encode` was given. Raises BitstreamError."""

    def told(self) -> tuple[Tensor, ...]:
        """All integers that the coder is told: of each symbol the row of its table, `[N]`, tables, and so on."""


Code = Callable[[str, Distribution, Tensor | None], Tensor]


# Symbols that are looked at together: more would not be sooner done, and the memory for it grows.
_SOME = 1 << 19


def slices(levels: Tensor) -> Iterator[slice]:
    """Of `levels` `[B, C, …]` parts of the third dimension that do not hold many symbols."""
    length = levels.shape[2]
    step = max(1, _SOME * length // max(1, levels.numel()))
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


class Train:
    """Sums the bits by part, of levels with U(−½, ½) added if `noisy`, else of whole ones; differentiable.

    What follows is told whole ones, whose gradient is the identity.
    """

    def __init__(self, noisy: bool) -> None:
        self.noisy = noisy
        self._passes: dict[str, list[tuple[Distribution, Tensor]]] = defaultdict(list)

    def __call__(self, part: str, distribution: Distribution, levels: Tensor) -> Tensor:
        told = whole(levels)
        counted = levels + torch.rand_like(levels) - 0.5 if self.noisy else told
        self._passes[part].append((distribution, counted))
        return told

    def bits(self) -> dict[str, Tensor]:
        """Bits of every image by part, `[B]` each, once the walk is over."""
        return {part: passes[0][0].total_bits(passes) for part, passes in self._passes.items()}


class Measure:
    """Sums, by part, the bits that a file takes; nan where a level is not finite."""

    def __init__(self) -> None:
        self.bits: dict[str, Tensor] = defaultdict(float)

    def __call__(self, part: str, distribution: Distribution, levels: Tensor) -> Tensor:
        known = []
        for some in slices(levels):
            finite = torch.isfinite(levels[:, :, some])
            known.append(torch.where(finite, levels[:, :, some], 0.0))
            bits = distribution.at(some).file_bits(known[-1]).flatten(1).sum(1)
            self.bits[part] += torch.where(finite.flatten(1).all(1), bits, torch.nan)
        return torch.cat(known, 2)


class Write:
    """Collects the coded strings of one image, a string a pass."""

    def __init__(self) -> None:
        self.strings: list[bytes] = []

    def __call__(self, part: str, distribution: Distribution, levels: Tensor) -> Tensor:
        self.strings.append(distribution.encode(levels))
        return levels


class Read:
    """Decodes the strings of one image, pass by pass; they can be traced (see codec.entropy.trace)."""

    def __init__(self, section: bytes) -> None:
        self.strings = StringReader(section)

    def __call__(self, part: str, distribution: Distribution, levels: None) -> Tensor:
        string = self.strings.next()
        return observed(part, distribution.told, lambda: distribution.decode(string))

    def end(self) -> None:
        """Raises BitstreamError if anything is left."""
        self.strings.end()


class ReadWhatIsThere(Read):
    """As Read, of a section whose end may be missing: the symbols of passes that are not whole there are 0.

    Raises BitstreamError where not even the first is.
    """

    def __init__(self, section: bytes, device: torch.device) -> None:
        super().__init__(section)
        self.device = device
        self.cut, self.empty = False, True

    def __call__(self, part: str, distribution: Distribution, levels: None) -> Tensor:
        if not self.cut:
            try:
                decoded = super().__call__(part, distribution, levels)
            except BitstreamError as error:
                if self.empty:
                    raise BitstreamError("the file is cut before anything of its image") from error
                self.cut = True
            else:
                self.empty = False
                return decoded
        return torch.zeros(distribution.shape, device=self.device)

    def end(self) -> None:
        """Raises BitstreamError if nothing is missing but what the checksum of the file says."""
        if not self.cut:
            try:
                self.strings.end(CHECKSUM_BYTES - 1)
            except BitstreamError as error:
                raise BitstreamError(
                    "the file is damaged, not cut: its checksum does not match its bytes"
                ) from error


class Watched:
    """Does what another `code` does, and tells `report` what share of `symbols` is done after every pass."""

    def __init__(self, code: Code, symbols: int, report: Callable[[float], None]) -> None:
        self.code, self.symbols, self.report = code, symbols, report
        self.done = 0

    def __call__(self, part: str, distribution: Distribution, levels: Tensor | None) -> Tensor:
        known = self.code(part, distribution, levels)
        if part != "z":  # of side information there is little
            self.done += known.numel()
            self.report(self.done / self.symbols)
        return known
