"""Convolutions of bytes give the sums that convolutions of floats give, wherever they are used."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from torch import Tensor

from codec.networks.eight_bit import LARGEST_STEPS, EightBitConv2d, _bytes_are_exact
from codec.networks.exact import CODE_MAX, codes

BYTES = _bytes_are_exact()
needs_bytes = pytest.mark.skipif(not BYTES, reason="oneDNN does not add bytes exactly on this machine")


def layer(inputs: int, outputs: int, kernel: int = 3, gain: float = 0.05, bias: bool = True) -> EightBitConv2d:
    made = EightBitConv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    with torch.no_grad():
        made.weight.copy_(gain * torch.randn(made.weight.shape, generator=generator(1)))
        if bias:
            made.bias.copy_(torch.randn(outputs, generator=generator(2)))
    return made.eval()


def some_codes(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, CODE_MAX + 1, shape, generator=generator(seed)).float()


def in_doubles(layer: EightBitConv2d, x: Tensor) -> Tensor:
    weight, bias = layer.rounded()
    return F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=layer.padding)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "gain", "bias"),
    [(32, 32, 3, 0.05, True), (48, 17, 1, 1.0, True), (5, 3, 3, 30.0, False), (64, 64, 3, 1e-6, True)],
)
@torch.no_grad()
def test_sums_are_those_of_doubles(inputs: int, outputs: int, kernel: int, gain: float, bias: bool) -> None:
    made = layer(inputs, outputs, kernel, gain, bias)
    for x in (some_codes(2, inputs, 13, 18), torch.full((1, inputs, 6, 7), float(CODE_MAX))):
        found, wanted = made(x), in_doubles(made, x)
        assert found.dtype == torch.float32
        assert torch.equal(found.double(), wanted)
        with torch.backends.mkldnn.flags(enabled=False):
            assert torch.equal(made(x), found)


@torch.no_grad()
def test_codes_are_those_of_the_sums() -> None:
    made, x, before = layer(16, 16), some_codes(1, 16, 11, 9), some_codes(1, 16, 11, 9, seed=5)
    assert torch.equal(made.coded(x).float(), codes(made(x)))
    added = codes(before + made(x))
    assert torch.equal(made.coded(x, before.clone()).float(), added)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(made.coded(x, before), added)
        assert made.coded(x).dtype == torch.float32


@needs_bytes
@torch.no_grad()
def test_bytes_follow_bytes() -> None:
    first, second, x = layer(8, 8), layer(8, 8, gain=0.02), some_codes(1, 8, 9, 9)
    coded = first.coded(x)
    assert coded.dtype == torch.uint8
    assert torch.equal(second(coded), second(coded.float()))


@pytest.mark.parametrize("largest", [1.0, 126.5 / 128, 127 / 128, 0.0, 3e-7])
def test_no_weight_has_more_than_its_steps(largest: float) -> None:
    made = layer(4, 6, gain=0.1)
    with torch.no_grad():
        made.weight.clamp_(-largest, largest)
        made.weight[0, 0, 0, 0] = largest
        x = some_codes(1, 4, 8, 8)
        assert torch.equal(made(x).double(), in_doubles(made, x))
    weight, _ = made.rounded()
    _, exponent = torch.frexp(weight.abs().amax((1, 2, 3)).clamp(min=2**-20) / LARGEST_STEPS)
    # A multiple of the largest step that would do, or of half of it, is what each weight is.
    steps = weight / torch.ldexp(torch.ones(6), exponent - 1).view(-1, 1, 1, 1)
    assert torch.equal(steps, steps.round())
    assert (weight - made.weight).abs().max() <= 2**-20 + largest / 100


@torch.no_grad()
def test_packed_weights_follow_the_weights_and_are_not_copied() -> None:
    made, x = layer(8, 8), some_codes(1, 8, 9, 9)
    before = made(x)
    assert torch.equal(copy.deepcopy(made)(x), before)
    made.weight.mul_(2)
    assert torch.equal(made(x).double(), in_doubles(made, x))
    assert not torch.equal(made(x), before)


def test_gradients_are_those_of_floats() -> None:
    made, x = layer(8, 8), some_codes(1, 8, 9, 9)
    with torch.inference_mode():
        before = made(x)
    with_gradient = made(x.requires_grad_())
    assert torch.equal(with_gradient, before)
    with_gradient.sum().backward()
    assert bool(x.grad.any())
    made.train()(x).sum().backward()
    assert bool(made.weight.grad.any())
