"""Every prior: what is written is read, on any machine, at the bits that were told; and all of it learns."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import generator
from priors import CHANNELS, PRIORS, SIZES, latent, make

from codec.bitstream import BitstreamError
from codec.entropy import EntropyBottleneck
from codec.entropy.priors import blocks
from codec.entropy.priors.channel_context import ChannelContextPrior
from codec.entropy.priors.context import ContextPrior
from codec.entropy.priors.pass_network import KNOTS, companded
from codec.entropy.rdoq import Targets
from codec.networks.exact import UnusableWeightsError

pytestmark = pytest.mark.usefixtures("one_thread")
CONTEXT = [name for name in PRIORS if name != "factorized"]


@pytest.fixture(params=PRIORS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@torch.no_grad()
def test_what_is_read_is_what_was_written(name: str) -> None:
    bottleneck = make(name).eval()
    y = latent()
    y_hat, _ = bottleneck(y)
    for tensor, exact in zip(y_hat, y, strict=True):
        assert torch.equal(tensor, torch.floor(exact * 16 + 0.5) / 16)
    decoded = bottleneck.decompress(bottleneck.compress(y), SIZES)
    assert all(map(torch.equal, decoded, y_hat))


@torch.no_grad()
def test_levels_far_outside_every_table_come_back(name: str) -> None:
    bottleneck = make(name).eval()
    y = latent(spread=0.5)
    for tensor in y:
        tensor.view(-1)[::11] *= 1e4
    assert all(map(torch.equal, bottleneck.decompress(bottleneck.compress(y), SIZES), bottleneck(y)[0]))


@torch.no_grad()
def test_the_bits_told_are_those_of_the_file(name: str) -> None:
    bottleneck = make(name).eval()
    _, bits = bottleneck(latent())
    passes = len(bottleneck.prior.passes[0]) + len(bottleneck.prior.passes[1]) if name in CONTEXT else 2
    told = float(sum(bits.values()))
    assert 0 <= 8 * len(bottleneck.compress(latent())) - told <= 8 * 4 * (passes + 2)
    assert {"y", "y_1"} <= set(bits)
    assert ("z" in bits) == (name not in ("factorized", "channel_context"))


@torch.no_grad()
def test_each_image_of_a_batch_has_its_own_bits(name: str) -> None:
    bottleneck = make(name, variable_rate=True).eval()
    y = latent(batch=3)
    quality = torch.tensor([10.0, 50.0, 95.0])
    y_hat, bits = bottleneck(y, quality)
    for n in range(3):
        alone, own = bottleneck([tensor[n : n + 1] for tensor in y], quality[n : n + 1])
        assert all(torch.equal(tensor[n : n + 1], only) for tensor, only in zip(y_hat, alone, strict=True))
        for part, values in bits.items():
            assert float(values[n]) == pytest.approx(float(own[part]), rel=1e-5)


@torch.no_grad()
def test_a_higher_quality_is_nearer_and_costs_more(name: str) -> None:
    bottleneck = make(name, variable_rate=True).eval()
    y = latent()
    errors, costs = [], []
    for quality in (0, 33, 66, 100):
        at = torch.tensor([float(quality)])
        section = bottleneck.compress(y, at)
        decoded = bottleneck.decompress(section, SIZES)
        assert all(map(torch.equal, decoded, bottleneck(y, at)[0]))
        errors.append(float((decoded[1] - y[1]).abs().mean()))
        costs.append(len(section))
    assert all(first > second for first, second in pairwise(errors))
    assert costs[0] < costs[-1]


@torch.no_grad()
def test_a_gain_makes_a_channels_steps_larger_between_its_knots(name: str) -> None:
    bottleneck = make(name, variable_rate=True).eval()
    y, quality = latent(), torch.tensor([30.0])
    plain = bottleneck.steps(quality)
    bottleneck.gains[0][1, 0] = 2.0  # at quality 20, of the first channel
    steps = bottleneck.steps(quality)
    assert torch.equal(steps[1], plain[1])
    assert torch.equal(steps[0][:, 1:], plain[0][:, 1:])
    assert float(steps[0][0, 0]) == pytest.approx(2 * float(plain[0][0, 0]))
    decoded = bottleneck.decompress(bottleneck.compress(y, quality), SIZES)
    assert all(map(torch.equal, decoded, bottleneck(y, quality)[0]))
    for tensor, exact, step in zip(decoded, y, steps, strict=True):
        assert bool(((tensor - exact).abs() <= 0.501 * step).all())


def test_training_reaches_the_latent_and_every_weight(name: str) -> None:
    bottleneck = make(name, variable_rate=True).train()
    y = [tensor.requires_grad_() for tensor in latent(batch=2)]
    y_hat, bits = bottleneck(y, torch.tensor([30.0, 70.0]))
    assert [tensor.shape for tensor in y_hat] == [tensor.shape for tensor in y]
    (sum(bits.values()).sum() + sum(tensor.square().sum() for tensor in y_hat)).backward()
    for part, tensor in [*enumerate(y), *bottleneck.named_parameters()]:
        assert tensor.grad is not None, part
        assert bool(torch.isfinite(tensor.grad).all()), part
    rate = {f"networks.{n}" for n in range(2)}
    still = [n for n, p in bottleneck.prior.named_parameters() if not p.grad.any() and not rate & {n[:10]}]
    assert still == []


@pytest.mark.parametrize("noise", ["straight_through", "chosen"])
def test_a_latent_that_is_not_finite_is_trained_on_until_its_loss_tells(name: str, noise: str) -> None:
    bottleneck = make(name, noise=noise).train()
    y_hat, bits = bottleneck([torch.full_like(tensor, torch.nan) for tensor in latent()])
    assert all(bool(tensor.isnan().all()) for tensor in y_hat)
    assert bool(sum(bits.values()).isnan().all())


@torch.no_grad()
@pytest.mark.parametrize("name", ["hyperprior", "checkerboard"])
def test_side_information_that_is_not_finite_is_refused(name: str) -> None:
    bottleneck = make(name).eval()
    bottleneck.prior.hypers[0].analysis[0].weight.fill_(torch.nan)
    with pytest.raises(UnusableWeightsError, match="side information is not finite"):
        bottleneck.compress(latent())


def test_training_on_a_latent_makes_its_files_smaller(name: str) -> None:
    bottleneck = make(name, noise="straight_through")
    # Its variance differs from place to place, which only a prior that looks around can know.
    y = latent()
    for tensor in y:
        tensor[..., tensor.shape[-1] // 2 :] *= 0.05
    before = len(bottleneck.eval().compress(y))
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.01)
    bottleneck.train()
    for _ in range(40):
        optimizer.zero_grad()
        sum(bottleneck(y)[1].values()).sum().backward()
        optimizer.step()
    assert len(bottleneck.eval().compress(y)) < 0.93 * before


def test_a_section_too_short_for_its_size_is_refused_before_anything_is_decoded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bottleneck = make(name).eval()
    with torch.no_grad():
        section = bottleneck.compress(latent(spread=0.0))
    least = bottleneck.prior.least_bits(SIZES)
    assert 0 < least <= 8 * len(section)
    monkeypatch.setattr(type(bottleneck.prior), "visit", lambda *_: pytest.fail("memory is taken"))
    with pytest.raises(BitstreamError, match=r"a section of \d+ bytes is too short for its 17000000 symbols"):
        bottleneck.decompress(section, [(1000, 1000), (2000, 2000)])


@torch.no_grad()
@pytest.mark.parametrize("damage", ["cut", "longer", "empty"])
def test_a_damaged_section_is_refused_or_decodes_to_something_else(name: str, damage: str) -> None:
    bottleneck = make(name).eval()
    section = bottleneck.compress(latent())
    damaged = {"cut": section[: len(section) // 2], "longer": section + b"\1", "empty": b""}[damage]
    with pytest.raises(BitstreamError):
        bottleneck.decompress(damaged, SIZES)


@torch.no_grad()
def test_what_is_coded_depends_on_no_kernel(name: str) -> None:
    bottleneck = make(name, variable_rate=True).eval()
    quality = torch.tensor([42.0])
    plain = bottleneck.compress(latent(), quality)
    with torch.backends.mkldnn.flags(enabled=False):
        assert bottleneck.compress(latent(), quality) == plain
    torch.set_num_threads(2)
    assert bottleneck.compress(latent(), quality) == plain
    torch.set_num_threads(1)
    last = [tensor.to(memory_format=torch.channels_last) for tensor in latent()]
    assert bottleneck.to(memory_format=torch.channels_last).compress(last, quality) == plain
    with torch.autocast("cpu", torch.bfloat16):
        assert bottleneck.compress(latent(), quality) == plain


@pytest.mark.parametrize("name", CONTEXT)
def test_every_symbol_of_a_latent_is_coded_once(name: str) -> None:
    prior: ContextPrior = make(name).prior
    for channels, (height, width), passes in zip(CHANNELS, SIZES, prior.passes, strict=True):
        coded = torch.zeros(channels, height, width)
        for group, offsets in passes:
            for row, column in offsets:
                coded[list(group), row::2, column::2] += 1
        assert bool((coded == 1).all())


def test_between_two_knots_a_quality_is_interpolated() -> None:
    prior: ContextPrior = make("checkerboard").prior
    knots = prior.knots(torch.tensor([0.0, 20.0, 30.0, 45.0, 100.0]), 5)[..., 0, 0]
    assert knots.shape == (5, KNOTS)
    assert knots.sum(1).tolist() == [256] * 5
    assert knots[2].tolist() == [0, 128, 128, 0, 0, 0]
    assert torch.equal(prior.knots(None, 2), prior.knots(torch.tensor([50.0, 50.0]), 2))


@torch.no_grad()
def test_what_is_not_decoded_yet_has_no_influence() -> None:
    """The predictions of a pass are the same whatever the symbols of the passes behind it are."""
    for name in CONTEXT:
        prior: ContextPrior = make(name).prior.eval()
        z_of = latent()
        seen = {}
        for changed in range(2):
            levels = [torch.floor(tensor * 16 + 0.5) for tensor in z_of]
            predicted = []

            def code(part, distribution, coded, predicted=predicted, changed=changed):
                if part == "z":
                    return torch.zeros_like(coded)
                predicted.append((distribution.mean, distribution.log_scale))
                # In the second run all passes but the first have other symbols.
                other = torch.randint(1, 9, coded.shape, generator=generator())
                return coded if len(predicted) == 1 or not changed else coded + other

            with torch.enable_grad():  # as for coding, but for blocks, which make no difference
                prior.visit(levels, [(1, *size) for size in SIZES], code)
            seen[changed] = predicted
        for n in range(2):
            assert all(map(torch.equal, seen[0][n], seen[1][n]))
        for n in range(2, len(seen[0])):
            assert not all(map(torch.equal, seen[0][n], seen[1][n]))


@pytest.mark.parametrize("some", [1, 20, 1 << 15])
@pytest.mark.parametrize("sizes_of", [SIZES, [(4, 6), (8, 12)]])  # even ones: all offsets of a pass are one visit
@pytest.mark.parametrize("name", CONTEXT)
def test_blocks_of_rows_make_no_difference(
    name: str, sizes_of: list[tuple[int, int]], some: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the coder is told in each pass is what it is told where all is predicted at once, for the gradient."""
    monkeypatch.setattr(blocks, "_SOME", some)
    pyramid = [tensor[..., :height, :width] for tensor, (height, width) in zip(latent(), sizes_of, strict=True)]
    prior: ContextPrior = make(name).prior.eval()
    sizes = [(1, *size) for size in sizes_of]
    told = []
    for at_once in (True, False):
        passes = []

        def code(part, distribution, levels, passes=passes):
            passes.append(distribution.told()[:2])
            return torch.floor(levels.real[:, :, :]) if isinstance(levels, Targets) else levels

        targets = [Targets(tensor * 16, torch.ones(1, tensor.shape[1], 1, 1)) for tensor in pyramid]
        with torch.set_grad_enabled(at_once):
            levels = prior.visit(targets, sizes, code)
        assert all(torch.equal(a, torch.floor(b * 16)) for a, b in zip(levels, pyramid, strict=True))
        told.append(passes)
    assert len(told[0]) == len(told[1]) > 2
    for one, other in zip(*told, strict=True):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("name", CONTEXT)
