"""The passes over a tensor, each at all positions at once: all that is known is kept, for the gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from codec.entropy.laplace import Laplace, LaplaceTables
from codec.entropy.priors.pass_network import Coarser, Known, Offset, PassNetwork, by_offset, joined
from codec.entropy.priors.positions import pick, positions, put


class AtOnce:
    """One tensor `known` `[B, C, H, W]`, at first 0, and what else the networks see; see ContextPrior.

    It is another one after every pass, as the gradient asks for those before.
    """

    def __init__(
        self,
        tables: LaplaceTables,
        known: Tensor,
        told: Sequence[Tensor],
        magnitudes: Tensor | None,
        knots: Tensor,
    ) -> None:
        self.tables, self.known, self.knots = tables, known, knots
        # Of the levels that `symbols` was last asked for, each channel's by offset.
        self._planes: tuple[Tensor, dict[Offset, Sequence[Tensor]]] | None = None
        features = None
        if told:
            layout = torch.channels_last
            each = by_offset(torch.cat(told, 1))
            features = {offset: part.contiguous(memory_format=layout) for offset, part in each.items()}
        self.coarser = Coarser(features, magnitudes)

    def symbols(self, levels: Tensor, coded: Sequence[int], at: Sequence[Offset]) -> Tensor:
        """As `pick`, whose gradient would be a tensor as large as `levels` for every pass."""
        if self._planes is None or self._planes[0] is not levels:
            self._planes = levels, {offset: part.flatten(2).unbind(1) for offset, part in by_offset(levels).items()}
        planes = self._planes[1]
        return joined([torch.stack([planes[offset][channel] for channel in coded], 1) for offset in at], 2)

    def predicted(self, network: PassNetwork, coded: Sequence[int], reached: int, at: Sequence[Offset]) -> Laplace:
        """The distributions of a pass over the channels `coded`, `[B, c, N]`; see ContextPrior."""
        size, channels = self.known.shape[-2:], self.known.shape[1]
        seen = Known.of(self.known if reached == channels else self.known[:, :reached])
        shapes = [positions(offset, size) for offset in at]
        visits = (
            [(at, shapes[0])]
            if len(set(shapes)) == 1
            else [([one], of) for one, of in zip(at, shapes, strict=True)]
        )
        each = [network(seen, self.coarser, self.knots, offsets, shape) for offsets, shape in visits]
        mean, log_scale = (joined([p.flatten(2) for p in of], 2) for of in zip(*each, strict=True))
        return Laplace(self.tables, mean, log_scale)

    def learn(self, symbols: Tensor, coded: Sequence[int], at: Sequence[Offset]) -> None:
        """What came of that pass, `[B, c, N]`."""
        self.known = _Learnt.apply(self.known, symbols, coded, at)


class _Learnt(torch.autograd.Function):
    """A copy of `known` with symbols where `put` writes them; what was there is 0 and takes no gradient."""

    @staticmethod
    def forward(
        context: FunctionCtx, known: Tensor, symbols: Tensor, coded: Sequence[int], at: Sequence[Offset]
    ) -> Tensor:
        context.where = coded, at
        known = known.clone()
        put(symbols, known, coded, at)
        return known

    @staticmethod
    @once_differentiable
    def backward(context: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return gradient, pick(gradient, *context.where), None, None
