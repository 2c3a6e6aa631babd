"""From latents to bytes: the prior, and the entropy bottleneck's levels, files and tables."""

import copy
import math
import pickle

import pytest
import torch
from bottlenecks import make_bottleneck, sample_levels
from conftest import generator
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import EntropyBottleneck, FactorizedPrior, coder
from codec.entropy.tables import cdf_from_pmf

pytestmark = pytest.mark.usefixtures("one_thread")
ALL_BITS = range(1, 9)


def change_prior(bottleneck: EntropyBottleneck, amount: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in bottleneck.prior.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator(1)))


# ---- the prior


@pytest.mark.parametrize("filters", [[1], [3], [3, 3, 3]])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_priors_probabilities_sum_to_one(bits, filters):
    torch.manual_seed(bits)
    prior = FactorizedPrior(5, 2**bits + 1, filters)
    for scale in (0.0, 0.5, 0.5):
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.add_(scale * torch.randn_like(parameter))
            pmf = prior.pmf()
        assert pmf.shape == (5, 2**bits + 1)
        assert int((pmf < 0).sum()) == 0
        torch.testing.assert_close(pmf.sum(-1), torch.ones(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [-40.0, -25.0, 25.0, 40.0])
def test_a_prior_far_out_in_its_tail_still_sums_to_one(shift):
    """A geometric latent is fitted best by a tail, so that training pushes the bias out without end."""
    prior = make_bottleneck(1).prior
    with torch.no_grad():
        prior.biases[-1].fill_(shift)
        assert float(prior.pmf().sum()) == pytest.approx(1, abs=1e-3)


def test_a_prior_whose_mass_has_left_the_range_has_finite_bits_and_gradients() -> None:
    """As where a latent is pushed against the end of its range, and its prior beyond."""
    prior = FactorizedPrior(1, 17, filters=[3])
    for shift in (0.0, -40.0, -80.0, -200.0):
        prior.zero_grad()
        with torch.no_grad():
            prior.biases[-1].fill_(shift)
        bits = prior(torch.full((1, 1, 4, 4), 16.0) + 0.3)
        bits.sum().backward()
        assert bool(torch.isfinite(bits).all())
        assert all(bool(torch.isfinite(p.grad).all()) for p in prior.parameters())


def test_a_priors_bits_are_those_of_its_probabilities_per_channel_and_image():
    prior = make_bottleneck(3, bits=3).prior
    levels = torch.randint(0, 9, (4, 3, 5, 2), generator=generator())
    with torch.no_grad():
        by_hand = torch.zeros(4)
        pmf = prior.pmf()
        for image in range(4):
            for channel in range(3):
                by_hand[image] -= pmf[channel, levels[image, channel]].log2().sum()
        torch.testing.assert_close(prior(levels.float()), by_hand, rtol=1e-3, atol=0)


@pytest.mark.parametrize("filters", [[], [3, 0], [-1]])
def test_a_prior_without_widths_is_refused(filters):
    with pytest.raises(ValueError, match="filters="):
        FactorizedPrior(2, 17, filters)


# ---- the bottleneck: levels


@pytest.mark.parametrize("bits", ALL_BITS)
def test_levels_are_the_integer_part_of_the_clamped_value_times_two_to_the_bits_plus_a_half(bits):
    scale = 2**bits
    step = 1 / scale
    halves = [(n + 0.5) * step for n in range(scale)]
    below = [math.nextafter((n + 0.5) * step, 0) for n in range(scale)]
    values = [0.0, 1.0, -0.3, 1.3, -1e-9, 1 + 1e-6, -math.inf, math.inf, 0.3, 0.7, *halves, *below]
    y = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    bottleneck = make_bottleneck(1, bits).eval()
    wanted = [int(min(max(v, 0.0), 1.0) * scale + 0.5) for v in y.flatten().tolist()]
    y_hat, _ = bottleneck(y)
    assert (y_hat * scale).flatten().tolist() == wanted
    assert wanted[:4] == [0, scale, 0, scale]
    assert wanted[10 : 10 + scale] == list(range(1, scale + 1))  # halves go up


def test_every_level_can_be_coded():
    for bits in ALL_BITS:
        bottleneck = make_bottleneck(1, bits).eval()
        y = torch.arange(2**bits + 1).reshape(1, 1, 1, -1) / 2**bits
        assert torch.equal(bottleneck.decompress(bottleneck.compress(y), (1, 2**bits + 1)), y)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"bits": 0}, "bits=0"),
        ({"bits": 9}, "bits=9"),
        ({"bits": 4.0}, "bits=4.0"),
        ({"bits": True}, "bits=true"),
        ({"noise": "gaussian"}, "noise=gaussian: allowed are uniform, paper, straight_through"),
        ({"channels": 0}, "channels=0"),
        ({"prior": None}, "prior=null"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(arguments, named):
    with pytest.raises(ValueError, match=named):
        EntropyBottleneck(**{"channels": 2, "prior": FactorizedPrior, **arguments})


# ---- the bottleneck: files


@pytest.mark.parametrize("bits", ALL_BITS)
def test_what_is_decompressed_is_y_hat(bits):
    bottleneck = make_bottleneck(3, bits).eval()
    change_prior(bottleneck)
    y = torch.randn(1, 3, 7, 5, generator=generator()) * 0.5 + 0.5  # a third lies outside [0, 1]
    y_hat, _ = bottleneck(y)
    assert torch.equal(bottleneck.decompress(bottleneck.compress(y), (7, 5)), y_hat)


@pytest.mark.parametrize("training", [True, False])
def test_compress_does_the_same_in_training_mode(training):
    bottleneck = make_bottleneck()
    y = torch.rand(1, 2, 6, 6, generator=generator())
    assert bottleneck.train(training).compress(y) == make_bottleneck().eval().compress(y)
    assert bottleneck.training is training


def test_a_latent_with_nan_is_refused():
    y = torch.rand(1, 2, 4, 4)
    y[0, 1, 2, 3] = math.nan
    with pytest.raises(ValueError, match="nan"):
        make_bottleneck().compress(y)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_estimate_is_within_one_percent_of_the_section(bits):
    bottleneck = make_bottleneck(2, bits).eval()
    change_prior(bottleneck)
    with torch.no_grad():
        levels = sample_levels(bottleneck.prior.pmf(), 100 * 100).reshape(1, 2, 100, 100)
        y = levels / 2**bits
        estimate = float(bottleneck(y)[1])
    assert 8 * len(bottleneck.compress(y)) == pytest.approx(estimate, rel=0.01)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_estimate_holds_where_the_prior_is_certain(bits):
    """A dead channel is common; the coder keeps a count for every level, so no symbol is free."""
    bottleneck = make_bottleneck(1, bits).eval()
    with torch.no_grad():
        for matrix in bottleneck.prior.matrices:
            matrix.fill_(20.0)
        level = int(bottleneck.prior.pmf().argmax())
        for y in (torch.full((1, 1, 400, 400), level / 2**bits), torch.zeros(1, 1, 30, 30)):
            estimate = float(bottleneck(y)[1])
            assert 8 * len(bottleneck.compress(y)) == pytest.approx(estimate, rel=0.02, abs=8 * 8)


# ---- the bottleneck: tables


def alter(state: dict[str, Tensor]) -> Tensor:
    """Other tables than the prior's, still valid: what another machine's floats would have made."""
    tables = state["tables"].clone()
    counts = tables.diff()
    counts[:, 0] += counts[:, -1] - 1
    counts[:, -1] = 1
    tables[:, 1:] = counts.cumsum(-1)
    assert not torch.equal(tables, state["tables"])
    state["tables"] = tables
    return tables


def test_tables_are_remade_after_the_prior_changes():
    bottleneck = make_bottleneck()
    before = bottleneck.current_tables().clone()
    change_prior(bottleneck)
    after = bottleneck.current_tables()
    assert not torch.equal(before, after)
    assert torch.equal(after, cdf_from_pmf(bottleneck.prior.pmf()))


def test_loaded_tables_are_read_and_never_recomputed():
    state = make_bottleneck().state_dict()
    altered = alter(state)
    loaded = make_bottleneck(seed=5).eval()
    loaded.load_state_dict(state)
    y = torch.rand(1, 2, 9, 9, generator=generator())
    section = loaded.compress(y)
    symbols = (y * 16 + 0.5).floor().flatten().long()
    assert section == coder.encode(symbols, loaded.prior.table_index(9, 9), altered)
    assert section != make_bottleneck().compress(y)
    assert torch.equal(loaded.decompress(section, (9, 9)), loaded(y)[0])
    assert torch.equal(loaded.state_dict()["tables"], altered)


def test_loading_over_other_weights_leaves_no_old_tables():
    bottleneck, other = make_bottleneck(), make_bottleneck(seed=5)
    bottleneck.current_tables()
    bottleneck.load_state_dict(other.state_dict())
    assert torch.equal(bottleneck.current_tables(), other.current_tables())


def test_a_state_dict_always_holds_current_tables():
    bottleneck = make_bottleneck()
    fresh = bottleneck.state_dict()  # before anything was coded
    assert torch.equal(fresh["tables"], cdf_from_pmf(bottleneck.prior.pmf()))
    change_prior(bottleneck)
    around = torch.nn.ModuleDict({"inner": bottleneck})  # as a part of a codec, too
    assert torch.equal(around.state_dict()["inner.tables"], cdf_from_pmf(bottleneck.prior.pmf()))


def test_a_deep_copy_keeps_loaded_tables_and_makes_its_own_once_it_changes():
    state = make_bottleneck().state_dict()
    altered = alter(state)
    loaded = make_bottleneck(seed=5)
    loaded.load_state_dict(state)
    clone = copy.deepcopy(loaded)
    assert torch.equal(clone.current_tables(), altered)
    change_prior(clone)
    assert torch.equal(clone.state_dict()["tables"], cdf_from_pmf(clone.prior.pmf()))
    assert torch.equal(loaded.state_dict()["tables"], altered)


def test_no_buffer_changes_its_shape():
    bottleneck = make_bottleneck()
    before = {name: (buffer.shape, buffer.dtype) for name, buffer in bottleneck.named_buffers()}
    change_prior(bottleneck)
    bottleneck.compress(torch.rand(1, 2, 3, 3))
    bottleneck.state_dict()
    assert {name: (buffer.shape, buffer.dtype) for name, buffer in bottleneck.named_buffers()} == before


def test_a_bottleneck_can_be_pickled():
    """strategy=ddp_spawn sends the codec to its processes that way."""
    bottleneck = make_bottleneck()
    change_prior(bottleneck)
    clone = pickle.loads(pickle.dumps(bottleneck))  # noqa: S301 - our own bytes
    assert torch.equal(clone.current_tables(), bottleneck.current_tables())


def test_a_bottleneck_in_bfloat16_has_a_state_dict():
    """precision=bf16-true holds the weights so, and saves a checkpoint after every epoch."""
    assert make_bottleneck().bfloat16().state_dict()["tables"].dtype == torch.int32


def test_a_section_too_short_for_its_size_is_refused_before_its_symbols_are_told_apart(monkeypatch):
    bottleneck = make_bottleneck(channels=3)
    index = bottleneck.prior.table_index(5, 7)
    assert torch.equal(bottleneck.prior.table_counts(5, 7), index.bincount())
    likeliest = bottleneck.current_tables().diff().argmax(-1)[index]
    cheapest = coder.encode(likeliest, index, bottleneck.current_tables())
    assert len(cheapest) - 1 <= bottleneck.least_bits((5, 7)) / 8 <= len(cheapest)
    bottleneck.check_length(cheapest, (5, 7))
    monkeypatch.setattr(bottleneck.prior, "table_index", lambda *_: pytest.fail("memory is taken"))
    with pytest.raises(BitstreamError, match="too short for its 105 symbols"):
        bottleneck.decompress(cheapest[:-2], (5, 7))
