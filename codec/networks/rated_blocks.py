"""Residual blocks whose features a rate scales and shifts: of floats, and of codes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.blocks import zero_
from codec.networks.eight_bit import LARGEST_STEPS, EightBitConv2d
from codec.networks.exact import CODE_MAX, CODE_UNIT, codes, exact, integers_of
from codec.networks.rate import KNOTS

_RATES = 8  # whose weights are kept at once


class _Blocks(nn.ModuleList):
    def __init__(self, count: int, make: Callable[[], nn.Module]) -> None:
        super().__init__(make() for _ in range(count))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        for block in self:
            x = block(x, rate)
        return x


class RatedBlocks(_Blocks):
    """`count` residual blocks, `[B, C, h, w]` → the same; `rate` `[B, told, 1, 1]` as of `nearness_to_knots`."""

    def __init__(self, channels: int, count: int, told: int = KNOTS) -> None:
        super().__init__(count, lambda: _RatedBlock(channels, told))


class CodedBlocks(_Blocks):
    """As RatedBlocks, of signed codes, `[B, C, h, w]` → the same (see `EightBitConv2d`)."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(count, lambda: _CodedBlock(channels))


class _RatedBlock(nn.Module):
    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = zero_(nn.Conv2d(told, 2 * channels, 1, bias=False))
        self.second = zero_(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        scale, shift = self.modulation(rate).chunk(2, dim=1)
        if len(x) > 1 or torch.is_grad_enabled():
            return x + self.second(torch.addcmul(shift, self.first(x), 1 + scale).relu_())
        # Of one image the modulation is a part of the convolution, and nothing is kept for a gradient.
        factor = 1 + scale.flatten()
        weight, bias = self.first.weight * factor.view(-1, 1, 1, 1), self.first.bias * factor + shift.flatten()
        return self.second(F.conv2d(x, weight, bias, padding=1).relu_()).add_(x)


class _CodedBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _ModulatedConv2d(channels)
        self.second = zero_(EightBitConv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        return self.second.coded(self.first.modulated(x, rate), added=x, signed=True)


class _ModulatedConv2d(EightBitConv2d):
    """A 3×3 convolution of signed codes to codes, whose sums a rate scales and shifts."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, signed=True)
        self.modulation = zero_(nn.Conv2d(KNOTS, 2 * channels, 1, bias=False))

    def modulated(self, x: Tensor, rate: Tensor) -> Tensor:
        if self.training:
            scale, shift = self.modulation(rate).chunk(2, dim=1)
            return codes(torch.addcmul(CODE_UNIT * shift, self(x), 1 + scale))
        # The modulation is a part of the convolution, each image's own.
        each = [self.coded(x[n : n + 1], rounded=self._rounded_at(rate[n : n + 1])) for n in range(len(x))]
        return each[0] if len(each) == 1 else torch.cat(each)

    def rounded(self) -> tuple[Tensor, Tensor | None]:
        """As EightBitConv2d's; raises UnusableWeightsError for those of any rate, too."""
        scale, shift = self.modulation.weight.abs().amax((1, 2, 3)).chunk(2)  # a rate is a mean of its knots'
        weight, bias = self.as_is()
        for largest in (weight * (1 + scale).view(-1, 1, 1, 1), bias.abs() * (1 + scale) + CODE_UNIT * shift):
            integers_of(largest)
        return super().rounded()

    def _rounded_at(self, rate: Tensor) -> tuple[Tensor, Tensor]:
        by_rate = self.kept((self.weight, self.bias, self.modulation.weight), dict)
        key = tuple(rate.flatten().tolist())
        rounded = by_rate.get(key)
        if rounded is None:
            with torch.inference_mode(False), torch.no_grad():  # they may be used with a gradient later
                scale, shift = self.modulation(rate.clone()).flatten().chunk(2)
                weight, bias = self.as_is()
                weight, bias = weight * (1 + scale).view(-1, 1, 1, 1), bias * (1 + scale) + CODE_UNIT * shift
                rounded = exact(weight, bias, CODE_MAX, LARGEST_STEPS)
            if len(by_rate) == _RATES:
                by_rate.clear()
            by_rate[key] = rounded
        return rounded
