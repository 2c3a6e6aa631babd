"""WaveletUNet: what the quantiser took from a wavelet pyramid, as a U-Net predicts it, at any rate."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.blocks import companded, quick_layout, zero_
from codec.networks.rate import KNOTS, nearness_to_knots

# What is predicted is counted in quarters of the quantiser's step.
_UNIT = 0.25


class WaveletUNet(nn.Module):
    """A U-Net at 1/2 and 1/4 of the resolution, which sees what the wavelet gives and the levels of its details.

        base, 2×2 pixels as channels ─ 3×3 ─┬─ block ─────────────────── + ─ blocks ─ 3×3 ─ 2×2 pixels · step / 4
        levels of 1/2 ───────────────────┘  ├─ 2×2, stride 2             │
        levels of 1/4 ─ 3×3 ─────────────── + ─ blocks ─ 2×2 transposed ─┘

    `base` `[B, C, H, W]` is the wavelet's own reconstruction, and the result, as large, is to be added to it. The
    last two of `levels` are the decoded details `[B, 3C, H/4, W/4]` and `[B, 3C, H/2, W/2]` in units of the
    quantiser's `step`, `[B, 1, 1, 1]` or a number; `quality` `[B]`, 0–100, sets the scale and shift of every
    block's features. The last convolution starts at zero.
    """

    def __init__(self, image_channels: int, widths: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        half, quarter = widths
        details = 3 * image_channels
        self.stem = nn.Conv2d(4 * image_channels + details, half, 3, padding=1)
        self.quarter_levels = nn.Conv2d(details, quarter, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.down_half = RatedBlocks(half, 1)
        self.middle = RatedBlocks(quarter, 4)
        self.up_half = RatedBlocks(half, 2)
        self.head = zero_(nn.Conv2d(half, 4 * image_channels, 3, padding=1))

    def forward(self, base: Tensor, levels: Sequence[Tensor], step: Tensor | float, quality: Tensor) -> Tensor:
        quarter, half = (quick_layout(companded(level)) for level in levels[-2:])
        rate = nearness_to_knots(quality)
        image = quick_layout(4 * F.pixel_unshuffle(base - 0.5, 2))
        half = self.down_half(self.stem(torch.cat([image, half], 1)), rate)
        quarter = self.middle(self.to_quarter(half) + self.quarter_levels(quarter), rate)
        half = self.up_half(half + self.from_quarter(quarter), rate)
        return F.pixel_shuffle(self.head(half).float(), 2) * (step * _UNIT)


class RatedBlocks(nn.ModuleList):
    """`count` residual blocks, `[B, C, h, w]` → the same; `rate` `[B, told, 1, 1]` as of `nearness_to_knots`."""

    def __init__(self, channels: int, count: int, told: int = KNOTS) -> None:
        super().__init__(_RatedBlock(channels, told) for _ in range(count))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        for block in self:
            x = block(x, rate)
        return x


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
