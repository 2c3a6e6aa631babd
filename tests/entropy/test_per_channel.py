"""A distribution per channel: its tables are no wider than what it holds, whatever its alphabet."""

import pytest
import torch
from conftest import generator
from torch import Tensor

from codec.entropy.per_channel import ChannelTables, PerChannel

pytestmark = pytest.mark.usefixtures("one_thread")


def narrow(reach: int) -> ChannelTables:
    """Of an alphabet −reach … reach, what lies within some six levels, the second channel within three."""
    model = ChannelTables(2, reach)
    with torch.no_grad():
        model.matrices[0] += 0.4 * reach * torch.tensor([1.0, 2.0]).view(2, 1, 1)
        for bias in model.biases:
            bias.zero_()
    return model.eval()


def levels(count: int = 5000) -> Tensor:
    return torch.randn(1, 2, count, 1, generator=generator()).round()


@pytest.mark.parametrize("reach", [64, 512])
def test_a_table_is_as_wide_as_its_distribution_and_what_is_outside_comes_back(reach: int) -> None:
    model = narrow(reach)
    tables = model.current_tables()
    assert tables.shape[1] < reach
    assert bool((tables.diff() > 0).all())
    assert bool((tables[:, -1] == 65536).all())
    assert model.tables.shape == (2, 2 * reach + 3)
    y = levels()
    y[0, :, :3, 0] = torch.tensor([[reach, -reach, 100_000], [40, -41, 0]])
    distribution = PerChannel(model, (1, 5000, 1))
    data = distribution.encode(y)
    assert torch.equal(distribution.decode(data), y)
    assert 8 * len(data) == pytest.approx(float(distribution.file_bits(y).sum()), abs=64)


def test_a_narrow_table_costs_what_a_whole_one_would() -> None:
    model = narrow(64)
    y = levels()
    in_training = float(model.bits(y).sum())  # of the whole alphabet
    assert float(PerChannel(model, (1, 5000, 1)).file_bits(y).sum()) == pytest.approx(in_training, rel=0.01)


def test_a_distribution_that_fills_its_alphabet_keeps_all_of_it() -> None:
    model = ChannelTables(3, 8).eval()
    assert model.current_tables().shape == model.tables.shape


def test_narrow_tables_stay_what_they_were_in_a_state_dict() -> None:
    model, other = narrow(64), ChannelTables(2, 64)
    other.load_state_dict(model.state_dict())
    assert other.width == model.width < 64
    assert torch.equal(other.current_tables(), model.current_tables())


def test_of_several_levels_each_costs_what_it_does_alone() -> None:
    distribution = PerChannel(narrow(64), (1, 50, 1))
    several = torch.stack([levels(50), levels(50) + 3, levels(50) - 100])
    for bits in (distribution.bits, distribution.file_bits):
        torch.testing.assert_close(bits(several), torch.stack([bits(some) for some in several]))
