"""Rate-distortion-optimised quantisation: what an encoder codes need not be the nearest level.

Two more things that can be done on the way through a prior (see codec.entropy.walk), by an encoder only.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from codec.entropy.walk import Distribution, Train, slices

# What a bit is worth, over the squared error of one level. At high rates D = step²/12 · 4^-bits, so 0.116; measured
# best is less.
BIT = 0.08


class Targets(NamedTuple):
    """Levels that are still to be chosen: what the latent `[B, C, …]` is in steps, not rounded, and their worth.

    `worth` is what a squared error of one step costs there, in bits, `[1 or B, 1 or C, 1, …]` or as large.
    """

    real: Tensor
    worth: Tensor


class Choose:
    """Takes for every symbol that of its two nearest levels which costs least, squared error and bits together.

    Levels are Targets. A symbol is charged what it takes by itself in a file, not what follows from it. Side
    information, which is a Tensor, stays as it is; a file's is made of the chosen levels, so it may be another.
    """

    def __call__(self, part: str, distribution: Distribution, levels: Targets | Tensor) -> Tensor:
        if isinstance(levels, Tensor):
            return levels
        chosen, worth = levels.real, levels.worth.expand(levels.real.shape)  # in place, for memory's sake
        for some in slices(chosen):
            chosen[:, :, some] = distribution.at(some).cheaper(chosen[:, :, some], worth[:, :, some])
        return chosen


class ChooseInTraining(Train):
    """As Choose, by the bits that the prior says, which are quicker to tell, and sums those as Train does.

    Side information is then made of what the levels are chosen for, as nothing is chosen yet.
    """

    def __init__(self) -> None:
        super().__init__(noisy=False)

    def __call__(self, part: str, distribution: Distribution, levels: Targets | Tensor) -> Tensor:
        if isinstance(levels, Targets):
            with torch.no_grad():
                chosen = cheaper(levels.real, levels.worth, distribution.bits)
            levels = levels.real + (chosen - levels.real).detach()
        return super().__call__(part, distribution, levels)


class ChooseAndWrite(Choose):
    """Chooses, and collects the coded strings; None once there is side information, which is not a file's yet."""

    def __init__(self) -> None:
        super().__init__()
        self.strings: list[bytes] | None = []

    def __call__(self, part: str, distribution: Distribution, levels: Targets | Tensor) -> Tensor:
        chosen = super().__call__(part, distribution, levels)
        if isinstance(levels, Tensor):
            self.strings = None
        if self.strings is not None:
            self.strings.append(distribution.encode(chosen))
        return chosen


class BitsAhead:
    """Sums what all symbols cost, differentiable in those levels that they are predicted from, not in their own.

    Where levels are Targets, a symbol's bits count as often as its worth says.
    """

    def __init__(self) -> None:
        self.bits: Tensor | float = 0.0

    def __call__(self, part: str, distribution: Distribution, levels: Targets | Tensor) -> Tensor:
        real, worth = levels if isinstance(levels, Targets) else (levels, 1)
        self.bits = self.bits + (distribution.bits(real.detach()) * worth).sum()
        return real


def cheaper(target: Tensor, worth: Tensor, bits_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Of each `target` that of its two nearest levels which costs least: squared error times `worth`, and bits."""
    nearest = torch.stack([torch.floor(target), torch.ceil(target)])
    below, above = worth * (target - nearest) ** 2 + bits_of(nearest)
    return torch.where(above < below, nearest[1], nearest[0])
