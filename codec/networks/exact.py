"""Convolutions of integers whose results are the same on every machine, for decoders that predict probabilities.

Floats differ between machines only where sums are rounded, because each machine adds in an order of its own. Here
no sum is: inputs are integers, weights are rounded to multiples of a power of two, and the power is chosen so that
no sum needs more than the 24 bits a float32 holds. Whatever the order, threads or vector width, the result is the
same to the last bit, at the speed of ordinary convolutions.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.errors import ConfigError, UserError
from codec.networks.kept import Kept
from codec.networks.modes import quick_layout

# A code is an activation: an integer from 0 to 255 that stands for a sixteenth of itself; a signed one is 128 less.
CODE_MAX = 255
SIGNED_ZERO = 128
CODE_UNIT = 16

_FLOAT32_BITS = 24
WEIGHT_STEPS = 1 << 20
_LARGEST_WEIGHT = 1 << 20


class UnusableWeightsError(UserError, ValueError):
    """Weights that no file can be coded with, as where a training went wrong."""


@contextmanager
def exact_kernels(device_type: str) -> Iterator[None]:
    """Full precision, and no cuDNN, which may convolve by methods that round between integers."""
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device_type, enabled=False), torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32


class _Exact(Kept):
    """A convolution whose weights are rounded in evaluation mode: once, where no gradient is wanted of them."""

    @abstractmethod
    def as_is(self) -> tuple[Tensor, Tensor | None]:
        """What is convolved with in training: weight and scaled bias."""

    @abstractmethod
    def rounded(self) -> tuple[Tensor, Tensor | None]:
        """What is convolved with in evaluation mode. Raises ValueError if the weights are not usable."""

    def _weights(self) -> tuple[Tensor, Tensor | None]:
        if self.training:
            return self.as_is()
        if torch.is_grad_enabled():
            return self.rounded()
        # parameters() would take longer than many of the convolutions do.
        return self.kept((self.weight,) if self.bias is None else (self.weight, self.bias), self.rounded)


class ExactConv2d(_Exact, nn.Conv2d):
    """A convolution of integers, |x| ≤ `reach`; `scale` multiplies the bias.

    In evaluation mode weights and bias are those of `exact`, so that the output, a float32, is the exact sum.
    In training they are as they are; autocast may round them.
    """

    def __init__(self, *arguments: int, reach: int = CODE_MAX, scale: float = CODE_UNIT, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.reach = reach
        self.scale = scale
        _check_terms(self.weight[0].numel(), reach)

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[B, I, H, W]`; with fewer channels, at least one, it counts as if the others were 0."""
        weight, bias = self._weights()
        if x.shape[1] < weight.shape[1]:
            weight = weight[:, : x.shape[1]]
        if x.shape[1] == 1 and x.device.type == "cpu":  # oneDNN takes ten times as long as for two
            x, weight = (F.pad(values, (0, 0, 0, 0, 0, 1)) for values in (x, weight))
        return self._conv_forward(quick_layout(x), weight, bias)

    def whole(self, x: Tensor, unit: float = 1.0) -> Tensor:
        """`whole` of what `forward` gives."""
        y = self(x)
        if y.requires_grad:
            return whole(y, unit)
        if unit == 1:
            return y.add_(0.5).floor_()
        return y.mul_(unit).add_(0.5).floor_().mul_(1 / unit)

    def as_is(self) -> tuple[Tensor, Tensor | None]:
        return self.kernel(), None if self.bias is None else self.scale * self.bias

    def rounded(self) -> tuple[Tensor, Tensor | None]:
        return exact(*self.as_is(), self.reach)

    def kernel(self) -> Tensor:
        """What is convolved with: the weight, unless a subclass makes it another way."""
        return self.weight


