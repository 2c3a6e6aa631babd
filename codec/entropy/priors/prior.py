"""Prior: the probability model of a latent, as a walk through it in coding order."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from codec.entropy.walk import Code

Size = tuple[int, int]


class Prior(nn.Module, ABC):
    """The probability model of a latent, which is one tensor or a pyramid of them, coarse to fine.

    What it is told of a latent stands in its order: `levels`, whole numbers in float `[B, C, H, W]` (in training:
    not rounded yet), or None to a decoder; `sizes`, (B, H, W) of each; `quality`, `[B]`, 0–100, or None where there
    is one rate.
    """

    can_be_fitted = False

    @abstractmethod
    def visit(
        self,
        levels: Sequence[Tensor] | None,
        sizes: Sequence[tuple[int, int, int]],
        code: Code,
        quality: Tensor | None = None,
    ) -> list[Tensor]:
        """Calls `code` once for every decoding pass; returns the levels, as `code` gave them back."""

    def fit(self, levels: Sequence[Tensor], quality: Tensor | None = None) -> None:
        """Starts the prior by whole levels of several images, where `can_be_fitted`; others start as they are."""

    @abstractmethod
    def least_bits(self, sizes: Sequence[Size]) -> float:
        """What a latent of these (H, W) costs if every symbol is the likeliest of its table.

        A section that is shorter can be refused before memory is taken.
        """
