"""Convolutions of bytes give the sums that convolutions of floats give, wherever they are used."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import generator
from torch import Tensor

from codec.networks import eight_bit
from codec.networks.eight_bit import (
    LARGEST_STEPS,
    EightBitConv2d,
    _bytes_are_exact,
    bytes_of,
    floats_of,
    in_floats,
)
from codec.networks.exact import CODE_MAX, SIGNED_ZERO, codes


@pytest.fixture
def with_bytes() -> None:
    if not _bytes_are_exact():
        pytest.skip("oneDNN does not add bytes exactly on this machine")


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


@torch.no_grad()
def test_signed_codes_are_added_up_as_well() -> None:
    made = EightBitConv2d(16, 24, 3, padding=1, signed=True).eval()
    torch.nn.init.normal_(made.weight, std=0.05, generator=generator(1))
    x, before = some_codes(2, 16, 9, 11) - SIGNED_ZERO, some_codes(2, 24, 9, 11, seed=5) - SIGNED_ZERO
    assert torch.equal(made(x).double(), in_doubles(made, x))
    assert torch.equal(made(bytes_of(x, signed=True)), made(x))
    assert torch.equal(made.coded(x).float(), codes(made(x)))
    coded = made.coded(x, before.clone(), signed=True)
    assert torch.equal(floats_of(coded, signed=True), codes(before + made(x), signed=True))
    assert int(floats_of(coded, signed=True).min()) == -SIGNED_ZERO
    with in_floats():
        assert torch.equal(made.coded(x, before, signed=True), floats_of(coded, signed=True))


@pytest.mark.usefixtures("with_bytes")
@torch.no_grad()
def test_bytes_follow_bytes() -> None:
    first, second, x = layer(8, 8), layer(8, 8, gain=0.02), some_codes(1, 8, 9, 9)
    coded = first.coded(x)
    assert coded.dtype == torch.uint8
    assert torch.equal(second(coded), second(coded.float()))


@pytest.mark.usefixtures("with_bytes")
@pytest.mark.parametrize("shape", [(16, 32, 1, 9), (32, 17, 1, 40), (32, 32, 3, 9), (32, 32, 3, 40)])
def test_bytes_of_which_one_sum_is_off_are_not_used(
    shape: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    convolved = eight_bit._convolved

    def off_by_one(x: Tensor, packed: eight_bit._Packed, *others: object, **zeros: int) -> Tensor:
        y = convolved(x, packed, *others, **zeros)
        if (x.shape[1], len(packed.steps), packed.weight.shape[2], x.shape[2]) == shape:
            y[0, 0, 0, 0] += 1 if y.dtype == torch.float32 else 0
        return y

    monkeypatch.setattr(eight_bit, "_convolved", off_by_one)
    assert not _bytes_are_exact.__wrapped__()


def test_where_onednn_has_no_such_convolution_floats_are_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("Unimplemented as onednn is not available")

    monkeypatch.setattr(eight_bit, "_packed", missing)
    monkeypatch.setattr(eight_bit, "_bytes_are_exact", _bytes_are_exact.__wrapped__)
    made, x = layer(8, 8), some_codes(1, 8, 9, 9)
    with torch.no_grad():
        assert torch.equal(made(x).double(), in_doubles(made, x))
        assert made.coded(x).dtype == torch.float32


def test_it_is_found_out_whatever_the_default_type_is() -> None:
    expected = _bytes_are_exact()
    try:
        torch.set_default_dtype(torch.float64)
        assert _bytes_are_exact.__wrapped__() == expected
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert _bytes_are_exact.__wrapped__() == expected


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
