"""Levels around a predicted mean: what the tables hold, and that bits, files and training agree."""

import math

import pytest
import torch
from conftest import generator, noise
from torch import Tensor

from codec.entropy.laplace import FRACTIONS, LOWEST, PER_OCTAVE, SCALES, Laplace, LaplaceTables, _Interpolated
from codec.entropy.rdoq import cheaper

pytestmark = pytest.mark.usefixtures("one_thread")


def predicted(count: int, low: float = LOWEST, high: float = 9.0) -> tuple[Tensor, Tensor]:
    """Means and scales as exact networks give them, in eighths and sixteenths, `[1, 2, count]`."""
    mean = torch.floor(torch.randn(1, 2, count, generator=generator(1)) * 40) / 8
    log_scale = torch.floor((low + (high - low) * torch.rand(1, 2, count, generator=generator(2))) * 16) / 16
    return mean, log_scale


def sampled(mean: Tensor, log_scale: Tensor) -> Tensor:
    """Levels that have these distributions."""
    uniform = torch.rand(mean.shape, generator=generator(3)) - 0.5
    laplace = -uniform.sign() * torch.log1p(-2 * uniform.abs())
    return torch.floor(mean + torch.exp2(log_scale) * laplace + 0.5)


def test_every_table_sums_to_one() -> None:
    pmf = LaplaceTables().pmf()
    assert pmf.shape == (SCALES * FRACTIONS, 50)
    assert float(pmf.min()) >= 0
    torch.testing.assert_close(pmf.sum(1), torch.ones(len(pmf)), atol=1e-5, rtol=0)


