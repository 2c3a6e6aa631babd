"""The networks around a wavelet: what an encoder changes of its coefficients, and a decoder of its image.

Both know the quantiser's step, so that they do what suits the rate.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.blocks import companded, zero_
from codec.networks.rate import KNOTS, nearness_to_knots

# What the networks give is counted in quarters of the quantiser's step.
_UNIT = 0.25


class WaveletResNet(nn.Module):
    """What to add to the details that a wavelet has at 1/2, 1/4 and 1/8: as a transform bends to its image.

        image, 2×2 pixels as channels ── 3×3 ── block ──┬──────────────── 3×3 · step / 4 ── of 1/2
        details of 1/2 ────────────────────┘            └ 2×2, stride 2
        details of 1/4 ── 3×3 ───────────────────────────── + ── blocks ──┬── 3×3 · step / 4 ── of 1/4
        details of 1/8 ── 3×3 ── + ── blocks ── 3×3 · step / 4 ── of 1/8  └ 2×2, stride 2

    `x` `[B, C, H, W]` is the image; of the wavelet's `pyramid` the last three tensors, `[B, 3C, H/8, W/8]` …
    `[B, 3C, H/2, W/2]`, get something added. `step`, `[B, 1, 1, 1]` or a number, is the quantiser's; `quality`
    `[B]`, 0–100, sets the scale and shift of every block's features. The last convolutions start at zero.
    """

    def __init__(self, image_channels: int, widths: Sequence[int] = (24, 48, 96)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        details = 3 * image_channels
        self.stem = nn.Conv2d(4 * image_channels + details, half, 3, padding=1)
        self.quarter_details = nn.Conv2d(details, quarter, 3, padding=1)
        self.eighth_details = nn.Conv2d(details, eighth, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.at_half = RatedBlocks(half, 1)
        self.at_quarter = RatedBlocks(quarter, 2)
        self.at_eighth = RatedBlocks(eighth, 2)
        self.heads = nn.ModuleList(zero_(nn.Conv2d(width, details, 3, padding=1)) for width in widths)

    def forward(self, x: Tensor, pyramid: Sequence[Tensor], step: Tensor | float, quality: Tensor) -> list[Tensor]:
        """The pyramid as it is to be quantised."""
        *coarser, of_eighth, of_quarter, of_half = pyramid
        eighth, quarter, half = (companded(details / step) for details in pyramid[-3:])
        rate = nearness_to_knots(quality)
        half = self.at_half(self.stem(torch.cat([4 * F.pixel_unshuffle(x - 0.5, 2), half], 1)), rate)
        quarter = self.at_quarter(self.to_quarter(half) + self.quarter_details(quarter), rate)
        eighth = self.at_eighth(self.to_eighth(quarter) + self.eighth_details(eighth), rate)
        changed = zip(self.heads, (half, quarter, eighth), (of_half, of_quarter, of_eighth), strict=True)
        finest_first = [details + head(h).float() * (step * _UNIT) for head, h, details in changed]
        return [*coarser, *reversed(finest_first)]


class WaveletUNet(nn.Module):
    """A U-Net from 1/2 to 1/8 of the resolution, which sees what the wavelet gives and the levels of its details.

        base, 2×2 pixels as channels ── 3×3 ──┬─ block ───────────────── + ─ blocks ── 3×3 ── 2×2 pixels · step / 4
        levels of 1/2 ─────────────────────┘  ├─ 2×2, stride 2           │
        levels of 1/4 ── 3×3 ──────────────── + ── blocks ──────── + ─ blocks ─ 2×2 transposed
        levels of 1/8 ── 3×3 ────────────────────── + ── blocks ───┘

    `base` `[B, C, H, W]` is the wavelet's own reconstruction, and the result, as large, is to be added to it. The
    last three of `levels` are the decoded details `[B, 3C, H/8, W/8]` … `[B, 3C, H/2, W/2]` in units of the
    quantiser's `step`, `[B, 1, 1, 1]` or a number; `quality` `[B]`, 0–100, sets the scale and shift of every
    block's features. The last convolution starts at zero.
    """

    def __init__(self, image_channels: int, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        details = 3 * image_channels
        self.stem = nn.Conv2d(4 * image_channels + details, half, 3, padding=1)
        self.quarter_levels = nn.Conv2d(details, quarter, 3, padding=1)
        self.eighth_levels = nn.Conv2d(details, eighth, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.down_half = RatedBlocks(half, 1)
        self.down_quarter = RatedBlocks(quarter, 2)
        self.middle = RatedBlocks(eighth, 3)
        self.up_quarter = RatedBlocks(quarter, 2)
        self.up_half = RatedBlocks(half, 2)
        self.head = zero_(nn.Conv2d(half, 4 * image_channels, 3, padding=1))

    def forward(self, base: Tensor, levels: Sequence[Tensor], step: Tensor | float, quality: Tensor) -> Tensor:
        eighth, quarter, half = map(companded, levels[-3:])
        rate = nearness_to_knots(quality)
        half = self.stem(torch.cat([4 * F.pixel_unshuffle(base - 0.5, 2), half], 1))
        half = self.down_half(half, rate)
        quarter = self.down_quarter(self.to_quarter(half) + self.quarter_levels(quarter), rate)
        eighth = self.middle(self.to_eighth(quarter) + self.eighth_levels(eighth), rate)
        quarter = self.up_quarter(quarter + self.from_eighth(eighth), rate)
        half = self.up_half(half + self.from_quarter(quarter), rate)
        return F.pixel_shuffle(self.head(half).float(), 2) * (step * _UNIT)


class RatedBlocks(nn.ModuleList):
    """`count` residual blocks, `[B, C, h, w]` → the same; `rate` is what `nearness_to_knots` gives."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(_RatedBlock(channels) for _ in range(count))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        for block in self:
            x = block(x, rate)
        return x


class _RatedBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = zero_(nn.Conv2d(KNOTS, 2 * channels, 1, bias=False))
        self.second = zero_(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        scale, shift = self.modulation(rate).chunk(2, dim=1)
        return x + self.second(F.relu(self.first(x) * (1 + scale) + shift))
