"""An image in tiles, which networks see one after the other."""

import math
from collections.abc import Iterator

from torch import Tensor


def tiles(image: Tensor, largest: int) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Views of `image` `[B, C, H, W]`, row by row, of nearly equal sizes, none over `largest` pixels a side.

    With each, the row and the column of the image that it begins at.
    """
    top = 0
    for row in _parts(image, largest, 2):
        left = 0
        for tile in _parts(row, largest, 3):
            yield tile, (top, left)
            left += tile.shape[3]
        top += row.shape[2]


def _parts(image: Tensor, largest: int, dim: int) -> tuple[Tensor, ...]:
    return image.tensor_split(math.ceil(image.shape[dim] / largest), dim)
