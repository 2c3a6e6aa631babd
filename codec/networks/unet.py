"""The two decoders of the diffusion scheme: one pass from the latent, and a denoiser that the latent conditions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from codec.networks.blocks import Upsample, zero_

# Channels of the encoder features that meet the decoder, coarsest first.
SKIP_WIDTHS = (128, 64, 64)


class UNetDecoder(nn.Module):
    """Three levels of [4×4 transposed convolution, BatchNorm, ReLU], a skip after each; a 3×3 convolution.

    `y` `[B, y_channels, h, w]` → `[B, C, 8h, 8w]`. `skips`, coarsest first: `[B, 128, 2h, 2w]`,
    `[B, 64, 4h, 4w]` and `[B, 64, 4h, 4w]`, which is upsampled; `with_skips` False leaves them out. The last
    convolution starts at zero if `starts_at_zero`.
    """

    def __init__(self, image_channels: int, with_skips: bool, starts_at_zero: bool, y_channels: int = 128) -> None:
        super().__init__()
        skips = SKIP_WIDTHS if with_skips else (0, 0, 0)
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )
            for inputs, outputs in [(y_channels, 128), (128 + skips[0], 128), (128 + skips[1], 64)]
        )
        self.upsample = Upsample("bilinear")
        self.head = nn.Conv2d(64 + skips[2], image_channels, 3, padding=1)
        if starts_at_zero:
            zero_(self.head)

    def forward(self, y: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        h = y
        for n, up in enumerate(self.up):
            h = up(h)
            if skips:
                h = cat([h, self.upsample(skips[n]) if n == 2 else skips[n]], dim=1)
        return self.head(h)


class ConditionalUNet(nn.Module):
    """A denoiser: noisy image, time, what was decoded and a first reconstruction → correction of the latter.

    `x_t` and `base` `[B, C, H, W]`, `t` `[B]` in steps, `y` `[B, 128, H/8, W/8]`, `skips` as UNetDecoder's →
    `[B, C, H, W]`. Works at half resolution (2×2 pixels as channels) and below; every block is told t (Ho et al.
    2020, appendix B).
    """

    def __init__(self, image_channels: int, with_skips: bool, widths: Sequence[int] = (64, 128, 128)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        time_width = 4 * half
        self.half = half
        self.time = nn.Sequential(
            nn.Linear(half, time_width), nn.SiLU(), nn.Linear(time_width, time_width), nn.SiLU()
        )
        self.stem = nn.Conv2d(4 * 2 * image_channels, half, 3, padding=1)
        self.condition = nn.Conv2d(128, eighth, 1)
        skips = zip(SKIP_WIDTHS, (quarter, half, half), strict=True) if with_skips else ()
        self.skip_conditions = nn.ModuleList(nn.Conv2d(*widths_of_skip, 1) for widths_of_skip in skips)
        blocks = {
            "down_half": (half, half),
            "down_quarter": (quarter, quarter),
            "middle": (2 * eighth, eighth),
            "up_quarter": (2 * quarter, quarter),
            "up_half": (2 * half, half),
        }
        self.blocks = nn.ModuleDict({name: _TimedBlock(*width, time_width) for name, width in blocks.items()})
        self.to_quarter = nn.Conv2d(half, quarter, 3, stride=2, padding=1)
        self.to_eighth = nn.Conv2d(quarter, eighth, 3, stride=2, padding=1)
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 4, stride=2, padding=1)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1)
        self.head = nn.Conv2d(half, 4 * image_channels, 3, padding=1)
        zero_(self.head)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor, base: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        time = self.time(_sinusoids(t, self.half))
        told = [condition(skip) for condition, skip in zip(self.skip_conditions, skips, strict=True)]
        half = self.stem(F.pixel_unshuffle(cat([x_t, base], 1), 2)) + sum(told[1:])
        half = self.blocks["down_half"](half, time)
        quarter = self.blocks["down_quarter"](self.to_quarter(half) + sum(told[:1]), time)
        eighth = cat([self.to_eighth(quarter), self.condition(y)], 1)
        h = self.from_eighth(self.blocks["middle"](eighth, time))
        h = self.from_quarter(self.blocks["up_quarter"](cat([h, quarter], 1), time))
        h = self.blocks["up_half"](cat([h, half], 1), time)
        return F.pixel_shuffle(self.head(h), 2)


class _TimedBlock(nn.Module):
    """A residual block whose features t scales and shifts."""

    def __init__(self, inputs: int, outputs: int, time_width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.modulation = nn.Linear(time_width, 2 * outputs)
        self.norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.modulation(time)[..., None, None].chunk(2, dim=1)
        h = self.norm(self.first(x)) * (1 + scale) + shift
        return self.shortcut(x) + self.second(F.silu(h))


def _sinusoids(t: Tensor, width: int) -> Tensor:
    """The time `t` `[B]` as sines and cosines of falling frequency, `[B, width]` (Vaswani et al. 2017)."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=t.device) / (width // 2))
    angles = t[:, None].float() * frequencies
    return cat([angles.sin(), angles.cos()], dim=1)
