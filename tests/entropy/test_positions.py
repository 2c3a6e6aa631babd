"""Where the symbols of a pass lie: copied, or where they are, they are the same ones in the same order."""

import pytest
import torch
from torch import Tensor

from codec.entropy.laplace import CodedLaplace, LaplaceTables, packed
from codec.entropy.priors.blocks import Blocks
from codec.entropy.priors.positions import InPlace, pick, put

PASSES = [((0, 1, 2), ((0, 0), (1, 1))), ((1,), ((0, 1),)), ((2, 0), ((1, 0), (0, 1), (1, 1))), ((0, 2), ((0, 0),))]


def levels(height: int = 7, width: int = 5) -> Tensor:
    return torch.arange(3.0 * height * width).view(1, 3, height, width)


@pytest.mark.parametrize(("channels", "at"), PASSES)
def test_any_part_of_them_is_that_of_a_copy(channels: tuple[int, ...], at: tuple) -> None:
    copied, in_place = pick(levels(), channels, at), InPlace(levels(), channels, at)
    assert in_place.shape == copied.shape
    assert in_place.numel() == copied.numel() == len(in_place.flatten())
    for start in range(copied.shape[2]):
        for stop in range(start + 1, copied.shape[2] + 3):
            assert torch.equal(in_place[:, :, start:stop], copied[:, :, start:stop])
    for start in range(0, copied.numel(), 3):
        for stop in range(start + 1, copied.numel() + 1, 5):
            assert torch.equal(in_place.flatten()[start:stop], copied.flatten()[start:stop])


@pytest.mark.parametrize("size", [(7, 5), (2, 2), (6, 2), (2, 6)])
@pytest.mark.parametrize(("channels", "at"), PASSES)
def test_a_part_is_written_where_it_is_read_and_nowhere_else(
    channels: tuple[int, ...], at: tuple, size: tuple[int, int]
) -> None:
    count = pick(levels(*size), channels, at).shape[2]
    for start, stop in ((0, count), (1, max(count - 1, 1)), (count // 2, count // 2 + 1)):
        tensor, expected, symbols = levels(*size), levels(*size), pick(levels(*size), channels, at)
        symbols[:, :, start:stop] *= -1
        put(symbols, expected, channels, at)
        InPlace(tensor, channels, at)[:, :, start:stop] = symbols[:, :, start:stop]
        assert torch.equal(tensor, expected)


def test_levels_that_two_bytes_do_not_hold_are_kept_whole() -> None:
    mean = torch.zeros(1, 2, 4)
    walk = Blocks(LaplaceTables(), torch.zeros(1, 3, 4, 4, dtype=torch.int16), [], None, mean)
    coded = CodedLaplace(walk.tables, packed(mean, mean))
    for value, offset in ((-32768, (0, 0)), (32767, (0, 1)), (40000, (1, 0)), (-7, (1, 1))):
        symbols = torch.full((1, 2, 4), value, dtype=torch.int32)
        walk.learn(coded.decode(coded.encode(symbols)), (0, 2), [offset])
    assert walk.known[0, 2, :2, :2].tolist() == [[-32768, 32767], [40000, -7]]
    assert not walk.known[0, 1].any()
