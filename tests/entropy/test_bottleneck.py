"""From latents to bytes: the distributions of channels, and the entropy bottleneck's levels, files and tables."""

import copy
import math
import pickle

import pytest
import torch
from bottlenecks import make_bottleneck, model_of, sample_levels
from conftest import generator
from torch import Tensor, nn

from codec.bitstream import BitstreamError, pack_strings
from codec.entropy import EntropyBottleneck, FactorizedPrior, coder
from codec.entropy.per_channel import ChannelTables
from codec.entropy.tables import cdf_from_pmf
from codec.networks.exact import ExactConv2d

pytestmark = pytest.mark.usefixtures("one_thread")
ALL_BITS = range(1, 9)


def change_prior(bottleneck: EntropyBottleneck, amount: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in bottleneck.prior.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator(1)))


def total(bits: dict[str, Tensor]) -> float:
    return float(sum(bits.values()))


def written(bottleneck: EntropyBottleneck, levels: Tensor, tables: Tensor) -> bytes:
    """The section of `levels` `[1, C, H, W]`, none outside the alphabet, coded under `tables`, a row a channel."""
    reach = model_of(bottleneck).reach
    index = torch.arange(levels.shape[1]).repeat_interleave(levels[0, 0].numel())
    return pack_strings([coder.encode(levels.flatten() + reach, index, tables)])


# ---- the distributions


