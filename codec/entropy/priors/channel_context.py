"""The space–channel context model: slices of channels in turn, each in passes over the positions.

He, Yang, Peng, Ma, Qin, Wang, "ELIC" 2022 (https://arxiv.org/abs/2203.10886), after Minnen and Singh 2020
(https://arxiv.org/abs/2007.08739). Differs from them: the side information may be left out, since predictors that
are linear in what is decoded make a context model from the start (see codec.entropy.priors.linear_start).
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from codec.checks import check_choice, check_flag, check_integer
from codec.entropy.priors.context import PHASES, ContextPrior, Group
from codec.entropy.priors.linear_start import fit_linear
from codec.entropy.priors.pass_network import SlowPredictor


class ChannelContextPrior(ContextPrior):
    """Each tensor in groups of channels, each group in passes, conditioned on all that is decoded.

    `groups`, (channels, phases) of each tensor in coding order, are those that a transform knows of its
    coefficients. A tensor whose groups are None is cut into `slices` equal groups of `phases` passes each; so are
    all without `groups`. `features` are the networks' width, and z's channels if there is one (`hyper`). With
    `linear_start` training begins at a linear context model, which is fitted to some of the images unless
    `start_from` has brought one.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reach: int,
        groups: Sequence[Sequence[tuple[Sequence[int], int]] | None] | None = None,
        features: int = 32,
        slices: int = 5,
        phases: int = 2,
        hyper: bool = False,
        linear_start: bool = True,
    ) -> None:
        check_integer("slices", slices, 1)
        check_choice("phases", phases, tuple(PHASES))
        check_flag("hyper", hyper)
        check_flag("linear_start", linear_start)
        told = groups or [None] * len(channels)
        groups = [
            [Group(tuple(part), passes) for part, passes in of_tensor or _cut(count, slices, phases)]
            for count, of_tensor in zip(channels, told, strict=True)
        ]
        super().__init__(channels, groups, features, hyper)
        self.linear_start = linear_start

    @property
    def can_be_fitted(self) -> bool:
        """Whether it shall be and has not been, here or where its weights come from."""
        linear = [m for m in self.modules() if isinstance(m, SlowPredictor) and m.kernel_size != (1, 1)]
        return self.linear_start and not any(bool(m.weight.any()) for m in linear)

    def fit(self, levels: Sequence[Tensor], quality: Tensor | None = None) -> None:
        fit_linear(self, levels, quality)


def _cut(count: int, slices: int, phases: int) -> list[tuple[Sequence[int], int]]:
    slices = min(slices, count)
    ends = [count * n // slices for n in range(slices + 1)]
    return [(range(first, end), phases) for first, end in pairwise(ends) if end > first]
