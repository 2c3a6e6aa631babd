"""What the entropy bottleneck does in training: gradients of the rate and of the levels, and noise."""

import functools

import pytest
import torch
from bottlenecks import make_bottleneck, model_of, sample_levels
from conftest import generator

from codec.entropy import EntropyBottleneck, FactorizedPrior
from codec.entropy.rdoq import BIT

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_rate_reaches_the_latent_and_every_weight_of_the_prior():
    bottleneck = make_bottleneck().train()
    y = (torch.rand(2, 2, 8, 8, generator=generator()) - 0.5).requires_grad_()
    (y_hat,), bits = bottleneck([y])
    assert y_hat.shape == y.shape
    assert bits["y"].shape == (2,)
    bits["y"].sum().backward()
    for tensor in (y, *bottleneck.prior.parameters()):
        assert bool(torch.isfinite(tensor.grad).all())
        assert bool((tensor.grad != 0).any())


def test_the_rates_gradient_is_its_slope():
    """The distributions see no noise, so finite differences can be taken around them."""
    model = model_of(make_bottleneck(2)).double()
    levels = 16 * torch.rand(1, 2, 2, 2, generator=generator(), dtype=torch.float64) - 8
    assert torch.autograd.gradcheck(model.bits, levels.requires_grad_(), eps=1e-4, atol=1e-5)


def test_training_the_prior_comes_within_two_percent_of_the_entropy_of_the_source():
    bottleneck = make_bottleneck(2, bits=3).train()
    ramp = torch.arange(9.0)
    source = torch.stack([(-((ramp - 2) ** 2) / 2).exp(), (-(ramp - 7).abs()).exp()])
    levels = sample_levels(source, 1024).reshape(1, 2, 32, 32)
    counts = torch.stack([torch.bincount(row.flatten(), minlength=9) for row in levels[0]]) / 1024
    entropy = -(counts * counts.clamp_min(1e-12).log2()).sum() * 1024
    y = levels / 8 - 0.5
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.05)
    torch.manual_seed(0)
    with torch.no_grad():
        before = float(bottleneck.eval()([y])[1]["y"])
    bottleneck.train()
    for _ in range(250):
        optimizer.zero_grad()
        # levels without noise: the prior is fitted to the very symbols that are coded
        (model_of(bottleneck).bits(y * 8).sum() / y.numel()).backward()
        optimizer.step()
    with torch.no_grad():
        after = float(bottleneck.eval()([y])[1]["y"])
    assert after < before
    assert float(entropy) <= after <= 1.02 * float(entropy)
    assert 8 * len(bottleneck.compress([y])) <= 1.02 * float(entropy) + 32


def test_a_few_steps_on_the_noisy_rate_lower_the_bits_of_the_real_section():
    bottleneck = make_bottleneck(1, bits=4).train()
    y = [0.08 * torch.randn(1, 1, 48, 48, generator=generator())]
    before = len(bottleneck.compress(y))
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.05)
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        bottleneck(y)[1]["y"].sum().backward()
        optimizer.step()
    assert len(bottleneck.compress(y)) < 0.8 * before


def test_a_very_improbable_level_still_moves_the_latent_and_teaches_the_prior():
    """Else an outlier is priced by a constant, and nothing ever brings it back."""
    bottleneck = make_bottleneck(1, bits=4).train()
    with torch.no_grad():
        for bias in model_of(bottleneck).biases:
            bias.zero_()
        model_of(bottleneck).matrices[0].fill_(8.0)  # logits of about -32 and 32 at the ends
        assert float(model_of(bottleneck).bits(torch.full((1, 1, 1, 1), -8.0))) > 15.999  # as much as there is
    y = torch.full((1, 1, 4, 4), -0.5, requires_grad=True)
    bottleneck([y])[1]["y"].sum().backward()
    for tensor in (y, *bottleneck.prior.parameters()):
        assert bool((tensor.grad != 0).any())


@pytest.mark.parametrize("noise", ["uniform", "paper", "straight_through", "chosen"])
def test_at_the_ends_of_the_range_a_gradient_is_stopped_outwards_and_kept_inwards(noise):
    bottleneck = make_bottleneck(1, noise=noise).train()
    values = torch.tensor([-1.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.0])
    # A step goes against its gradient: +1 lowers the value, -1 raises it.
    upstream = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])
    y = values.reshape(1, 1, 1, -1).requires_grad_()
    (y_hat,), _ = bottleneck([y])
    y_hat.backward(upstream.reshape(1, 1, 1, -1))
    assert y.grad.flatten().tolist() == [0.0, -1.0, 1.0, 1.0, -1.0, 1.0, 0.0]