@pytest.mark.parametrize("filters", [[1], [3], [3, 3, 3]])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_priors_probabilities_sum_to_one(bits, filters):
    torch.manual_seed(bits)
    prior = ChannelTables(5, 2**bits // 2, filters)
    for scale in (0.0, 0.5, 0.5):
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
            pmf = prior.pmf()
        assert pmf.shape == (5, 2**bits + 2)  # the last is what is escaped
        assert int((pmf < 0).sum()) == 0
        torch.testing.assert_close(pmf.sum(-1), torch.ones(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [-40.0, -25.0, 25.0, 40.0])
def test_a_prior_far_out_in_its_tail_still_sums_to_one(shift):
    """A geometric latent is fitted best by a tail, so that training pushes the bias out without end."""
    prior = model_of(make_bottleneck(1))
    with torch.no_grad():
        prior.biases[-1].fill_(shift)
        assert float(prior.pmf().sum()) == pytest.approx(1, abs=1e-3)


def test_a_prior_whose_mass_has_left_the_range_has_finite_bits_and_gradients() -> None:
    """As where a latent is pushed against the end of its range, and its prior beyond."""
    prior = ChannelTables(1, 8, filters=[3])
    for shift in (0.0, -40.0, -80.0, -200.0):
        prior.zero_grad()
        with torch.no_grad():
            prior.biases[-1].fill_(shift)
        bits = prior.bits(torch.full((1, 1, 4, 4), 8.0) + 0.3)
        bits.sum().backward()
        assert bool(torch.isfinite(bits).all())
        assert all(bool(torch.isfinite(p.grad).all()) for p in prior.parameters())


def test_a_priors_bits_are_those_of_its_probabilities_per_channel_and_image():
    prior = model_of(make_bottleneck(3, bits=3))
    levels = torch.randint(-4, 5, (4, 3, 5, 2), generator=generator())
    with torch.no_grad():
        by_hand = torch.zeros(4)
        pmf = prior.pmf()
        for image in range(4):
            for channel in range(3):
                by_hand[image] -= pmf[channel, levels[image, channel] + 4].log2().sum()
        of_images = prior.bits(levels.float()).flatten(1).sum(1)
        torch.testing.assert_close(of_images, by_hand, rtol=1e-3, atol=0)


@pytest.mark.parametrize("filters", [[], [3, 0], [-1]])
def test_a_prior_without_widths_is_refused(filters):
    with pytest.raises(ValueError, match="filters="):
        FactorizedPrior([2], 8, filters=filters)


# ---- the bottleneck: levels


@pytest.mark.parametrize("bits", ALL_BITS)
def test_levels_are_the_clamped_value_over_the_step_plus_a_half_rounded_down(bits):
    scale = 2**bits
    step = 1 / scale
    halves = [(n + 0.5) * step for n in range(-scale // 2, scale // 2)]
    below = [math.nextafter(half, -1) for half in halves]
    values = [-0.5, 0.5, -0.8, 0.8, -0.5 - 1e-6, 0.5 + 1e-6, -math.inf, math.inf, -0.2, 0.2, *halves, *below]
    y = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    bottleneck = make_bottleneck(1, bits).eval()
    wanted = [math.floor(min(max(v, -0.5), 0.5) * scale + 0.5) for v in y.flatten().tolist()]
    (y_hat,), _ = bottleneck([y])
    assert (y_hat * scale).flatten().tolist() == wanted
    assert wanted[:4] == [-scale // 2, scale // 2, -scale // 2, scale // 2]
    assert wanted[10 : 10 + scale] == list(range(1 - scale // 2, 1 + scale // 2))  # halves go up


def test_what_is_not_bounded_is_not_clamped():
    y = torch.tensor([-3.0, -0.6, 0.4, 700.0]).reshape(1, 1, 1, -1)
    bottleneck = EntropyBottleneck([1], bits=4, prior=FactorizedPrior, bounded=False).eval()
    (y_hat,), _ = bottleneck([y])
    assert (y_hat * 16).flatten().tolist() == [-48, -10, 6, 11200]
    assert torch.equal(bottleneck.decompress(bottleneck.compress([y]), [(1, 4)])[0], y_hat)


def test_every_level_can_be_coded():
    for bits in ALL_BITS:
        bottleneck = make_bottleneck(1, bits).eval()
        y = torch.arange(2**bits + 1).reshape(1, 1, 1, -1) / 2**bits - 0.5
        assert torch.equal(bottleneck.decompress(bottleneck.compress([y]), [(1, 2**bits + 1)])[0], y)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"bits": 0}, "bits=0"),
        ({"bits": 9}, "bits=9"),
        ({"bits": 4.0}, "bits=4.0"),
        ({"bits": True}, "bits=true"),
        ({"noise": "gaussian"}, "noise=gaussian: allowed are uniform, paper, straight_through"),
        ({"channels": [0]}, r"channels=\[0\]"),
        ({"channels": 2}, "channels=2"),
        ({"prior": None}, "prior=null"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(arguments, named):
    with pytest.raises(ValueError, match=named):
        EntropyBottleneck(**{"channels": [2], "prior": FactorizedPrior, **arguments})


class Inexact(FactorizedPrior):
    """Has a part of its own, `made`, which decodes."""

    def __init__(self, made: nn.Module, *arguments: object) -> None:
        super().__init__(*arguments)
        self.parts = nn.ModuleList([nn.ReLU(), ExactConv2d(1, 1, 1), made])


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (nn.Conv2d(1, 1, 1), "prior.parts.2 is a Conv2d"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(1, affine=False)), "prior.parts.2.1 is a BatchNorm2d"),
    ],
)
def test_a_prior_whose_decoder_would_not_be_exact_is_refused(made, named):
    with pytest.raises(TypeError, match=f"{named}, whose results differ between machines"):
        EntropyBottleneck([2], prior=lambda *arguments: Inexact(made, *arguments))
    EntropyBottleneck([2], prior=lambda *arguments: Inexact(nn.ReLU(), *arguments))


def test_what_is_no_prior_is_refused():
    with pytest.raises(TypeError, match="ChannelTables is no Prior"):
        EntropyBottleneck([2], prior=lambda *_: ChannelTables(2, 8))


# ---- the bottleneck: files


@pytest.mark.parametrize("bits", ALL_BITS)
def test_what_is_decompressed_is_y_hat(bits):
    bottleneck = make_bottleneck(3, bits).eval()
    change_prior(bottleneck)
    y = [torch.randn(1, 3, 7, 5, generator=generator()) * 0.5]  # a third lies outside [-½, ½]
    (y_hat,), _ = bottleneck(y)
    assert torch.equal(bottleneck.decompress(bottleneck.compress(y), [(7, 5)])[0], y_hat)


@pytest.mark.parametrize("training", [True, False])
def test_compress_does_the_same_in_training_mode(training):
    bottleneck = make_bottleneck()
    y = [torch.rand(1, 2, 6, 6, generator=generator()) - 0.5]
    assert bottleneck.train(training).compress(y) == make_bottleneck().eval().compress(y)
    assert bottleneck.training is training


def test_a_latent_with_nan_is_refused():
    y = torch.rand(1, 2, 4, 4)
    y[0, 1, 2, 3] = math.nan
    with pytest.raises(ValueError, match="nan"):
        make_bottleneck().compress([y])


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_estimate_is_within_one_percent_of_the_section(bits):
    bottleneck = make_bottleneck(2, bits).eval()
    change_prior(bottleneck)
    with torch.no_grad():
        levels = sample_levels(model_of(bottleneck).pmf(), 100 * 100).reshape(1, 2, 100, 100)
        y = [levels / 2**bits - 0.5]
        estimate = total(bottleneck(y)[1])
    assert 8 * len(bottleneck.compress(y)) == pytest.approx(estimate, rel=0.01)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_estimate_holds_where_the_prior_is_certain(bits):
    """A dead channel is common; the coder keeps a count for every level, so no symbol is free."""
    bottleneck = make_bottleneck(1, bits).eval()
    with torch.no_grad():
        for matrix in model_of(bottleneck).matrices:
            matrix.fill_(20.0)
        level = int(model_of(bottleneck).pmf().argmax())
        for y in (torch.full((1, 1, 400, 400), level / 2**bits - 0.5), torch.full((1, 1, 30, 30), -0.5)):
            estimate = total(bottleneck([y])[1])
            assert 8 * len(bottleneck.compress([y])) == pytest.approx(estimate, rel=0.02, abs=8 * 8)


# ---- the bottleneck: tables


NAME = "prior.models.0.tables"


def alter(state: dict[str, Tensor]) -> Tensor:
    """Other tables than the prior's, still valid: what another machine's floats would have made."""
    tables = state[NAME].clone()
    counts = tables.diff()
    counts[:, 0] += counts[:, 1] - 1
    counts[:, 1] = 1
    tables[:, 1:] = counts.cumsum(-1)
    assert not torch.equal(tables, state[NAME])
    state[NAME] = tables
    return tables


def test_tables_are_remade_after_the_prior_changes():
    bottleneck = make_bottleneck()
    model = model_of(bottleneck)
    before = model.current_tables().clone()
    change_prior(bottleneck)
    after = model.current_tables()
    assert not torch.equal(before, after)
    assert torch.equal(after, cdf_from_pmf(model.pmf()))


def test_loaded_tables_are_read_and_never_recomputed():
    state = make_bottleneck().state_dict()
    altered = alter(state)
    loaded = make_bottleneck(seed=5).eval()
    loaded.load_state_dict(state)
    y = torch.rand(1, 2, 9, 9, generator=generator()) - 0.5
    section = loaded.compress([y])
    assert section == written(loaded, (y * 16 + 0.5).floor().long(), altered)
    assert section != make_bottleneck().compress([y])
    assert torch.equal(loaded.decompress(section, [(9, 9)])[0], loaded([y])[0][0])
    assert torch.equal(loaded.state_dict()[NAME], altered)


def test_loading_over_other_weights_leaves_no_old_tables():
    bottleneck, other = make_bottleneck(), make_bottleneck(seed=5)
    model_of(bottleneck).current_tables()
    bottleneck.load_state_dict(other.state_dict())
    assert torch.equal(model_of(bottleneck).current_tables(), model_of(other).current_tables())


def test_a_state_dict_always_holds_current_tables():
    bottleneck = make_bottleneck()
    fresh = bottleneck.state_dict()  # before anything was coded
    assert torch.equal(fresh[NAME], cdf_from_pmf(model_of(bottleneck).pmf()))
    change_prior(bottleneck)
    around = torch.nn.ModuleDict({"inner": bottleneck})  # as a part of a codec, too
    assert torch.equal(around.state_dict()[f"inner.{NAME}"], cdf_from_pmf(model_of(bottleneck).pmf()))


def test_a_deep_copy_keeps_loaded_tables_and_makes_its_own_once_it_changes():
    state = make_bottleneck().state_dict()
    altered = alter(state)
    loaded = make_bottleneck(seed=5)
    loaded.load_state_dict(state)
    clone = copy.deepcopy(loaded)
    assert torch.equal(model_of(clone).current_tables(), altered)
    change_prior(clone)
    assert torch.equal(clone.state_dict()[NAME], cdf_from_pmf(model_of(clone).pmf()))
    assert torch.equal(loaded.state_dict()[NAME], altered)


def test_no_buffer_changes_its_shape():
    bottleneck = make_bottleneck()
    before = {name: (buffer.shape, buffer.dtype) for name, buffer in bottleneck.named_buffers()}
    change_prior(bottleneck)
    bottleneck.compress([torch.rand(1, 2, 3, 3)])
    bottleneck.state_dict()
    assert {name: (buffer.shape, buffer.dtype) for name, buffer in bottleneck.named_buffers()} == before


def test_a_bottleneck_can_be_pickled():
    """strategy=ddp_spawn sends the codec to its processes that way."""
    bottleneck = make_bottleneck()
    change_prior(bottleneck)
    clone = pickle.loads(pickle.dumps(bottleneck))  # noqa: S301 - our own bytes
    assert torch.equal(model_of(clone).current_tables(), model_of(bottleneck).current_tables())


def test_a_bottleneck_in_bfloat16_has_a_state_dict():
    """precision=bf16-true holds the weights so, and saves a checkpoint after every epoch."""
    assert make_bottleneck().bfloat16().state_dict()[NAME].dtype == torch.int32


def test_a_section_too_short_for_its_size_is_refused_before_its_symbols_are_told_apart(monkeypatch):
    bottleneck = make_bottleneck(channels=3)
    model = model_of(bottleneck)
    likeliest = model.current_tables().diff()[:, :-1].argmax(-1) - model.reach
    cheapest = written(bottleneck, likeliest.view(1, 3, 1, 1).expand(1, 3, 5, 7), model.current_tables())
    assert len(cheapest) - 2 <= bottleneck.prior.least_bits([(5, 7)]) / 8 <= len(cheapest)
    bottleneck.check_length(cheapest, [(5, 7)])
    monkeypatch.setattr(FactorizedPrior, "visit", lambda *_: pytest.fail("memory is taken"))
    with pytest.raises(BitstreamError, match="too short for its 105 symbols"):
        bottleneck.decompress(cheapest[:-3], [(5, 7)])