def test_networks_without_features_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="features=0: allowed are the integers from 1"):
        PRIORS[name](CHANNELS, 8, features=0)


@pytest.mark.parametrize("coded", [[(0, 1)], [(0, 1), (2, 2)], [(0, 1, 2), (2,)], [(0, 1), (3,)]])
def test_groups_that_are_not_all_channels_once_are_refused(coded: list[tuple[int, ...]]) -> None:
    groups = [[((0, 1, 2, 3, 4), 2)], [(channels, 2) for channels in coded]]
    with pytest.raises(ValueError, match="each of the channels 0 to 2 belongs to one"):
        ChannelContextPrior(CHANNELS, 8, groups)


def test_a_tensor_without_groups_is_cut_into_slices() -> None:
    prior = ChannelContextPrior(CHANNELS, 8, [None, [((2, 0), 1), ((1,), 1)]], slices=2, phases=1)
    assert [[channels for channels, _ in passes] for passes in prior.passes] == [
        [(0, 1), (2, 3, 4)],
        [(2, 0), (1,)],
    ]


@torch.no_grad()
def test_a_linear_start_knows_how_rare_levels_are() -> None:
    """Where one level of a hundred is not 0, its distribution's scale is far larger than its mean magnitude."""
    bottleneck = EntropyBottleneck([12], bits=4, prior=PRIORS["channel_context"], bounded=False).eval()
    y = (torch.rand(12, 12, 16, 16, generator=generator()) < 0.01) / 16
    y = y * torch.randn(y.shape, generator=generator()).sign()
    bottleneck.fit_prior([y[:8]])
    _, bits = bottleneck([y[8:]])
    p = float((y[8:] != 0).float().mean())
    entropy = p - p * math.log2(p) - (1 - p) * math.log2(1 - p)
    assert float(bits["y"].sum()) < 1.2 * entropy * y[8:].numel()