def test_straight_through_rounds_and_its_gradient_is_the_identity():
    bottleneck = make_bottleneck(1, noise="straight_through").train()
    y = (torch.rand(1, 1, 20, 20, generator=generator()) - 0.5).requires_grad_()
    (y_hat,), _ = bottleneck([y])
    torch.testing.assert_close(y_hat.detach(), bottleneck.eval()([y])[0][0].detach(), atol=1e-6, rtol=0)
    upstream = torch.randn(1, 1, 20, 20, generator=generator(1))
    y_hat.backward(upstream)
    assert torch.equal(y.grad, upstream)


def test_chosen_levels_cost_less_than_the_nearest_and_their_gradient_is_the_identity():
    chosen, nearest = (make_bottleneck(2, noise=noise).train() for noise in ("chosen", "straight_through"))
    with torch.no_grad():  # a distribution that is narrower than at the start
        for bias in model_of(nearest).biases:
            bias.zero_()
        model_of(nearest).matrices[0].fill_(4.0)
    chosen.load_state_dict(nearest.state_dict())
    y = (0.05 * torch.randn(1, 2, 20, 20, generator=generator())).requires_grad_()
    costs, decoded = [], []
    for bottleneck in (chosen, nearest):
        (y_hat,), bits = bottleneck([y])
        error = ((y_hat - y) * bottleneck.scale).square().sum()
        costs.append((error / BIT + bits["y"].sum()).item())
        decoded.append(y_hat)
    assert costs[0] < 0.99 * costs[1]
    levels = decoded[0] * chosen.scale
    assert torch.equal(levels, levels.round())
    assert not torch.equal(*decoded)
    upstream = torch.randn(y.shape, generator=generator(1))
    decoded[0].backward(upstream)
    torch.testing.assert_close(y.grad, upstream)


@pytest.mark.parametrize("quality", [0.0, 10.0, 50.0])
def test_the_bits_pull_as_much_on_a_latent_whose_level_is_chosen_as_on_one_that_is_rounded(quality):
    prior = functools.partial(FactorizedPrior, filters=[3])
    pull, levels = [], []
    for noise in ("chosen", "straight_through"):
        torch.manual_seed(0)
        bottleneck = EntropyBottleneck([1], 3, noise, prior, variable_rate=True).train()
        # At the ends of the latent, and between the last level and them.
        y = torch.linspace(-0.5, 0.5, 401).view(1, 1, 1, -1).requires_grad_()
        (y_hat,), bits = bottleneck([y], torch.tensor([quality]))
        bits["y"].sum().backward()
        pull.append(y.grad)
        levels.append(y_hat.detach())
    same = levels[0] == levels[1]
    assert float(same.float().mean()) > 0.5
    torch.testing.assert_close(pull[0][same], pull[1][same])


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize(("noise", "mean", "deviation"), [("paper", -0.5, 0.5), ("uniform", 0.0, 12**-0.5)])
def test_the_noise_has_the_documented_mean_and_deviation_in_steps(noise, mean, deviation, bits):
    torch.manual_seed(0)
    y = torch.rand(1, 1, 500, 500, generator=generator()) - 0.5
    (y_hat,), _ = make_bottleneck(1, bits, noise).train()([y])
    steps = ((y_hat - y) * 2**bits).detach()
    assert float(steps.mean()) == pytest.approx(mean, abs=0.01)
    assert float(steps.std()) == pytest.approx(deviation, abs=0.01)
    if noise == "uniform":
        assert float(steps.abs().max()) <= 0.5 + 1e-3


def test_evaluation_adds_no_noise():
    bottleneck = make_bottleneck().eval()
    y = [torch.rand(1, 2, 8, 8, generator=generator()) - 0.5]
    first, second = bottleneck(y), bottleneck(y)
    assert torch.equal(first[0][0], second[0][0])
    assert torch.equal(first[1]["y"], second[1]["y"])


def test_without_shaping_the_rate_teaches_the_prior_only():
    bottleneck = make_bottleneck().train()
    bottleneck.shapes_latent = False
    y = (torch.rand(1, 2, 8, 8, generator=generator()) - 0.5).requires_grad_()
    (y_hat,), bits = bottleneck([y])
    bits["y"].sum().backward(retain_graph=True)
    assert y.grad is None or not bool(y.grad.any())
    assert all(bool((parameter.grad != 0).any()) for parameter in bottleneck.prior.parameters())
    y_hat.sum().backward()  # the distortion's way stays open
    assert bool((y.grad == 1).all())
