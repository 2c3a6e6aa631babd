"""EightBitConv2d: an exact convolution of codes whose weights are bytes, which some CPUs add four times as fast."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.networks.exact import CODE_MAX, ExactConv2d, exact

LARGEST_STEPS = 127


class EightBitConv2d(ExactConv2d):
    """An ExactConv2d of codes, 0…255, whose weights are at most 127 of their output channel's steps.

    Outside training the sums are the same on all machines. Where oneDNN adds products of bytes without loss (on
    x86 with VNNI), without gradients, it is given bytes; everywhere else floats are convolved, which are those sums
    too, if not as fast.
    """

    _packed: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`x` `[B, I, H, W]`, of any type that holds codes."""
        weight, bias = self._weights()
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu" or not bytes_are_exact():
            return self._conv_forward(x, weight, bias)
        if self._packed is None or self._packed[0] is not weight:
            self._packed = weight, *_pack(weight)
        return _convolve(x, *self._packed[1:], bias, self.padding)

    def rounded(self) -> tuple[Tensor, Tensor | None]:
        return exact(*self.as_is(), CODE_MAX, LARGEST_STEPS)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # what is packed for this machine cannot be copied


def bytes_are_exact() -> bool:
    """Whether sums of products of bytes are what they should be here, and oneDNN is to be used at all."""
    return torch.backends.mkldnn.enabled and _largest_sums_are_right()


@functools.cache
def _largest_sums_are_right() -> bool:
    """CPUs without VNNI add two products in 16 bits, and lose what is beyond; oneDNN does not say so."""
    x = torch.full((1, 64, 9, 9), float(CODE_MAX))
    x[..., ::2, 1::3] = 1
    weight = torch.full((32, 64, 3, 3), float(LARGEST_STEPS))
    weight[::3] *= -1
    try:
        sums = _convolve(x, *_pack(weight / 8), torch.full((32,), 0.125), (1, 1))
    except (AttributeError, RuntimeError):  # not in this torch, or not on this machine
        return False
    return torch.equal(sums, F.conv2d(x, weight / 8, torch.full((32,), 0.125), padding=1))


def _pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """What oneDNN wants of a weight `[O, I, h, w]`: its bytes in an order of its own, and each channel's step."""
    # The smallest power of two that is enough: the weights are multiples of it, as they are of their own step.
    mantissa, exponent = torch.frexp(weight.abs().amax((1, 2, 3)) / LARGEST_STEPS)
    steps = torch.ldexp(torch.ones_like(mantissa), exponent - (mantissa == 0.5).int())
    whole = (weight / steps.view(-1, 1, 1, 1)).to(torch.int8)
    return torch.ops.onednn.qconv_prepack(whole, steps, 1.0, 0, [1, 1], [0, 0], [1, 1], 1, None), steps


def _convolve(x: Tensor, packed: Tensor, steps: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
    zeros = torch.zeros(len(steps), dtype=torch.int32)
    return torch.ops.onednn.qconv2d_pointwise(
        x.to(torch.uint8), 1.0, 0, packed, steps, zeros, bias, [1, 1], padding, [1, 1], 1, 1.0, 0, torch.float32,
        "none", [], "",
    )  # fmt: skip
