"""Mixtures of logistics: the smooth bits, the integer bits and the files agree, whatever the parameters are."""

import math

import pytest
import torch
from conftest import generator, noise
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import LogisticMixture, Mixture, coder


def mixture_of(x: Tensor, components: int = 3, spread: float = 4.0, log_scale: float = 1.0) -> Mixture:
    """Means near the pixels `x` `[1, h, w]`, other logits and scales for each."""
    shape = (1, components, *x.shape[1:])
    means = x[:, None] + spread * noise(*shape, seed=1)
    return Mixture(2 * noise(*shape, seed=2), means, log_scale + 0.5 * noise(*shape, seed=3))


def plane(height: int = 40, width: int = 37) -> Tensor:
    return torch.randint(0, 256, (1, height, width), generator=generator()).float()


def everything() -> tuple[Mixture, Tensor]:
    """One distribution, and all 256 values a pixel under it may have."""
    x = torch.arange(256.0).view(1, 16, 16)
    logits, means, log_scales = (
        torch.tensor(v).view(1, 3, 1, 1) for v in ([0.0, 1.0, -2.0], [30.2, 99.7, 250.0], [0.0, 2.0, 4.0])
    )
    return Mixture(*(values.expand(-1, -1, 16, 16) for values in (logits, means, log_scales))), x


@pytest.mark.parametrize("components", [1, 3, 10])
@pytest.mark.parametrize("log_scale", [-2.5, 0.0, 4.0])
def test_a_plane_comes_back(components: int, log_scale: float) -> None:
    model, x = LogisticMixture().eval(), plane()
    mixture = mixture_of(x, components, log_scale=log_scale)
    assert torch.equal(model.decode(mixture, model.encode(mixture, x)), x)


@pytest.mark.parametrize("extreme", [1e30, -1e30, float("inf"), -300.0, 600.0])
def test_no_finite_or_infinite_parameter_makes_a_pixel_uncodable(extreme: float) -> None:
    model, x = LogisticMixture().eval(), plane(8, 9)
    shape = (1, 2, 8, 9)
    mixture = Mixture(100 * noise(*shape), torch.full(shape, extreme), 100 * noise(*shape, seed=5))
    assert torch.equal(model.decode(mixture, model.encode(mixture, x)), x)


def test_the_bits_are_those_of_the_file() -> None:
    model, x = LogisticMixture().eval(), plane(200, 200)
    mixture = mixture_of(x)
    size = 8 * sum(map(len, model.encode(mixture, x)))
    assert model.bits(mixture, x).item() == pytest.approx(size, abs=40)


@pytest.mark.parametrize("log_scale", [-1.0, 1.0, 3.0])
def test_the_smooth_bits_of_training_are_nearly_those_of_the_file(log_scale: float) -> None:
    model, x = LogisticMixture(), plane(100, 100)
    mixture = mixture_of(x, spread=2.0, log_scale=log_scale)
    smooth, coded = model.train().bits(mixture, x), model.eval().bits(mixture, x)
    assert smooth.item() == pytest.approx(coded.item(), rel=0.01)


def test_the_256_values_share_one_probability() -> None:
    model = LogisticMixture()
    mixture, x = everything()
    for training in (True, False):
        model.train(training)
        each = torch.stack([model.bits(_pixel(mixture), value.view(1, 1, 1)) for value in x.flatten()])
        assert (2.0 ** -each.double()).sum().item() == pytest.approx(1.0, abs=2e-3)


def test_the_mass_is_that_of_the_logistics() -> None:
    """By the formula, for one component away from the ends: σ((x + ½ − μ)/s) − σ((x − ½ − μ)/s)."""
    model, mean, scale = LogisticMixture().eval(), 100.25, math.exp(1.5)

    def sigmoid(t: float) -> float:
        return 1 / (1 + math.exp(-t / scale))

    for x in (90, 99, 100, 101, 110):
        mixture = Mixture(*(torch.full((1, 1, 1, 1), v) for v in (0.0, mean, 1.5)))
        bits = model.bits(mixture, torch.full((1, 1, 1), float(x))).item()
        assert bits == pytest.approx(-math.log2(sigmoid(x + 0.5 - mean) - sigmoid(x - 0.5 - mean)), abs=0.02)


