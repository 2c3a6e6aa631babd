"""Integers without bounds under narrow tables: escapes, plain low bits, and the strings that hold them."""

import pytest
import torch
from conftest import generator
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import coder, unbounded
from codec.entropy.tables import PRECISION, cdf_from_pmf

pytestmark = pytest.mark.usefixtures("one_thread")
REACH = 6
SHIFTS = torch.tensor([0, 0, 1, 4])


def tables() -> Tensor:
    """A table for every one of SHIFTS, narrow to wide, each with an escape."""
    widths = torch.tensor([[0.4], [2.0], [3.0], [3.0]])
    inside = torch.exp(-torch.arange(-REACH, REACH + 1).abs() / widths)
    return cdf_from_pmf(torch.cat([inside, torch.full((4, 1), 1e-3)], 1))


def drawn(count: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Integers, and the tables they are coded by, at random."""
    index = torch.randint(0, 4, (count,), generator=generator(1))
    integers = torch.randn(count, generator=generator(2)) * scale * 2.0 ** SHIFTS[index]
    return integers.round().long(), index


def test_ten_thousand_integers_come_back_many_of_which_no_table_has() -> None:
    integers, index = drawn(10_000)
    integers[::7] = (integers[::7] + 1) * 1000
    integers[:4] = torch.tensor([(1 << 30) - 1, 1 - (1 << 30), REACH + 1, -REACH - 1])
    assert int((integers.abs() > (REACH + 1) * 2 ** SHIFTS[index]).sum()) > 1000
    data = unbounded.encode(integers, index, tables(), SHIFTS)
    assert torch.equal(unbounded.decode(data, index, tables(), SHIFTS).long(), integers)


@pytest.mark.parametrize("value", [*range(-REACH * 16 - 40, REACH * 16 + 40, 7), -(1 << 20), 1 << 20])
def test_every_row_codes_any_integer_alone(value: int) -> None:
    for row in range(len(SHIFTS)):
        integers, index = torch.tensor([value]), torch.tensor([row])
        data = unbounded.encode(integers, index, tables(), SHIFTS)
        assert unbounded.decode(data, index, tables(), SHIFTS).tolist() == [value]


def test_without_shifts_and_escapes_a_string_is_what_the_coder_writes() -> None:
    index = torch.arange(2).repeat(50)
    integers = torch.randint(-REACH, REACH + 1, (100,), generator=generator())
    assert unbounded.encode(integers, index, tables(), SHIFTS) == coder.encode(integers + REACH, index, tables())


def test_plain_bits_and_escapes_go_on_over_chunks() -> None:
    integers, index = drawn(5 * coder.CHUNK // 2)
    integers[::1013] *= 1000
    data = unbounded.encode(integers, index, tables(), SHIFTS)
    assert torch.equal(unbounded.decode(data, index, tables(), SHIFTS).long(), integers)


def test_damaged_strings_give_integers_or_are_refused() -> None:
    integers, index = drawn(2000)
    data, random = unbounded.encode(integers, index, tables(), SHIFTS), generator(9)
    for n in range(300):
        damaged = bytearray(data if n % 2 else bytes(len(data)))
        places = torch.randint(len(data), (1 + n % 40,), generator=random).tolist()
        for place in places:
            damaged[place] ^= 1 + n % 255
        try:
            found = unbounded.decode(bytes(damaged[: len(data) - 7 * (n % 50)]), index, tables(), SHIFTS)
        except BitstreamError:
            continue
        assert found.shape == integers.shape


@pytest.mark.parametrize("count", [1, 1000, 3 * coder.CHUNK // 2])
def test_strings_are_those_of_both_other_coders(count: int) -> None:
    index = torch.randint(0, 2, (count,), generator=generator(3))  # rows without plain bits
    integers = (torch.randn(count, generator=generator(4)) * 2).round().long().clamp(-REACH, REACH)
    found = unbounded.encode(integers, index, tables(), SHIFTS)
    for which in (coder.NUMPY, coder.default_coder()):
        assert coder.encode(integers + REACH, index, tables(), which) == found


def test_rows_that_no_table_has_are_refused() -> None:
    nothing = torch.zeros(2, dtype=torch.long)
    with pytest.raises(IndexError, match="rows 0 to 4 of 4 tables"):
        unbounded.encode(nothing, torch.tensor([0, 4]), tables(), SHIFTS)
    with pytest.raises(IndexError, match="rows -1 to 0 of 4 tables"):
        unbounded.decode(b"", torch.tensor([0, -1]), tables(), SHIFTS)


def test_the_bits_told_are_those_of_the_string() -> None:
    integers, index = drawn(20_000, scale=4.0)
    costs = PRECISION - torch.log2(tables().diff().float())
    told = unbounded.file_bits(integers, index, costs, SHIFTS).double().sum()
    assert 8 * len(unbounded.encode(integers, index, tables(), SHIFTS)) == pytest.approx(float(told), abs=32)


def test_nothing_is_coded_as_nothing() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    data = unbounded.encode(nothing, nothing, tables(), SHIFTS)
    assert unbounded.decode(data, nothing, tables(), SHIFTS).tolist() == []


def test_an_integer_that_no_latent_has_is_refused() -> None:
    with pytest.raises(ValueError, match="an integer of size 1073741824: allowed are those below 2\\^30"):
        unbounded.encode(torch.tensor([1 << 30]), torch.tensor([0]), tables(), SHIFTS)


def test_a_string_without_its_plain_bits_is_refused() -> None:
    row = torch.tensor([3])
    with pytest.raises(BitstreamError, match="ends inside its plain bits"):
        unbounded.decode(b"", row, tables(), SHIFTS)


def test_an_escape_whose_code_has_no_end_is_refused() -> None:
    table = cdf_from_pmf(torch.tensor([[0.0, 0.0, 0.0, 1.0]]))  # nearly sure that an escape comes
    nothing = torch.zeros(1, dtype=torch.int64)
    coded = coder.encode(torch.tensor([3]), nothing, table)
    with pytest.raises(BitstreamError, match="ends inside an escaped integer"):
        unbounded.decode(coded + bytes(8), nothing, table, nothing)
