"""The forward diffusion process and DDIM, against the papers' formulas."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import images, noise
from torch import Tensor

from codec.networks import NoiseSchedule


def test_beta_runs_linearly_from_1e_4_to_0_02_in_1000_steps_and_alpha_bar_is_the_product():
    alpha_bar = NoiseSchedule().alpha_bar.double()
    assert alpha_bar.shape == (1000,)
    products, product = [], 1.0
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        products.append(product)
    torch.testing.assert_close(alpha_bar, torch.tensor(products, dtype=torch.float64), rtol=1e-5, atol=0)
    assert float(alpha_bar[0]) == pytest.approx(1 - 1e-4, abs=1e-7)
    assert 1 - float(alpha_bar[-1] / alpha_bar[-2]) == pytest.approx(0.02, rel=1e-4)
    assert float(alpha_bar[-1]) == pytest.approx(4.036e-5, rel=1e-3)  # as in Ho et al.'s own code


def test_q_sample_gives_known_numbers():
    schedule = NoiseSchedule(steps=2, first=0.36, last=0.75)  # 1 - β = 0.64, 0.25: the product is 0.16
    x, eps = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.5]])
    for t, wanted in ((0, [0.8 * 2 + 0.6 * 1, -0.8 + 0.6 * 0.5]), (1, [0.4 * 2 + 0.84**0.5, -0.4 + 0.84**0.5 / 2])):
        torch.testing.assert_close(schedule.q_sample(x, torch.tensor(t), eps), torch.tensor([wanted]))
    first = NoiseSchedule().q_sample(torch.tensor([2.0]), torch.tensor(0), torch.tensor([1.0]))
    assert float(first) == pytest.approx(0.9999**0.5 * 2 + 0.01, abs=1e-4)


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_q_sample_keeps_unit_variance(t):
    sample = NoiseSchedule().q_sample(noise(1, 1, 400, 400), torch.tensor(t), noise(1, 1, 400, 400, seed=2))
    assert float(sample.var()) == pytest.approx(1, abs=0.02)


def test_q_sample_takes_one_t_for_the_batch_or_one_an_image():
    schedule = NoiseSchedule()
    x, eps = noise(3, 2, 4, 5), noise(3, 2, 4, 5, seed=2)
    times = torch.tensor([7, 500, 999])
    each = schedule.q_sample(x, times, eps)
    assert each.shape == x.shape
    for n, t in enumerate(times):
        assert torch.equal(each[n], schedule.q_sample(x, t, eps)[n])
        assert torch.equal(each[n : n + 1], schedule.q_sample(x[n : n + 1], t, eps[n : n + 1]))
    assert not torch.equal(each[0], schedule.q_sample(x, times[1], eps)[0])


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 57, 1000])
def test_with_a_perfect_predictor_ddim_arrives_in_any_number_of_steps(steps):
    x_0, times = images(2, 3, 4, 4), []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,)
        assert int(t[0]) == int(t[1])
        times.append(int(t[0]))
        return x_0

    assert torch.equal(NoiseSchedule().ddim(predict, noise(2, 3, 4, 4), steps), x_0)
    assert len(times) == steps
    assert times[0] == 999
    assert steps == 1 or times[-1] == 0
    strides = [now - then for now, then in pairwise(times)]
    assert max(strides, default=1) - min(strides, default=1) <= 1


def test_on_its_way_a_perfect_predictor_sees_the_forward_process_with_one_and_the_same_noise():
    schedule, x_0, eps = NoiseSchedule(), images(1, 3, 4, 4), noise(1, 3, 4, 4)
    start = schedule.q_sample(x_0, torch.tensor(999), eps)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(x_t, schedule.q_sample(x_0, t, eps), atol=1e-4, rtol=0)
        return x_0

    schedule.ddim(predict, start, 10)


def test_for_gaussian_data_ddim_maps_noise_to_the_datas_distribution():
    """x_0 ~ N(μ, s²) has a closed-form best prediction; the ODE's solution is then μ + s · noise."""
    schedule, mean, deviation = NoiseSchedule(), 0.4, 0.2

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.alpha_bar[t].reshape(-1, 1).double()
        gain = alpha_bar.sqrt() * deviation**2 / (alpha_bar * deviation**2 + 1 - alpha_bar)
        return mean + gain * (x_t - alpha_bar.sqrt() * mean)

    eps = noise(1, 1000).double()
    wanted = mean + deviation * eps
    off = [float((schedule.ddim(predict, eps, steps) - wanted).abs().max()) for steps in (10, 100, 1000)]
    assert off[2] < off[1] < off[0]
    assert off[2] < 0.02


def test_ddim_is_deterministic_and_draws_nothing():
    schedule, start = NoiseSchedule(), noise(1, 3, 4, 4)
    state = torch.get_rng_state()
    first, second = (schedule.ddim(lambda x_t, t: 0.3 * x_t.tanh(), start.clone(), 7) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, schedule.ddim(lambda x_t, t: 0.3 * x_t.tanh(), start, 8))


def test_ddim_without_steps_is_refused():
    with pytest.raises(ValueError, match="steps=0"):
        NoiseSchedule().ddim(lambda x_t, t: x_t, noise(1, 3, 4, 4), 0)


@pytest.mark.parametrize(
    "arguments", [{"steps": 1}, {"first": 0.0}, {"first": 0.03}, {"last": 1.0}, {"last": math.nan}]
)
def test_a_schedule_that_is_none_is_refused_with_its_values(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        NoiseSchedule(**arguments)


def test_the_schedule_is_no_part_of_a_checkpoint():
    assert not NoiseSchedule().state_dict()
