"""Where the symbols of a pass lie in their tensor: some channels, at every other position from some offsets on."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from codec.entropy.priors.pass_network import Offset
from codec.entropy.priors.prior import Size
from codec.entropy.rdoq import Targets


def offsets_inside(offsets: Sequence[Offset], size: Size) -> list[Offset]:
    """Those of `offsets` that a tensor of `size` (H, W) has positions at."""
    return [(row, column) for row, column in offsets if row < size[0] and column < size[1]]


def positions(offset: Offset, size: Size) -> Size:
    """How many rows and columns begin at an offset."""
    (row, column), (height, width) = offset, size
    return -(-(height - row) // 2), -(-(width - column) // 2)


@cache
def picking(channels: tuple[int, ...], device: torch.device) -> slice | Tensor:
    """An index of these channels, made once: of neighbours a slice, which copies nothing."""
    neighbours = range(channels[0], channels[-1] + 1)
    if channels == tuple(neighbours):
        return slice(neighbours.start, neighbours.stop)
    return torch.tensor(channels, device=device)


def pick(
    levels: Tensor | Targets | None, picked: slice | Tensor, there: Sequence[Offset]
) -> Tensor | Targets | None:
    """The symbols `[B, c, N]` of `levels` `[B, C, H, W]`, in coding order."""
    if levels is None:
        return None
    if isinstance(levels, Targets):
        worth = levels.worth.expand(-1, levels.real.shape[1], -1, -1)
        everywhere = worth.shape[2:] == (1, 1)
        of_worth = worth[:, picked].flatten(2) if everywhere else pick(worth, picked, there)
        return Targets(pick(levels.real, picked, there), of_worth)
    parts = [levels[:, picked, row::2, column::2].flatten(2) for row, column in there]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def put(coded: Tensor, known: Tensor, picked: slice | Tensor, there: Sequence[Offset]) -> None:
    """Writes symbols `[B, c, N]` where `pick` takes them from."""
    if coded.untyped_storage().data_ptr() == known.untyped_storage().data_ptr():
        return  # a view, of one row or column, that `pick` took and nobody changed
    size = known.shape[-2:]
    first = 0
    for row, column in there:
        height, width = positions((row, column), size)
        here = coded[:, :, first : first + height * width]
        known[:, picked, row::2, column::2] = here.unflatten(2, (height, width))
        first += height * width
