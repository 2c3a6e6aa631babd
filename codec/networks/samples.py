"""The samples of an image as whole numbers, their checksum, and tiles, which networks see one after the other."""

import math
import zlib
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor


def to_integers(x: Tensor) -> Tensor:
    """[0, 1] → whole numbers 0…255 as floats, of the same shape."""
    return (x.float() * 255).round()


def checksum(image: Tensor) -> bytes:
    """The CRC-32 of the pixels of `image`, whole numbers 0…255, big-endian."""
    return zlib.crc32(image.to("cpu", torch.uint8).contiguous().numpy().tobytes()).to_bytes(4, "big")


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


def tiles_together(image: Tensor, largest: int, count: int) -> Iterator[list[tuple[Tensor, tuple[int, int]]]]:
    """The tiles of `tiles`, `count` at a time."""
    every = tiles(image, largest)
    while together := list(islice(every, count)):
        yield together


def _parts(image: Tensor, largest: int, dim: int) -> tuple[Tensor, ...]:
    return image.tensor_split(math.ceil(image.shape[dim] / largest), dim)
