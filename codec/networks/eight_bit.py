"""EightBitConv2d: an exact convolution of codes whose weights are bytes, which some CPUs add four times as fast."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codec.networks.exact import CODE_MAX, SIGNED_ZERO, ExactConv2d, codes, codes_, exact

LARGEST_STEPS = 127

_bytes: ContextVar[bool] = ContextVar("bytes", default=True)


@contextmanager
def in_floats() -> Iterator[None]:
    """Inside, floats are convolved everywhere: a nan stays one."""
    token = _bytes.set(False)
    try:
        yield
    finally:
        _bytes.reset(token)


class _Packed(NamedTuple):
    """A weight as oneDNN wants it, and what it was made of."""

    weight: Tensor  # float32 [O, I, h, w], of which
    inputs: int  # so many channels are in
    bytes_: Tensor  # int8, in an order of oneDNN's own
    steps: Tensor  # float32 [O]: what a channel's bytes count
    stride: list[int]


class EightBitConv2d(ExactConv2d):
    """An ExactConv2d of codes, 0…255, whose weights are at most 127 of their output channel's steps.

    Outside training its sums are the same on all machines. Where oneDNN adds products of bytes without loss (on x86
    with VNNI), and no gradients are wanted, it is given bytes; everywhere else floats are convolved: the same sums,
    not as fast. With `signed` it takes signed codes, -128…127, whose bytes are 128 more.
    """

    _packed: _Packed | None = None

    def __init__(self, *arguments: int, signed: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.signed = signed

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[B, I, H, W]`, codes, float or uint8; with fewer channels it counts as if the others were 0."""
        if not self._takes_bytes(x):
            return super().forward(floats_of(x, self.signed))
        weight, bias = self._weights()
        x, packed = bytes_of(x, self.signed), self._pack(weight, x.shape[1])
        return _convolved(x, packed, bias, self.padding, torch.float32, zero=_zero(self.signed))

    def taken(self, x: Tensor) -> Tensor:
        """Codes as this convolution takes them without a copy: uint8, channels last, where bytes are convolved."""
        return bytes_of(x, self.signed) if self._takes_bytes(x) else x

    def coded(
        self,
        x: Tensor,
        added: Tensor | None = None,
        signed: bool = False,
        rounded: tuple[Tensor, Tensor | None] | None = None,
    ) -> Tensor:
        """`codes` of what `forward` gives plus `added`, codes `[B, O, H, W]`: uint8 where bytes are convolved.

        `added`, if uint8, channels last and dense, may be written over. `signed`: what is added, and the result. In
        place of its own weights it convolves with `rounded`, which `exact` has made.
        """
        if not self._takes_bytes(x):
            x = floats_of(x, self.signed)
            y = self(x) if rounded is None else self._conv_forward(x, *rounded)
            return codes(y if added is None else floats_of(added, signed) + y, signed)
        weight, bias = self._weights() if rounded is None else rounded
        x, packed = bytes_of(x, self.signed), self._pack(weight, x.shape[1])
        added = None if added is None else bytes_of(added, signed)
        zeros = _zero(signed), _zero(signed), _zero(self.signed)
        return _convolved(x, packed, bias, self.padding, torch.uint8, added, *zeros)

    def rounded(self) -> tuple[Tensor, Tensor | None]:
        return exact(*self.as_is(), CODE_MAX, LARGEST_STEPS)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_packed": None}  # what oneDNN packed cannot be copied

    def _takes_bytes(self, x: Tensor) -> bool:
        return not self.training and takes_bytes(x.device)

    def _pack(self, weight: Tensor, inputs: int) -> _Packed:
        kept = self._packed
        if kept is None or kept.weight is not weight or kept.inputs != inputs:
            kept = self._packed = _packed(weight, inputs, self.stride)
        return kept


