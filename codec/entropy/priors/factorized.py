"""The factorized prior: one learned distribution per channel, the same at every position (Ballé et al. 2018)."""

from collections.abc import Sequence

from torch import Tensor, nn

from codec.entropy.per_channel import ChannelTables, PerChannel
from codec.entropy.priors.prior import Prior, Size
from codec.entropy.rdoq import Targets
from codec.entropy.walk import Code


class FactorizedPrior(Prior):
    """Every tensor of the latent is coded in one pass, each channel by a distribution of its own.

    `channels` are those of each tensor; `reach`, `filters` as in ChannelTables.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reach: int,
        groups: Sequence | None = None,
        filters: Sequence[int] = (3, 3, 3),
    ) -> None:
        super().__init__()
        self.models = nn.ModuleList(ChannelTables(count, reach, filters) for count in channels)

    def visit(
        self,
        levels: Sequence[Tensor | Targets] | None,
        sizes: Sequence[tuple[int, int, int]],
        code: Code,
        quality: Tensor | None = None,
    ) -> list[Tensor]:
        coded = zip(self.models, levels or [None] * len(sizes), sizes, strict=True)
        return [code(part_name(n), PerChannel(model, size), y) for n, (model, y, size) in enumerate(coded)]

    def least_bits(self, sizes: Sequence[Size]) -> float:
        return sum(
            float(model.least_bits_of_rows().sum()) * height * width
            for model, (height, width) in zip(self.models, sizes, strict=True)
        )


def part_name(number: int) -> str:
    """What the bits of a latent's tensor are logged as: y is the coarsest, y_1, y_2, … refine it."""
    return "y" if number == 0 else f"y_{number}"
