"""Windows: parts of a picture that transforms see one after the other, with all around them that they depend on.

How far that reaches is asked of the transforms themselves, so that nothing comes out otherwise than of the whole
picture, but for the last bits of sums that a convolution may add in another order.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from codec.errors import ArgumentError

Size = tuple[int, int]

# A function that depends on more than this, in units around one, is taken to depend on the whole picture.
_FURTHEST = 64


class Window(NamedTuple):
    """Rows `top` to `bottom` and columns `left` to `right` of a picture, without the last."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> Size:
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, unit: int, size: Size) -> "Window":
        """With `margin` more on each side, to multiples of `unit`, as far as a picture of `size` reaches."""
        top, left = (max(0, first - margin) // unit * unit for first in (self.top, self.left))
        ends = zip((self.bottom, self.right), size, strict=True)
        bottom, right = (min(-(-(end + margin) // unit) * unit, side) for end, side in ends)
        return Window(top, bottom, left, right)

    def within(self, outer: "Window") -> "Window":
        """The same as a part of the picture that `outer` is."""
        return Window(
            self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left
        )

    def clipped(self, other: "Window") -> "Window":
        """What lies in both."""
        return Window(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )

    def of(self, tensor: Tensor, size: Size) -> Tensor:
        """A view of this part of `tensor` `[…, h, w]`, which lies over a whole picture of `size`."""
        height, width = tensor.shape[-2:]
        rows = slice(self.top * height // size[0], self.bottom * height // size[0])
        columns = slice(self.left * width // size[1], self.right * width // size[1])
        return tensor[..., rows, columns]


# A padded image, of which windows `[1, C, h, w]` in [0, 1] are made where they are asked for.
Picture = Callable[[Window], Tensor]


class Crop(NamedTuple):
    """A part of an image as users name it: its left upper pixel, width and height."""

    x: int
    y: int
    width: int
    height: int

    def window(self, height: int, width: int) -> Window:
        """Where it lies in an image of so many pixels. Raises ArgumentError if not all of it is inside."""
        window = Window(self.y, self.y + self.height, self.x, self.x + self.width)
        inside = min(self.x, self.y) >= 0 and window.bottom <= height and window.right <= width
        if min(self.width, self.height) < 1 or not inside:
            pixels = f"the image's {width}×{height} pixels: X + W and Y + H are at most these"
            raise ArgumentError("crop", ",".join(map(str, self)), f"allowed are parts X,Y,W,H of {pixels}")
        return window


def whole(size: Size) -> Window:
    """All of a picture of `size`."""
    return Window(0, size[0], 0, size[1])


def tiles(part: Window, unit: int, largest: int) -> list[Window]:
    """`part` in windows, row by row, of nearly equal sizes up to `largest`, whose edges inside are on `unit`s."""
    rows = _cuts(part.top, part.bottom, unit, largest)
    columns = _cuts(part.left, part.right, unit, largest)
    return [Window(*row, *column) for row in rows for column in columns]


def reach(
    function: Callable[[list[Tensor]], Sequence[Tensor]],
    shapes: Callable[[Size], Sequence[tuple[int, int, int]]],
    unit: int,
    device: torch.device,
) -> int | None:
    """How many pixels around a square of `unit` pixels, on a grid of those, change what comes of it; None: all.

    `function` takes tensors of `shapes(size)`, (C, h, w) each, with B = 1, for a picture of `size`. What nan in the
    middle makes nan depends on it, whatever the weights are.
    """
    return max(
        (_reach_along(function, shapes, unit, device, axis) for axis in (0, 1)), key=lambda r: (r is None, r)
    )


def _reach_along(
    function: Callable[[list[Tensor]], Sequence[Tensor]],
    shapes: Callable[[Size], Sequence[tuple[int, int, int]]],
    unit: int,
    device: torch.device,
    axis: int,
) -> int | None:
    units = 9
    while True:
        size = (units * unit, unit) if axis == 0 else (unit, units * unit)
        inputs = [torch.zeros(1, *shape, device=device) for shape in shapes(size)]
        for tensor in inputs:
            tensor.unflatten(axis - 2, (units, -1)).select(axis - 3, units // 2).fill_(torch.nan)
        changed = torch.zeros(units, dtype=torch.bool, device=device)
        for tensor in function(inputs):
            by_unit = tensor.isnan().unflatten(axis - 2, (units, -1)).movedim(axis - 3, 0)
            changed |= by_unit.flatten(1).any(1)
        if not changed[0] and not changed[-1]:
            touched = changed.nonzero()[:, 0]
            return unit * int((touched - units // 2).abs().max())
        if units > 2 * _FURTHEST:
            return None
        units = 2 * units + 1


def _cuts(first: int, end: int, unit: int, largest: int) -> list[tuple[int, int]]:
    count = -(-(end - first) // largest)
    edges = [first, *(round((first + (end - first) * n / count) / unit) * unit for n in range(1, count)), end]
    return list(pairwise(edges))
