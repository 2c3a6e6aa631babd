"""The passes over a tensor, each at all positions at once: all that is known is kept, for the gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from codec.entropy.laplace import Laplace, LaplaceTables
from codec.entropy.priors.pass_network import Coarser, Known, Offset, PassNetwork, by_offset
from codec.entropy.priors.positions import pick, positions, put


class AtOnce:
    """One tensor `known` `[B, C, H, W]`, at first 0, and what else the networks see; see ContextPrior.

    It is another one after every pass, as the gradient asks for those before.
    """

    symbols = staticmethod(pick)

    def __init__(
        self,
        tables: LaplaceTables,
        known: Tensor,
        told: Sequence[Tensor],
        magnitudes: Tensor | None,
        knots: Tensor,
    ) -> None:
        self.tables, self.known, self.knots = tables, known, knots
        self.coarser = Coarser(by_offset(torch.cat(told, 1)) if told else None, magnitudes)

    def predicted(self, network: PassNetwork, coded: Sequence[int], reached: int, at: Sequence[Offset]) -> Laplace:
        """The distributions of a pass over the channels `coded`, `[B, c, N]`; see ContextPrior."""
        size, seen = self.known.shape[-2:], Known.of(self.known[:, :reached])
        each = [network(seen, self.coarser, self.knots, offset, positions(offset, size)) for offset in at]
        mean, log_scale = (torch.cat([p.flatten(2) for p in of], 2) for of in zip(*each, strict=True))
        return Laplace(self.tables, mean, log_scale)

    def learn(self, symbols: Tensor, coded: Sequence[int], at: Sequence[Offset]) -> None:
        """What came of that pass, `[B, c, N]`."""
        self.known = self.known.clone()
        put(symbols, self.known, coded, at)