@torch.no_grad()
def test_a_linear_start_of_a_variable_rate_knows_that_levels_are_rarer_at_low_qualities() -> None:
    """At quality 0 nearly all levels are 0, however large they are on average over all qualities."""
    bottleneck = EntropyBottleneck(
        [12], bits=4, prior=PRIORS["channel_context"], bounded=False, variable_rate=True, gains=False
    ).eval()
    y = 0.05 * torch.randn(24, 12, 16, 16, generator=generator())
    bottleneck.fit_prior([y[:16]], torch.linspace(0, 100, 16))
    _, bits = bottleneck([y[16:]], torch.zeros(8))
    assert float(bits["y"].sum()) < 0.05 * y[16:].numel()


@torch.no_grad()
def test_a_linear_start_makes_files_smaller_and_is_made_once() -> None:
    """On grids of odd sizes too, where what is coarser is wider than a pass."""
    bottleneck = EntropyBottleneck(CHANNELS, bits=4, prior=PRIORS["channel_context"], bounded=False).eval()
    assert bottleneck.prior.can_be_fitted
    one = latent()
    before = len(bottleneck.compress(one))
    bottleneck.fit_prior(latent(batch=6))
    section = bottleneck.compress(one)
    assert len(section) < 0.8 * before
    assert all(map(torch.equal, bottleneck.decompress(section, SIZES), bottleneck(one)[0]))
    assert not bottleneck.prior.can_be_fitted
    assert not make("hyperprior").prior.can_be_fitted


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_levels_are_companded_in_the_layout_that_they_lie_in(layout: torch.memory_format) -> None:
    levels = torch.randint(-300, 300, (2, 3, 5, 7), generator=generator()).float().contiguous(memory_format=layout)
    made = companded(levels)
    assert made.is_contiguous(memory_format=layout)
    expected = (32 * torch.log2(1 + levels.double().abs())).round().clamp(max=255).float()
    assert torch.equal(made, expected)
