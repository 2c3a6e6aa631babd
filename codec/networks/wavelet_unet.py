"""WaveletUNet: what the quantiser took from a wavelet pyramid, as a U-Net predicts it, at any rate."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.blocks import companded, zero_
from codec.networks.eight_bit import EightBitConv2d
from codec.networks.exact import CODE_UNIT, codes
from codec.networks.modes import quick_layout
from codec.networks.rate import nearness_to_knots
from codec.networks.rated_blocks import CodedBlocks

# What is predicted is counted in quarters of the quantiser's step.
_UNIT = 0.25


class WaveletUNet(nn.Module):
    """A U-Net at 1/2 and 1/4 of the resolution, which sees what the wavelet gives and the levels of its details.

        base, 2×2 pixels as channels ─ 3×3 ─┬─ block ─── 2×2 as channels ──┬───────── + ─ as pixels ─ blocks ─ 3×3
        levels of 1/2 ───────────────────┘                                1×1        1×1
        levels of 1/4 ─ 3×3 ────────────────────────────────────────────── + ─ blocks ─┘

    `base` `[B, C, H, W]` is the wavelet's own reconstruction, and the result, as large, is to be added to it: 2×2
    pixels are the last convolution's channels, in quarters of the step. The last two of `levels` are the decoded
    details `[B, 3C, H/4, W/4]` and `[B, 3C, H/2, W/2]` in units of the quantiser's `step`, `[B, 1, 1, 1]` or a
    number; `quality` `[B]`, 0–100, sets the scale and shift of every block's features. The last convolution starts
    at zero. All features are signed codes, and so are companded levels: outside training their convolutions, all
    but the first, are those of EightBitConv2d, whose sums no machine rounds.
    """

    def __init__(self, image_channels: int, widths: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        half, quarter = widths
        details = 3 * image_channels
        self.stem = nn.Conv2d(4 * image_channels + details, half, 3, padding=1)
        self.quarter_levels = EightBitConv2d(details, quarter, 3, padding=1, signed=True)
        self.to_quarter = EightBitConv2d(4 * half, quarter, 1, signed=True)
        self.from_quarter = EightBitConv2d(quarter, 4 * half, 1, signed=True)
        self.down_half = CodedBlocks(half, 1)
        self.middle = CodedBlocks(quarter, 4)
        self.up_half = CodedBlocks(half, 2)
        self.head = zero_(EightBitConv2d(half, 4 * image_channels, 3, padding=1, signed=True))

    def forward(self, base: Tensor, levels: Sequence[Tensor], step: Tensor | float, quality: Tensor) -> Tensor:
        quarter, half = (codes(CODE_UNIT * quick_layout(companded(level)), signed=True) for level in levels[-2:])
        rate = nearness_to_knots(quality)
        with torch.autocast(
            base.device.type, enabled=self.training and torch.is_autocast_enabled(base.device.type)
        ):
            image = quick_layout(4 * CODE_UNIT * F.pixel_unshuffle(base - 0.5, 2))
            stem = F.conv2d(torch.cat([image, half], 1), self.stem.weight, CODE_UNIT * self.stem.bias, padding=1)
            half = self.down_half(self.down_half[0].first.taken(codes(stem, signed=True)), rate)
            half = _as_channels(half)
            quarter = self.to_quarter.coded(half, self.quarter_levels.coded(quarter, signed=True), signed=True)
            quarter = self.middle(quarter, rate)
            half = self.up_half(_as_pixels(self.from_quarter.coded(quarter, half, signed=True)), rate)
            return F.pixel_shuffle(self.head(half).float(), 2) * (step * (_UNIT / CODE_UNIT))


def _as_channels(x: Tensor) -> Tensor:
    """`[B, C, 2h, 2w]` → `[B, 4C, h, w]`, 2×2 positions after each other, all channels of each."""
    rows = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 2, 4, 3, 5, 1)  # [B, h, w, 2, 2, C]
    return _laid_as(x, rows.flatten(3))


def _as_pixels(x: Tensor) -> Tensor:
    """The opposite of `_as_channels`."""
    pixels = x.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1)).permute(0, 1, 3, 2, 4, 5)  # [B, h, 2, w, 2, C]
    return _laid_as(x, pixels.flatten(3, 4).flatten(1, 2))


def _laid_as(x: Tensor, by_position: Tensor) -> Tensor:
    """`by_position` `[B, h, w, C]` as `[B, C, h, w]`, laid out as `x` is."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return by_position.permute(0, 3, 1, 2).contiguous(memory_format=layout)
