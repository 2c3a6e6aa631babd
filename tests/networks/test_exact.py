"""Convolutions of integers give the same bits whatever adds them up, and in whatever order."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from torch import Tensor, nn

from codec.networks.exact import CODE_MAX, ExactConv2d, ExactUpConv2d, codes, exact, exact_transposed
from codec.networks.pixel_predictor import _DifferenceConv2d


def integers(*shape: int, low: int = 0, high: int = CODE_MAX, seed: int = 0) -> Tensor:
    return torch.randint(low, high + 1, shape, generator=generator(seed)).float()


def shuffled_terms(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The same sum with its terms in another order."""
    order = torch.randperm(x.shape[1], generator=generator(3))
    return x[:, order], weight[:, order]


@pytest.mark.parametrize("gain", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("width", [3, 64, 200])
def test_a_float32_sum_is_the_float64_sum_in_any_order(width: int, gain: float) -> None:
    x = integers(2, width, 17, 19)
    weight, bias = exact(gain * torch.randn(8, width, 3, 3, generator=generator()), torch.randn(8), CODE_MAX)
    single = F.conv2d(x, weight, bias)
    assert torch.equal(single.double(), F.conv2d(x.double(), weight.double(), bias.double()))
    assert torch.equal(single, F.conv2d(*shuffled_terms(x, weight), bias))


def test_ordinary_weights_do_depend_on_the_order() -> None:
    """Else the test above would say nothing."""
    x, weight = integers(2, 64, 17, 19), torch.randn(8, 64, 3, 3, generator=generator())
    assert not torch.equal(F.conv2d(x, weight), F.conv2d(*shuffled_terms(x, weight)))


def test_the_largest_inputs_and_weights_of_one_sign_are_exact_too() -> None:
    x = torch.full((1, 64, 5, 5), float(CODE_MAX))
    weight, bias = exact(torch.rand(4, 64, 3, 3, generator=generator()) + 1, torch.full((4,), 1e5), CODE_MAX)
    assert torch.equal(F.conv2d(x, weight, bias).double(), F.conv2d(x.double(), weight.double(), bias.double()))


def test_weights_are_rounded_by_little() -> None:
    weight = torch.randn(8, 32, 3, 3, generator=generator())
    rounded, _ = exact(weight, None, CODE_MAX)
    assert (rounded - weight).abs().max() < 0.01
    assert not torch.equal(rounded, weight)


@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (8, 8), (24, 8)])
def test_a_transposed_convolution_is_exact(kernel: int, stride: int) -> None:
    x = integers(1, 48, 6, 5, low=-128, high=128)
    weight, _ = exact_transposed(torch.randn(48, 3, kernel, kernel, generator=generator()), None, 128, stride)
    single = F.conv_transpose2d(x, weight, stride=stride)
    assert torch.equal(single.double(), F.conv_transpose2d(x.double(), weight.double(), stride=stride))


def test_layers_are_exact_in_evaluation_and_learn_in_training() -> None:
    for layer in (ExactConv2d(8, 4, 3, padding=1), ExactUpConv2d(8, 4)):
        x = integers(1, 8, 6, 6)
        layer.eval()
        single = layer(x)
        assert torch.equal(single.double(), layer.double()(x.double()))
        layer.float().train()
        layer(x).sum().backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in layer.parameters())
        assert torch.allclose(layer(x), single, atol=1)


LAYERS = [
    lambda: ExactConv2d(8, 4, 3, padding=1),
    lambda: ExactUpConv2d(8, 4),
    lambda: _DifferenceConv2d([0, 1, 2, 0, 1, 2, 0, 1], 4, bias=True),
]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param().eval()


@torch.no_grad()
def test_weights_are_rounded_once_until_they_change(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x, rounded, roundings = integers(1, 8, 6, 6), type(layer).rounded, []
    monkeypatch.setattr(type(layer), "rounded", lambda self: roundings.append(0) or rounded(self))

    def swap_behind_versions() -> None:  # as weight averaging does, between one mode and the other
        layer.train()
        layer.weight.data.copy_(layer.weight * 3)
        layer.eval()

    def halve() -> None:
        layer.half().float()

    changes = [
        lambda: layer.weight.mul_(2),
        lambda: layer.bias.add_(1),
        lambda: layer.load_state_dict({name: tensor / 3 for name, tensor in layer.state_dict().items()}),
        swap_behind_versions,
        halve,
    ]
    for n, change in enumerate(changes, 1):
        before = layer(x)
        assert torch.equal(layer(x), before)
        assert len(roundings) == n
        change()
        fresh = copy.deepcopy(layer)
        fresh._kept = None
        assert not torch.equal(layer(x), before)
        assert torch.equal(layer(x), fresh(x))
        roundings.pop()  # the copy's


def test_with_gradients_a_layer_gives_what_it_gives_without(layer: nn.Module) -> None:
    with torch.inference_mode():
        before = layer(integers(1, 8, 6, 6))
    for _ in range(2):
        x = integers(1, 8, 6, 6).requires_grad_()
        y = layer(x)
        assert torch.equal(y, before)
        y.sum().backward()
        assert bool(x.grad.any())


@pytest.mark.parametrize("training", [True, False])
def test_channels_that_are_left_out_count_as_zeros(training: bool) -> None:
    layer, x = ExactConv2d(8, 5, 3, stride=2).train(training), integers(2, 8, 9, 10)
    x[:, 3:] = 0
    assert torch.allclose(layer(x[:, :3]), layer(x), rtol=1e-5 if training else 0)


def test_codes_round_and_clamp_and_pass_the_gradient_inside() -> None:
    x = torch.tensor([-3.0, 0.4, 7.6, 254.7, 300.0], requires_grad=True)
    y = codes(x)
    y.sum().backward()
    assert y.tolist() == [0, 0, 8, 255, 255]
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="nan"):
        exact(torch.full((1, 1, 1, 1), float("nan")), None, CODE_MAX)