class ExactWeights:
    """A weight `[O, I, h, w]` and bias `[O]` that codes are convolved with, rounded as EightBitConv2d's are.

    What rounding takes from weights of codes that are `means` `[I]` on average is given to the bias (Nagel et al.
    2019, https://arxiv.org/abs/1906.04721, 4.2).
    """

    def __init__(self, weight: Tensor, bias: Tensor, means: Tensor, stride: int = 1, padding: int = 0) -> None:
        rounded, _ = exact(weight, bias, CODE_MAX, LARGEST_STEPS)
        lost = (weight - rounded).sum((2, 3)) @ means
        self.weight, self.bias = exact(weight, bias + lost, CODE_MAX, LARGEST_STEPS)
        self.stride, self.padding = (stride, stride), (padding, padding)
        self._packed: _Packed | None = None

    def sums(self, x: Tensor) -> Tensor:
        """Of codes `[B, I, H, W]`, which are bytes or floats: floats."""
        if x.dtype == torch.uint8:
            return self._of_bytes(x, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return torch.nn.functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def coded(self, x: Tensor, signed: bool = False, added: Tensor | None = None) -> Tensor:
        """`codes` of the sums, bytes if `x` is, to which signed codes may be `added`, which may be written over."""
        if x.dtype == torch.uint8:
            return self._of_bytes(x, torch.uint8, added, _zero(added is not None), _zero(signed))
        sums = self.sums(x) if added is None else self.sums(x).add_(added)
        return codes_(sums, signed)

    def _of_bytes(self, x: Tensor, kind: torch.dtype, *added: Any) -> Tensor:
        if self._packed is None:
            self._packed = _packed(self.weight, self.weight.shape[1], self.stride)
        return _convolved(x, self._packed, self.bias, self.padding, kind, *added)


def takes_bytes(device: torch.device) -> bool:
    """Whether codes are bytes there: no gradient is wanted, and oneDNN adds products of bytes without loss."""
    if torch.is_grad_enabled() or device.type != "cpu" or not _bytes.get():
        return False
    return torch.backends.mkldnn.enabled and _bytes_are_exact()


def bytes_of(x: Tensor, signed: bool = False) -> Tensor:
    """Codes as bytes, channels last."""
    if signed and x.dtype != torch.uint8:
        x = x + SIGNED_ZERO
    return x.to(torch.uint8, memory_format=torch.channels_last)


def floats_of(x: Tensor, signed: bool = False) -> Tensor:
    """Codes, which may be bytes, as floats."""
    return x.float() - SIGNED_ZERO if signed and x.dtype == torch.uint8 else x.float()


@functools.cache
def _bytes_are_exact() -> bool:
    """Tried with large sums: CPUs without VNNI add two products in 16 bits, and nothing says what is lost."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        # oneDNN has ways of its own for some shapes. Priors pad what is strided themselves.
        shapes = [
            *product((16, 32), (17, 32), (1, 3), (9, 40)),
            *product((1, 3, 9), (2, 32), (3, 5), (9, 40), (2,), (0,)),
            *product((16, 33), (12, 64), (2,), (9, 40), (1,), (1,)),
            *product((16, 33), (12,), (4,), (10, 40), (2,), (1,)),
        ]
        signed = ((16, 32, 1, 9), (17, 32, 3, 40), (64, 64, 3, 9), (32, 12, 3, 9))
        return all(_is_exact(*shape) for shape in shapes) and all(_is_exact(*s, signed=True) for s in signed)
    except (AttributeError, RuntimeError):  # not in this torch, or not on this machine
        return False


def _is_exact(
    inputs: int,
    outputs: int,
    kernel: int,
    side: int,
    stride: int = 1,
    padding: int | None = None,
    signed: bool = False,
) -> bool:
    generator, floats = torch.Generator().manual_seed(0), {"dtype": torch.float32, "device": "cpu"}
    x = CODE_MAX * torch.randint(0, 2, (1, inputs, side, side), generator=generator, device="cpu") - _zero(signed)
    weight = torch.randint(-1, 2, (outputs, inputs, kernel, kernel), generator=generator, device="cpu")
    weight = weight.to(**floats) * (LARGEST_STEPS / 4096)
    weight[0] = LARGEST_STEPS / 4096
    bias, margin = torch.full((outputs,), 0.5, **floats), kernel // 2 if padding is None else padding
    padding = margin, margin
    sums = torch.nn.functional.conv2d(x.to(**floats), weight, bias, stride, padding)
    before = CODE_MAX - torch.arange(sums.numel(), device="cpu").view(sums.shape) % 200 - _zero(signed)
    x, packed = bytes_of(x, signed), _packed(weight, inputs, (stride, stride))

    def coded(added: Tensor | None, *zeros: int) -> Tensor:
        return floats_of(_convolved(x, packed, bias, padding, torch.uint8, added, *zeros, _zero(signed)), signed)

    zero, moved = _zero(signed), (before - SIGNED_ZERO).clamp(min=-SIGNED_ZERO)
    found = _convolved(x, packed, bias, padding, torch.float32, zero=zero)
    return (
        torch.equal(found, sums)
        and torch.equal(coded(None, zero, zero), codes(sums, signed))
        and torch.equal(coded(bytes_of(before, signed), zero, zero), codes(before + sums, signed))
        and torch.equal(coded(None, zero, SIGNED_ZERO) + zero - SIGNED_ZERO, codes(sums, signed=True))
        and torch.equal(coded(bytes_of(moved, True), SIGNED_ZERO, zero), codes(moved + sums, signed))
    )


def _zero(signed: bool) -> int:
    return SIGNED_ZERO if signed else 0


def _packed(weight: Tensor, inputs: int, stride: Sequence[int] = (1, 1)) -> _Packed:
    # The smallest power of two that is enough: the weights are multiples of it, as they are of their own step.
    mantissa, exponent = torch.frexp(weight.abs().amax((1, 2, 3)) / LARGEST_STEPS)
    steps = torch.ldexp(torch.ones_like(mantissa), exponent - (mantissa == 0.5).int())
    whole = (weight[:, :inputs] / steps.view(-1, 1, 1, 1)).to(torch.int8)
    bytes_ = torch.ops.onednn.qconv_prepack(whole, steps, 1.0, 0, list(stride), [0, 0], [1, 1], 1, None)
    return _Packed(weight, inputs, bytes_, steps, list(stride))


def _convolved(
    x: Tensor,
    packed: _Packed,
    bias: Tensor | None,
    padding: tuple[int, ...],
    kind: torch.dtype,
    added: Tensor | None = None,
    zero_of_added: int = 0,
    zero_of_result: int = 0,
    zero: int = 0,
) -> Tensor:
    """Sums as they are (float32), or, plus `added`, which is written over, rounded and clamped (uint8).

    `zero…`: the byte that is 0 in what is added, in the result, in `x`.
    """
    zeros = packed.steps.new_zeros(len(packed.steps), dtype=torch.int32)
    given = (x, 1.0, zero, packed.bytes_, packed.steps, zeros)
    shape = (bias, packed.stride, padding, [1, 1], 1, 1.0, zero_of_result, kind)
    if added is None:
        return torch.ops.onednn.qconv2d_pointwise(*given, *shape, "none", [], "")
    summed = (added, *shape, 1.0, zero_of_added, "sum", 1.0, "none", [], "")
    return torch.ops.onednn.qconv2d_pointwise.binary(*given, *summed)