class ExactUpConv2d(_Exact, nn.ConvTranspose2d):
    """A transposed convolution 4×4 of codes that doubles height and width, exact as ExactConv2d is."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._weights()
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)

    def as_is(self) -> tuple[Tensor, Tensor | None]:
        return self.weight, CODE_UNIT * self.bias

    def rounded(self) -> tuple[Tensor, Tensor | None]:
        return exact_transposed(*self.as_is(), CODE_MAX, stride=2)


def codes(x: Tensor, signed: bool = False) -> Tensor:
    """The ReLU of this arithmetic: `x` rounded and clamped to 0…255; its gradient is 1 inside, 0 outside.

    `signed`: to -128…127.
    """
    lowest = -SIGNED_ZERO if signed else 0
    return _Codes.apply(x, lowest, lowest + CODE_MAX)


def codes_(x: Tensor, signed: bool = False) -> Tensor:
    """`codes`, written over `x` where no gradient is wanted."""
    if torch.is_grad_enabled():
        return codes(x, signed)
    lowest = -SIGNED_ZERO if signed else 0
    return x.clamp_(lowest, lowest + CODE_MAX).round_()


def whole(x: Tensor, unit: float = 1.0) -> Tensor:
    """`x` rounded to multiples of 1/`unit`, a power of two, so that sums of such are exact; its gradient is 1."""
    return _Whole.apply(x, unit)


def exact(
    weight: Tensor, bias: Tensor | None, reach: int, most_steps: int | None = None
) -> tuple[Tensor, Tensor | None]:
    """`weight` `[O, I, h, w]` and `bias` `[O]`, rounded so that all sums over integers |x| ≤ `reach` are exact.

    Each output channel has its own power of two as a step, the smallest of which |bias| + Σ|weight|·reach is less
    than 2^24, and, if `most_steps` is given, no weight more than so many. Raises ValueError if a weight or bias is
    not finite, or is 2^20 or larger.
    """
    magnitude, coarsest = _magnitude(weight), None
    if most_steps is not None:
        coarsest = torch.frexp(magnitude.amax((1, 2, 3)).double() / WEIGHT_STEPS / most_steps)[1]
    return _rounded(weight, bias, magnitude.sum((1, 2, 3)), weight[0].numel(), reach, (-1, 1, 1, 1), coarsest)


def exact_transposed(weight: Tensor, bias: Tensor | None, reach: int, stride: int) -> tuple[Tensor, Tensor | None]:
    """`exact` for the weight `[I, O, h, w]` of a transposed convolution; h and w are multiples of `stride`."""
    inputs, outputs, height, width = weight.shape
    # A pixel meets the weights of one offset modulo the stride only.
    met = _magnitude(weight).view(inputs, outputs, height // stride, stride, width // stride, stride)
    terms = inputs * (height // stride) * (width // stride)
    return _rounded(weight, bias, met.sum((0, 2, 4)).amax((1, 2)), terms, reach, (1, -1, 1, 1))


def integers_of(weight: Tensor) -> Tensor:
    """`weight` in steps of 2^-20, int64 on the CPU: their sums depend on no order. Raises ValueError as `exact`."""
    values = weight.detach().cpu().double()  # not every device has float64
    if not bool((values.abs() < _LARGEST_WEIGHT).all()):  # nan is not smaller than anything
        raise UnusableWeightsError("the weights hold nan, inf or numbers from a million: they are not usable")
    return (values * WEIGHT_STEPS).round().long()


def _magnitude(weight: Tensor) -> Tensor:
    return integers_of(weight).abs() + 1


def _rounded(
    weight: Tensor,
    bias: Tensor | None,
    magnitude: Tensor,
    terms: int,
    reach: int,
    shape: tuple[int, ...],
    coarsest: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`coarsest`, if given: exponents of the steps, which are not to be smaller."""
    _check_terms(terms, reach)
    largest = magnitude.double() / WEIGHT_STEPS * reach
    if bias is not None:
        largest = largest + _magnitude(bias).double() / WEIGHT_STEPS
    # Rounding may add half a step a term: half of the range is kept for that.
    exponent = torch.frexp(largest)[1] + 1 - _FLOAT32_BITS
    if coarsest is not None:
        exponent = torch.maximum(exponent, coarsest)
    step = torch.ldexp(torch.ones_like(largest), exponent).float().to(weight.device)
    rounded = (weight / step.view(shape)).round() * step.view(shape)
    return rounded, None if bias is None else (bias / step).round() * step


def _check_terms(terms: int, reach: int) -> None:
    if terms * reach >= 1 << _FLOAT32_BITS:
        raise ConfigError(
            f"a convolution of {terms} terms up to {reach} cannot be added up exactly: use fewer channels"
        )


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor, unit: float) -> Tensor:
        if unit == 1:
            return (x + 0.5).floor_()
        return (x * unit).add_(0.5).floor_().mul_(1 / unit)

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Codes(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, x: Tensor, lowest: int, highest: int) -> Tensor:
        context.save_for_backward(x)
        context.range = float(lowest), float(highest)
        return x.clamp(lowest, highest).round_()

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = context.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, x, *context.range), None, None
