"""Where the symbols of a pass lie in their tensor: some channels, at every other position from some offsets on."""

from collections.abc import Iterator, Sequence
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
    levels: Tensor | Targets | None, channels: tuple[int, ...], at: Sequence[Offset]
) -> Tensor | Targets | None:
    """The symbols `[B, c, N]` of `levels` `[B, C, H, W]` in coding order, copied."""
    if levels is None:
        return None
    if isinstance(levels, Targets):
        worth = levels.worth.expand(-1, levels.real.shape[1], -1, -1)
        everywhere = worth.shape[2:] == (1, 1)
        picked = picking(channels, worth.device)
        of_worth = worth[:, picked].flatten(2) if everywhere else pick(worth, channels, at)
        return Targets(pick(levels.real, channels, at), of_worth)
    picked = picking(channels, levels.device)
    parts = [levels[:, picked, row::2, column::2] for row, column in at]
    if levels.requires_grad:
        return torch.cat([part.flatten(2) for part in parts], 2)
    symbols = levels.new_empty(*parts[0].shape[:2], sum(part[0, 0].numel() for part in parts))
    for part, here in zip(parts, _by_offset(symbols, levels.shape[-2:], at), strict=True):
        here.copy_(part)  # and not by cat, which would have each part twice
    return symbols


def put(symbols: Tensor, known: Tensor, channels: tuple[int, ...], at: Sequence[Offset]) -> None:
    """Writes symbols `[B, c, N]` where `pick` takes them from."""
    picked = picking(channels, known.device)
    for (row, column), here in zip(at, _by_offset(symbols, known.shape[-2:], at), strict=True):
        known[:, picked, row::2, column::2] = here


def _by_offset(symbols: Tensor, size: Size, at: Sequence[Offset]) -> Iterator[Tensor]:
    """Views `[B, c, h, w]` of symbols, those at each offset in a tensor of `size`."""
    first = 0
    for height, width in (positions(offset, size) for offset in at):
        yield symbols[:, :, first : first + height * width].unflatten(2, (height, width))
        first += height * width