def test_the_bits_teach_all_three_parameters() -> None:
    model, x = LogisticMixture().train(), plane(8, 8)
    parameters = [values.requires_grad_() for values in mixture_of(x)]
    model.bits(Mixture(*parameters), x).sum().backward()
    assert all(values.grad.abs().max() > 0 for values in parameters)


def test_bits_are_counted_for_each_image_by_itself() -> None:
    model, x = LogisticMixture(), torch.cat([plane(9, 9), plane(9, 9).flip(1)])
    parts = [mixture_of(x[:1]), mixture_of(x[1:], spread=30)]
    together = Mixture(*(torch.cat(values) for values in zip(*parts, strict=True)))
    for training in (True, False):
        model.train(training)
        apart = [model.bits(part, x[n : n + 1]).item() for n, part in enumerate(parts)]
        assert model.bits(together, x).tolist() == pytest.approx(apart, rel=1e-5)


def test_planes_of_more_than_one_chunk_come_back() -> None:
    model, x = LogisticMixture().eval(), plane(400, 400)
    assert x.numel() > coder.CHUNK
    mixture = mixture_of(x, components=1)
    strings = model.encode(mixture, x)
    assert torch.equal(model.decode(mixture, strings), x)
    with pytest.raises(BitstreamError, match="ends inside a chunk"):
        model.decode(mixture, [strings[0][:50], strings[1]])


def test_intervals_are_coded_as_the_tables_they_come_from() -> None:
    tables = torch.tensor([[0, 10, 300, 65536], [0, 60000, 65535, 65536]], dtype=torch.int32)
    index = torch.randint(0, 2, (5000,), generator=generator())
    symbols = torch.randint(0, 3, (5000,), generator=generator(1))
    lower, upper = tables[index, symbols], tables[index, symbols + 1]
    for coded in (coder.torchac_coder(), coder.NUMPY):
        assert coder.encode_intervals(lower, upper, coded) == coder.encode(symbols, index, tables, coded)


def test_the_counts_are_those_of_the_documented_formula() -> None:
    """docs/lossless_format.md, in Python's integers."""
    model, x = LogisticMixture().eval(), plane(3, 5)
    mixture = mixture_of(x, spread=60)
    ends = torch.arange(257, dtype=torch.int32).expand(15, -1)
    counts = model._cumulative(model.integers(mixture), ends).tolist()
    for n in range(15):
        logits, means, log_scales = (values.flatten(2)[0, :, n].tolist() for values in mixture)
        behind = [min(63, round(8 * (max(logits) - logit))) for logit in logits]
        weights = [model.weights[i].item() for i in behind]
        weights = [1024 * w // sum(weights) for w in weights]
        weights[behind.index(0)] += 1024 - sum(weights)
        expected = [0]
        for t in range(1, 256):
            total = 1024 * 32640
            for w, mean, log_scale in zip(weights, means, log_scales, strict=True):
                d = 16 * t - 8 - round(16 * mean)
                s = min(47, max(0, round(6 * (log_scale + 2.5))))
                total += w * (1 if d > 0 else -1) * model.rises[s, min(abs(d), 4096)].item()
            expected.append(total // 1024 + t)
        assert counts[n] == [*expected, 65536]


def test_changed_tables_are_noticed() -> None:
    model = LogisticMixture()
    assert model.tables_are_valid()
    model.rises[3, 100] += 5
    assert not model.tables_are_valid()


def _pixel(mixture: Mixture) -> Mixture:
    return Mixture(*(values[:, :, :1, :1] for values in mixture))
