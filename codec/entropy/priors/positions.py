"""Where the symbols of a pass lie in their tensor: some channels, at every other position from some offsets on."""

import math
from collections.abc import Callable, Iterator, Sequence
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


def pick(levels: Tensor, channels: tuple[int, ...], at: Sequence[Offset]) -> Tensor:
    """The symbols `[B, c, N]` of `levels` `[B, C, H, W]` in coding order."""
    picked = picking(channels, levels.device)
    return torch.cat([levels[:, picked, row::2, column::2].flatten(2) for row, column in at], 2)


def told(
    levels: Tensor | Targets | None,
    channels: tuple[int, ...],
    at: Sequence[Offset],
    symbols: Callable[[Tensor, tuple[int, ...], Sequence[Offset]], "Tensor | InPlace"],
) -> "Tensor | InPlace | Targets | None":
    """What `code` is told of a pass: the symbols, as `pick` or InPlace has them, and of Targets their worth."""
    if not isinstance(levels, Targets):
        return None if levels is None else symbols(levels, channels, at)
    worth = levels.worth.expand(-1, levels.real.shape[1], -1, -1)
    if worth.shape[2:] == (1, 1):
        of_worth = worth[:, picking(channels, worth.device)].flatten(2)
    else:
        of_worth = pick(worth, channels, at)
    return Targets(symbols(levels.real, channels, at), of_worth)


class InPlace:
    """The symbols `[B, c, N]` of a pass in coding order, as a Tensor has them, but where they lie in their own.

    No more of them is copied than is asked for: `[:, :, part]`, which can be written, too, or, of one image,
    `flatten()[part]`.
    """

    def __init__(self, levels: Tensor, channels: tuple[int, ...], at: Sequence[Offset]) -> None:
        self.levels, self.channels, self.at = levels, channels, at
        self._shapes = [positions(offset, levels.shape[-2:]) for offset in at]
        self.shape = torch.Size([len(levels), len(channels), sum(map(math.prod, self._shapes))])

    def numel(self) -> int:
        return self.shape.numel()

    def flatten(self) -> "InCodingOrder":
        return InCodingOrder(self)

    def __getitem__(self, index: tuple[slice, slice, slice]) -> Tensor:
        return self.of(self.channels, index[2])

    def __setitem__(self, index: tuple[slice, slice, slice], symbols: Tensor) -> None:
        first = 0
        for rows, inside in self._rows(index[2]):
            there = self._at(self.channels, rows)
            known = there.clone().flatten(2)  # which might be a view of the levels themselves
            count = len(range(*inside.indices(known.shape[2])))
            known[:, :, inside] = symbols[:, :, first : first + count]
            self.levels[(slice(None), picking(self.channels, self.levels.device), *rows)] = known.view_as(there)
            first += count

    def of(self, channels: tuple[int, ...], part: slice) -> Tensor:
        """The symbols of some channels, `[B, c, n]`, a copy."""
        each = [self._at(channels, rows).flatten(2)[:, :, inside] for rows, inside in self._rows(part)]
        return torch.cat(each, 2)

    def _at(self, channels: tuple[int, ...], rows: tuple[slice, slice]) -> Tensor:
        return self.levels[(slice(None), picking(channels, self.levels.device), *rows)]

    def _rows(self, part: slice) -> Iterator[tuple[tuple[slice, slice], slice]]:
        """The whole rows in which a part of the positions lies, by offset, and where it is inside them."""
        start, stop, _ = part.indices(self.shape[2])
        for (row, column), (height, width) in zip(self.at, self._shapes, strict=True):
            first, last = max(start, 0), min(stop, height * width)
            if first < last:
                top, bottom = first // width, -(-last // width)
                rows = slice(row + 2 * top, row + 2 * bottom - 1, 2)
                yield (rows, slice(column, None, 2)), slice(first - top * width, last - top * width)
            start, stop = start - height * width, stop - height * width


class InCodingOrder:
    """The same of one image, `[c · N]`: channel by channel."""

    def __init__(self, symbols: InPlace) -> None:
        self.symbols = symbols

    def __len__(self) -> int:
        return self.symbols.numel()

    def __getitem__(self, part: slice) -> Tensor:
        (start, stop, _), count = part.indices(len(self)), self.symbols.shape[2]
        each = []
        while start < stop:
            channel, first = divmod(start, count)
            last = min(first + stop - start, count)
            each.append(self.symbols.of((self.symbols.channels[channel],), slice(first, last)).flatten())
            start += last - first
        return torch.cat(each)


def put(symbols: Tensor, known: Tensor, channels: tuple[int, ...], at: Sequence[Offset]) -> None:
    """Writes symbols `[B, c, N]` where `pick` takes them from."""
    picked, size = picking(channels, known.device), known.shape[-2:]
    first = 0
    for row, column in at:
        height, width = positions((row, column), size)
        here = symbols[:, :, first : first + height * width]
        known[:, picked, row::2, column::2] = here.unflatten(2, (height, width)).to(known.dtype)
        first += height * width
