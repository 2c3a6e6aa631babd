"""The diffusion scheme's networks: a decoder in one pass, and a denoiser of what its image lacks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, cat, nn

from codec.networks.blocks import ImageConv2d, Upsample, normalised, zero_
from codec.networks.coded import Coded
from codec.networks.kept import Kept
from codec.networks.modes import quick_layout
from codec.networks.rate import KNOTS, nearness_to_knots
from codec.networks.rated_blocks import RatedBlocks

# Channels of the encoder features that meet the decoder, coarsest first.
SKIP_WIDTHS = (128, 64, 64)

_SMALLEST_VARIANCE = 1e-12  # before anything is observed: no detail that can be seen
_MOMENTUM = 0.2


class UNetDecoder(nn.Module):
    """Three levels of [4×4 transposed convolution, BatchNorm, ReLU], a skip after each; a 3×3 convolution.

    `y` `[B, y_channels, h, w]` → `[B, C, 8h, 8w]`. `skips`, coarsest first, of any number of channels, each with
    the 1×1 convolution that expands it: to `[B, 128, 2h, 2w]`, `[B, 64, 4h, 4w]` and `[B, 64, 4h, 4w]`, which is
    upsampled before; `with_skips` False leaves them out. The last convolution starts at zero if `starts_at_zero`.
    """

    def __init__(self, image_channels: int, with_skips: bool, starts_at_zero: bool, y_channels: int = 128) -> None:
        super().__init__()
        skips = SKIP_WIDTHS if with_skips else (0, 0, 0)
        self.up = nn.ModuleList(
            _UpBlock(inputs, outputs)
            for inputs, outputs in [(y_channels, 128), (128 + skips[0], 128), (128 + skips[1], 64)]
        )
        self.upsample = Upsample("bilinear")
        self.head = ImageConv2d(64 + skips[2], image_channels)
        if starts_at_zero:
            zero_(self.head)

    def forward(self, y: Tensor | Coded, skips: Sequence[tuple[Tensor, nn.Conv2d]] = ()) -> Tensor:
        """`y` may be Coded where there are no skips."""
        first, *others = self.up
        h, weight = first(y), None
        for n, up in enumerate(others):
            if skips:
                h, weight = _beside(h, *skips[n], up[0])
            h = up(h, weight)
        if not skips:
            return self.head(h)
        coded, expand = skips[-1]
        h, weight = _beside(h, self.upsample(coded), expand, self.head)
        return self.head(h, weight)


class _UpBlock(Kept, nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor | Coded, weight: Tensor | None = None) -> Tensor | Coded:
        """`weight`, if given, instead of the convolution's own."""
        conv, norm, relu = self
        if isinstance(x, Coded):
            return x.normalised(self, conv, norm)
        return relu(normalised(x, conv, norm, weight=weight))


def _beside(
    h: Tensor, coded: Tensor, expand: nn.Conv2d, conv: nn.Conv2d | nn.ConvTranspose2d
) -> tuple[Tensor, Tensor]:
    """What `conv` takes of `h` and the expanded skip, and its weight; without a gradient that expands the skip."""
    if torch.is_grad_enabled():
        return cat([h, expand(coded)], 1), conv.weight
    # Beyond the border the bias counts as little as the skip: it is the weight of a channel of ones.
    coded = F.pad(coded, (0, 0, 0, 0, 0, 1), value=1.0)
    expansion = cat([expand.weight.flatten(1), expand.bias[:, None]], 1)
    of_inputs = conv.weight if isinstance(conv, nn.ConvTranspose2d) else conv.weight.transpose(0, 1)
    own, of_skip = of_inputs.split([h.shape[1], len(expansion)])
    folded = cat([own, torch.einsum("eokl,ec->cokl", of_skip, expansion)])
    weight = folded if isinstance(conv, nn.ConvTranspose2d) else folded.transpose(0, 1)
    return cat([h, quick_layout(coded)], 1), weight


class DetailDenoiser(nn.Module):
    """A U-Net from 1/2 to 1/8 of the resolution: what a decoded image lacks, of a noisy version of that.

    `x_t` `[B, C, H, W]`, of unit variance, `image` as large in [0, 1], `time` and `quality` `[B]`, 0–1 and 0–100,
    which set the scale and shift of every block's features → `[B, C, H, W]`. The last convolution starts at zero.
    """

    running_var: Tensor

    def __init__(self, image_channels: int, widths: Sequence[int] = (32, 64, 128)) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.stem = nn.Conv2d(4 * 2 * image_channels, half, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.down_half = RatedBlocks(half, 1, 2 * KNOTS)
        self.down_quarter = RatedBlocks(quarter, 2, 2 * KNOTS)
        self.middle = RatedBlocks(eighth, 2, 2 * KNOTS)
        self.up_quarter = RatedBlocks(quarter, 2, 2 * KNOTS)
        self.up_half = RatedBlocks(half, 2, 2 * KNOTS)
        self.head = zero_(nn.Conv2d(half, 4 * image_channels, 3, padding=1))
        self.register_buffer("running_var", torch.zeros(KNOTS))

    def forward(self, x_t: Tensor, image: Tensor, time: Tensor, quality: Tensor) -> Tensor:
        told = cat([nearness_to_knots(quality), nearness_to_knots(100 * time)], 1)
        half = self.down_half(self.stem(F.pixel_unshuffle(cat([x_t, 4 * (image - 0.5)], 1), 2)), told)
        quarter = self.down_quarter(self.to_quarter(half), told)
        eighth = self.middle(self.to_eighth(quarter), told)
        quarter = self.up_quarter(quarter + self.from_eighth(eighth), told)
        half = self.up_half(half + self.from_quarter(quarter), told)
        return F.pixel_shuffle(self.head(half).float(), 2)

    def deviation(self, quality: Tensor) -> Tensor:
        """Of what images lack at each quality `[B]`, as far as it has been observed, `[B, 1, 1, 1]`."""
        variance = nearness_to_knots(quality).flatten(1) @ self.running_var
        return variance.clamp(min=_SMALLEST_VARIANCE).sqrt().view(-1, 1, 1, 1)

    @torch.no_grad()
    def observe(self, lacking: Tensor, quality: Tensor) -> None:
        """Moves the known variance near each quality `[B]` towards that of `lacking` `[B, C, H, W]`."""
        near = nearness_to_knots(quality).flatten(1)
        apart = lacking.float().square().mean((1, 2, 3))[:, None] - self.running_var
        self.running_var += _MOMENTUM * (near * apart).mean(0)
