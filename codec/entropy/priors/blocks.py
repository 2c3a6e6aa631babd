"""The passes over a large tensor in blocks of rows: the same distributions, in memory that does not grow with it.

What a network predicts at a position depends on a few rows around it, and its arithmetic is exact, so that blocks
make no difference to what comes of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from codec.entropy.laplace import CodedLaplace, LaplaceTables, packed
from codec.entropy.priors.pass_network import (
    Coarser,
    CoarserFeatures,
    Known,
    Offset,
    PassNetwork,
    on_half_grid,
    spread,
)
from codec.entropy.priors.positions import InPlace, picking, positions, put
from codec.entropy.priors.prior import Size

# Positions that are predicted together, or of a coarser tensor, told of: that many of 32 features stay in a cache.
_SOME = 1 << 15


class Blocks:
    """One tensor `known` `[B, C, H, W]`, written pass by pass, and what else the networks see; see ContextPrior.

    What it holds where nothing has been learnt yet counts as 0. Of an int16 tensor another comes about if a level
    takes more.
    """

    symbols = InPlace

    def __init__(
        self,
        tables: LaplaceTables,
        known: Tensor,
        told: Sequence[Tensor],
        magnitudes: Tensor | None,
        knots: Tensor,
    ) -> None:
        self.tables, self.known, self.told, self.knots = tables, known, told, knots
        self.magnitudes = magnitudes
        self._unknown = {(row, column): set(range(known.shape[1])) for row in (0, 1) for column in (0, 1)}

    def learn(self, symbols: Tensor | InPlace, coded: tuple[int, ...], at: Sequence[Offset]) -> None:
        """What came of a pass over the channels `coded`, `[B, c, N]`."""
        if isinstance(symbols, Tensor):
            if self.known.dtype == torch.int16 and not _fits(symbols):
                self.known = self.known.float()
            put(symbols, self.known, coded, at)
        for offset in at:
            self._unknown[offset] -= set(coded)

    def predicted(
        self, network: PassNetwork, coded: Sequence[int], reached: int, at: Sequence[Offset]
    ) -> CodedLaplace:
        """The distributions of a pass over the channels `coded`, `[B, c, N]`.

        Nothing is known of channels from `reached` on.
        """
        size = self.known.shape[-2:]
        shapes = [positions(offset, size) for offset in at]
        count = sum(height * width for height, width in shapes)
        integers = torch.empty((len(self.known), len(coded), count), dtype=torch.int32, device=self.known.device)
        step = max(1, _SOME // max(width for _, width in shapes))
        for top in range(0, max(height for height, _ in shapes), step):
            begin = max(0, 2 * top - network.kernel // 2)
            # Those from the different offsets on are predicted of the same rows.
            known = Known.of(self._seen(reached, begin, 2 * (top + step) + network.kernel // 2))
            first = 0
            for offset, (height, width) in zip(at, shapes, strict=True):
                bottom = min(top + step, height)
                if top < bottom:
                    mean, log_scale = self._block(network, known, begin, offset, top, bottom)
                    rows = slice(first + top * width, first + bottom * width)
                    integers[..., rows] = packed(mean, log_scale).flatten(2)
                first += height * width
        return CodedLaplace(self.tables, integers)

    def _block(
        self, network: PassNetwork, known: Known, begin: int, offset: Offset, top: int, bottom: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and scale of the positions from `offset` on in their rows `top` to `bottom`.

        `known` of the tensor's rows from `begin` on.
        """
        row, column = offset
        here = 2 * top + row - begin, column
        # Rows below the block may make one position more, which is left out again.
        shape = positions(here, known.levels.shape[-2:])
        rows = top + shape[0]
        features = None
        if self.told:
            at = (..., slice(2 * top + row, 2 * rows + row, 2), slice(column, None, 2))
            told = [h[at].contiguous(memory_format=torch.channels_last) for h in self.told]
            features = {here: told[0] if len(told) == 1 else torch.cat(told, 1)}
        magnitudes = None if self.magnitudes is None else self.magnitudes[..., top : rows + 2, :]
        mean, log_scale = network(known, Coarser(features, magnitudes), self.knots, [here], shape)
        return mean[:, :, 0, : bottom - top], log_scale[:, :, 0, : bottom - top]

    def _seen(self, reached: int, begin: int, end: int) -> Tensor:
        """Rows of what is known, a copy."""
        # One copy into the layout of the convolutions is quicker than one of each form that they see.
        rows = self.known[:, :reached, begin:end]
        rows = rows.to(torch.float32, copy=True, memory_format=torch.channels_last)
        for (row, column), channels in self._unknown.items():
            hidden = tuple(sorted(channel for channel in channels if channel < reached))
            if hidden:
                rows[:, picking(hidden, rows.device), (row - begin) % 2 :: 2, column::2] = 0
        return rows


def features_in_blocks(network: CoarserFeatures, levels: Tensor, before: Tensor | None, size: Size) -> Tensor:
    """What `network` gives, as uint8."""
    batch, _, height, width = levels.shape
    features = network.to_next.out_channels
    shape = batch, features, 2 * height, 2 * width
    made = torch.empty(shape, dtype=torch.uint8, device=levels.device, memory_format=torch.channels_last)
    step = max(1, _SOME // width)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        first, last = max(0, top - 2), min(height, bottom + 2)
        told = None if before is None else before[..., first:last, :]
        block = network.on_double_grid(levels[..., first:last, :].float(), told)
        made[..., 2 * top : 2 * bottom, :] = block[..., 2 * (top - first) : 2 * (bottom - first), :]
    return spread(made, size)


def magnitudes_in_bytes(levels: Tensor, size: Size) -> Tensor:
    """As `on_half_grid`, as uint8, a channel at a time."""
    each = [on_half_grid(channel, size).byte() for channel in levels.split(1, 1)]
    return torch.cat(each, 1).contiguous(memory_format=torch.channels_last)


def _fits(symbols: Tensor) -> bool:
    """Whether int16 has room for them."""
    room, (low, high) = torch.iinfo(torch.int16), symbols.aminmax()
    return room.min <= int(low) and int(high) <= room.max
