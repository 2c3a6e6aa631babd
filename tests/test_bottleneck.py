"""From latents to bytes: the prior and the entropy bottleneck."""

import copy
import functools
import math
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from codec.entropy import EntropyBottleneck, FactorizedPrior, coder
from codec.entropy.tables import cdf_from_pmf

ALL_BITS = range(1, 9)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These tensors are small: threads that share a core would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_bottleneck(channels: int = 2, bits: int = 4, noise: str = "uniform", seed: int = 0) -> EntropyBottleneck:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EntropyBottleneck(channels, bits, noise, functools.partial(FactorizedPrior, filters=[3]))


def change_prior(bottleneck: EntropyBottleneck, amount: float = 0.3) -> None:
    with torch.no_grad():
        for parameter in bottleneck.prior.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator(1)))


def sample_levels(pmf: Tensor, count: int, seed: int = 0) -> Tensor:
    """Symbols drawn from every row of `pmf`, int64 `[T, count]`."""
    return torch.multinomial(pmf, count, replacement=True, generator=generator(seed))


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
        ({"bits": True}, "bits=True"),
        ({"noise": "gaussian"}, "noise=gaussian: allowed are uniform, paper, straight_through"),
        ({"channels": 0}, "channels=0"),
        ({"prior": None}, "prior=None"),
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


# ---- the bottleneck: gradients


def test_the_rate_reaches_the_latent_and_every_weight_of_the_prior():
    bottleneck = make_bottleneck().train()
    y = torch.rand(2, 2, 8, 8, generator=generator(), requires_grad=True)
    y_hat, bits = bottleneck(y)
    assert y_hat.shape == y.shape
    assert bits.shape == (2,)
    bits.sum().backward()
    for tensor in (y, *bottleneck.prior.parameters()):
        assert bool(torch.isfinite(tensor.grad).all())
        assert bool((tensor.grad != 0).any())


def test_the_rates_gradient_is_its_slope():
    """In evaluation mode the prior sees no noise, so finite differences can be taken around it."""
    prior = make_bottleneck(2).prior.double()
    levels = 16 * torch.rand(1, 2, 2, 2, generator=generator(), dtype=torch.float64)
    assert torch.autograd.gradcheck(prior, levels.requires_grad_(), eps=1e-4, atol=1e-5)


def test_training_the_prior_comes_within_two_percent_of_the_entropy_of_the_source():
    bottleneck = make_bottleneck(2, bits=3).train()
    ramp = torch.arange(9.0)
    source = torch.stack([(-((ramp - 2) ** 2) / 2).exp(), (-(ramp - 7).abs()).exp()])
    levels = sample_levels(source, 1024).reshape(1, 2, 32, 32)
    counts = torch.stack([torch.bincount(row.flatten(), minlength=9) for row in levels[0]]) / 1024
    entropy = -(counts * counts.clamp_min(1e-12).log2()).sum() * 1024
    y = levels / 8
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.05)
    torch.manual_seed(0)
    with torch.no_grad():
        before = float(bottleneck.eval()(y)[1])
    bottleneck.train()
    for _ in range(250):
        optimizer.zero_grad()
        # levels without noise: the prior is fitted to the very symbols that are coded
        (bottleneck.prior(y * 8).sum() / y.numel()).backward()
        optimizer.step()
    with torch.no_grad():
        after = float(bottleneck.eval()(y)[1])
    assert after < before
    assert float(entropy) <= after <= 1.02 * float(entropy)
    assert 8 * len(bottleneck.compress(y)) <= 1.02 * float(entropy) + 16


def test_a_few_steps_on_the_noisy_rate_lower_the_bits_of_the_real_section():
    bottleneck = make_bottleneck(1, bits=4).train()
    y = 0.5 + 0.08 * torch.randn(1, 1, 48, 48, generator=generator())
    before = len(bottleneck.compress(y))
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.05)
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        bottleneck(y)[1].sum().backward()
        optimizer.step()
    assert len(bottleneck.compress(y)) < 0.8 * before


def test_a_very_improbable_level_still_moves_the_latent_and_teaches_the_prior():
    """Else an outlier is priced by a constant, and nothing ever brings it back."""
    bottleneck = make_bottleneck(1, bits=4).train()
    with torch.no_grad():
        for bias in bottleneck.prior.biases:
            bias.zero_()
        bottleneck.prior.matrices[0].fill_(8.0)  # logits of about -32 and 32 at the ends
        assert 0 < float(bottleneck.prior.pmf()[0, 0]) < 1e-9
    y = torch.zeros(1, 1, 4, 4, requires_grad=True)
    bottleneck(y)[1].sum().backward()
    for tensor in (y, *bottleneck.prior.parameters()):
        assert bool((tensor.grad != 0).any())


@pytest.mark.parametrize("noise", ["uniform", "paper", "straight_through"])
def test_at_the_ends_of_the_range_a_gradient_is_stopped_outwards_and_kept_inwards(noise):
    bottleneck = make_bottleneck(1, noise=noise).train()
    values = torch.tensor([-0.5, -0.5, 0.0, 0.5, 1.0, 1.5, 1.5])
    # A step goes against its gradient: +1 lowers the value, -1 raises it.
    upstream = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    y = values.reshape(1, 1, 1, -1).requires_grad_()
    y_hat, _ = bottleneck(y)
    y_hat.backward(upstream.reshape(1, 1, 1, -1))
    assert y.grad.flatten().tolist() == [0.0, -1.0, 1.0, 1.0, -1.0, 1.0, 0.0]


def test_straight_through_rounds_and_its_gradient_is_the_identity():
    bottleneck = make_bottleneck(1, noise="straight_through").train()
    y = torch.rand(1, 1, 20, 20, generator=generator(), requires_grad=True)
    y_hat, _ = bottleneck(y)
    torch.testing.assert_close(y_hat.detach(), bottleneck.eval()(y)[0].detach(), atol=1e-6, rtol=0)
    upstream = torch.randn(1, 1, 20, 20, generator=generator(1))
    y_hat.backward(upstream)
    assert torch.equal(y.grad, upstream)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize(("noise", "mean", "deviation"), [("paper", -0.5, 0.5), ("uniform", 0.0, 12**-0.5)])
def test_the_noise_has_the_documented_mean_and_deviation_in_steps(noise, mean, deviation, bits):
    torch.manual_seed(0)
    y = torch.rand(1, 1, 500, 500, generator=generator())
    y_hat, _ = make_bottleneck(1, bits, noise).train()(y)
    steps = ((y_hat - y) * 2**bits).detach()
    assert float(steps.mean()) == pytest.approx(mean, abs=0.01)
    assert float(steps.std()) == pytest.approx(deviation, abs=0.01)
    if noise == "uniform":
        assert float(steps.abs().max()) <= 0.5 + 1e-3


def test_evaluation_adds_no_noise():
    bottleneck = make_bottleneck().eval()
    y = torch.rand(1, 2, 8, 8, generator=generator())
    first, second = bottleneck(y), bottleneck(y)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_without_shaping_the_rate_teaches_the_prior_only():
    bottleneck = make_bottleneck().train()
    bottleneck.shapes_latent = False
    y = torch.rand(1, 2, 8, 8, generator=generator(), requires_grad=True)
    y_hat, bits = bottleneck(y)
    bits.sum().backward(retain_graph=True)
    assert y.grad is None or not bool(y.grad.any())
    assert all(bool((parameter.grad != 0).any()) for parameter in bottleneck.prior.parameters())
    y_hat.sum().backward()  # the distortion's way stays open
    assert bool((y.grad == 1).all())


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