def test_a_tables_middle_follows_the_means_fraction() -> None:
    """Row s·8 + f is for a mean (f − 4) / 8 of a level away from the level in the middle."""
    model = LaplaceTables()
    for scale in (0, 12, 24):
        rows = model.pmf()[scale * FRACTIONS : (scale + 1) * FRACTIONS, :-1]
        offsets = torch.arange(rows.shape[1]) - (rows.shape[1] - 1) // 2
        means = (rows * offsets).sum(1) / rows.sum(1)
        assert bool((means.diff() > 0).all())
        assert abs(float(means[FRACTIONS // 2])) < 1e-5


@pytest.mark.parametrize("largest", [0.0, 1e5])
def test_levels_come_back_however_far_they_are(largest: float) -> None:
    mean, log_scale = predicted(5000)
    levels = sampled(mean, log_scale)
    levels[..., ::50] += largest
    distribution = Laplace(LaplaceTables(), mean, log_scale)
    assert torch.equal(distribution.decode(distribution.encode(levels)), levels)


@pytest.mark.parametrize("largest", [0.0, 3e4])
@pytest.mark.parametrize("worth", [torch.tensor(0.5), torch.tensor([[[3.0], [40.0]]]), None])
def test_the_cheaper_of_two_levels_is_that_of_their_bits(largest: float, worth: Tensor | None) -> None:
    mean, log_scale = predicted(5000)
    targets = sampled(mean, log_scale) + 0.5 * torch.randn(mean.shape, generator=generator(5))
    targets[..., ::50] += largest
    targets[..., ::9] = targets[..., ::9].round()
    worth = 10 * torch.rand(mean.shape, generator=generator(6)) if worth is None else worth.expand(mean.shape)
    distribution = Laplace(LaplaceTables(), mean, log_scale)
    found = distribution.cheaper(targets, worth)
    assert torch.equal(found, cheaper(targets, worth, distribution.file_bits))
    assert 0 < int((found != targets.round()).sum()) < found.numel() / 2


def test_the_files_bits_are_its_size() -> None:
    mean, log_scale = predicted(20_000)
    levels = sampled(mean, log_scale)
    distribution = Laplace(LaplaceTables(), mean, log_scale)
    assert 8 * len(distribution.encode(levels)) == pytest.approx(
        float(distribution.file_bits(levels).sum()), abs=64
    )


def test_what_training_sees_is_within_a_percent_of_the_file() -> None:
    mean, log_scale = predicted(20_000, low=-3.0)
    levels = sampled(mean, log_scale)
    distribution = Laplace(LaplaceTables(), mean, log_scale)
    assert float(distribution.bits(levels).sum()) == pytest.approx(
        float(distribution.file_bits(levels).sum()), rel=0.01
    )


def test_levels_of_the_told_scale_cost_their_entropy() -> None:
    """Of a Laplace distribution of mean magnitude b, log2(2·e·b) bits a level where b is large."""
    mean, log_scale = torch.zeros(1, 2, 50_000), torch.full((1, 2, 50_000), 5.0)
    model = LaplaceTables()
    with torch.no_grad():
        model.shape[1:].zero_()  # a single Laplace distribution
    bits = float(Laplace(model, mean, log_scale).file_bits(sampled(mean, log_scale)).sum()) / mean.numel()
    assert bits == pytest.approx(5 + 1 + 1.4427, rel=0.005)


def test_a_wrong_scale_costs_more_and_its_gradient_leads_to_the_right_one() -> None:
    levels = sampled(torch.zeros(1, 2, 5000), torch.full((1, 2, 5000), 1.0))
    for told in (-1.0, 3.0):
        log_scale = torch.full((1, 2, 5000), told, requires_grad=True)
        model = LaplaceTables()
        bits = Laplace(model, torch.zeros(1, 2, 5000), log_scale).bits(levels).sum()
        right = Laplace(model, torch.zeros(1, 2, 5000), torch.full((1, 2, 5000), 1.0)).bits(levels).sum()
        assert float(bits) > float(right)
        bits.backward()
        assert float(log_scale.grad.sum()) * (told - 1.0) > 0
        assert float(model.shape.grad.abs().sum()) > 0


def test_scales_out_of_range_count_as_the_nearest() -> None:
    mean = torch.zeros(1, 1, 3)
    levels = torch.tensor([[[0.0, 1.0, -3.0]]])
    model = LaplaceTables()
    highest = LOWEST + (SCALES - 1) / PER_OCTAVE
    for told, nearest in ((-40.0, LOWEST), (40.0, highest)):
        far, near = (Laplace(model, mean, torch.full_like(mean, at)) for at in (told, nearest))
        assert far.encode(levels) == near.encode(levels)
        assert float(far.bits(levels).sum()) == pytest.approx(float(near.bits(levels).sum()))


def test_compiled_bits_are_the_same() -> None:
    mean, log_scale = predicted(2000, low=-3.0)
    levels = sampled(mean, log_scale)
    model = LaplaceTables()
    bits = model.bits(levels, mean, log_scale)
    model.compile(fullgraph=True, dynamic=True, backend="eager")  # as for training, but for the compiler
    torch.testing.assert_close(model.bits(levels, mean, log_scale), bits)
    few = (tensor[..., :7] for tensor in (levels, mean, log_scale))
    torch.testing.assert_close(model.bits(*few), bits[..., :7])


def test_the_gradient_between_knots_is_that_of_the_lines_between_them() -> None:
    values = noise(3, 9, seed=7).double().requires_grad_()
    position = (8 * torch.rand(2, 5, generator=generator(8))).double().requires_grad_()
    assert torch.autograd.gradcheck(_Interpolated.apply, (values, position))
    at_knots = _Interpolated.apply(values, torch.arange(9.0).double())
    assert torch.allclose(at_knots, values)
    assert bool(_Interpolated.apply(values, torch.tensor([1.0, torch.nan]).double())[:, 1].isnan().all())


def test_what_is_kept_of_tables_follows_weights_that_were_changed_in_any_way() -> None:
    model, (mean, log_scale) = LaplaceTables().eval(), predicted(500)
    levels = sampled(mean, log_scale)
    before = model.costs().clone()
    assert model.costs() is model.costs()
    with torch.no_grad():
        model.shape.add_(0.2)
    assert not torch.equal(model.costs(), before)
    changed, tables = model.costs().clone(), model.current_tables().clone()
    model.shape.data.add_(0.2)  # which autograd does not count
    model.refresh()
    assert not torch.equal(model.costs(), changed)
    assert not torch.equal(model.current_tables(), tables)
    coded = Laplace(model, mean, log_scale).encode(levels)
    assert 8 * len(coded) == pytest.approx(float(Laplace(model, mean, log_scale).file_bits(levels).sum()), abs=64)
    model.load_state_dict(LaplaceTables().state_dict())
    assert torch.equal(model.costs(), before)


def test_bits_are_those_of_the_distributions_mass() -> None:
    mean, log_scale = predicted(3000, high=4.0)
    levels = sampled(mean, log_scale)
    model = LaplaceTables()
    share, narrow, wide = (value.double() for value in model._shape_at(log_scale))

    def above(x: Tensor) -> Tensor:
        """The mass beyond `x` to the right of the mean."""
        tails = (0.5 * torch.exp(-x.abs() / 2**width) for width in (narrow, wide))
        narrow_tail, wide_tail = (torch.where(x < 0, 1 - tail, tail) for tail in tails)
        return share * narrow_tail + (1 - share) * wide_tail

    distance = (levels.double() - mean).abs()
    exact = -torch.log2(above(distance - 0.5) - above(distance + 0.5))
    likely = exact < 12
    assert float(likely.double().mean()) > 0.9
    torch.testing.assert_close(
        model.bits(levels, mean, log_scale)[likely], exact[likely].float(), atol=1e-3, rtol=0
    )


def test_far_away_bits_grow_with_the_logarithm_of_the_distance() -> None:
    model = LaplaceTables()
    with torch.no_grad():
        model.shape[1:].zero_()  # a single Laplace distribution, of mean magnitude 1
    distance = torch.tensor([5.0, 20.0, 100.0, 1e4, 1e6]).requires_grad_()
    mean, log_scale = torch.zeros(5), torch.zeros(5)
    bits = model.bits(distance, mean, log_scale)
    far = distance.detach().double() - 0.5
    plain = far / math.log(2) - math.log2(0.5 * (1 - math.exp(-1)))
    expected = torch.where(plain < 16, plain, 16 + 2 * torch.log2(plain.clamp(min=16) - 15))
    torch.testing.assert_close(bits.double(), expected, atol=1e-4, rtol=1e-5)
    bits.sum().backward()
    slope = torch.where(plain < 16, 1.0, 2 / (plain - 15) / math.log(2)) / math.log(2)
    torch.testing.assert_close(distance.grad.double(), slope, rtol=1e-3, atol=0)


def test_the_gradient_is_that_of_the_bits_also_where_a_mean_lies_on_the_end_of_a_level() -> None:
    model = LaplaceTables().double()
    levels = torch.tensor([2.0, -3.0, 0.5, 4.0, 60.0]).double()
    mean = torch.tensor([1.5, -2.5, 0.4, 1.0, 0.0]).double()
    log_scale = torch.tensor([0.3, 1.1, -1.7, 2.2, 1.0]).double()
    inputs = tuple(tensor.requires_grad_() for tensor in (levels, mean, log_scale))
    assert torch.autograd.gradcheck(model, inputs)


def test_of_several_levels_each_costs_what_it_does_alone() -> None:
    mean, log_scale = predicted(500)
    levels = torch.stack([sampled(mean, log_scale), torch.floor(mean), torch.ceil(mean) + 50])
    distribution = Laplace(LaplaceTables(), mean, log_scale)
    for bits in (distribution.bits, distribution.file_bits):
        torch.testing.assert_close(bits(levels), torch.stack([bits(some) for some in levels]))
