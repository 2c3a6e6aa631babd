"""ComCNN and RecCNN (Jiang et al. 2017, https://arxiv.org/abs/1708.00838): an image to a compact one, and back.

RecUNet is another RecCNN: for its cost it sees further, and its blocks are told the quality.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.block_dct import NETWORK_SHARE
from codec.networks.blocks import ConvBlock, zero_
from codec.networks.rate import nearness_to_knots
from codec.networks.rated_blocks import RatedBlocks

# The gradient that reaches ComCNN past a codec is a guess, by which it would run away if it moved as fast as
# RecCNN: it is slower, and changes no pixel by more than its reach (of an image in [0, 1]).
_COM_SHARE = 0.3 * NETWORK_SHARE
_COM_REACH = 0.1

# What a codec takes from photographs has about this deviation at `condition` 0, and grows by so many octaves to 1.
_REC_DEVIATION = 0.02
_REC_OCTAVES = 1.7


class ComCNN(nn.Module):
    """`x` `[B, C, H, W]` → the compact image `[B, C, H/scale, W/scale]`, both in [0, 1]; `scale` 1 or 2.

    conv + ReLU, conv of stride `scale` + ReLU, conv, which starts at zero and is added to the image itself or to
    its antialiased bicubic half. Where `conditional`, `condition` `[B]` is one more input plane.
    """

    def __init__(self, image_channels: int, width: int, scale: int, conditional: bool) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Conv2d(image_channels + conditional, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=scale, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, image_channels, 3, padding=1),
        )
        zero_(self.layers[-1])

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        base = x
        if self.scale == 2:
            base = F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True)
        change = _COM_SHARE * self.layers(_with_plane(x - 0.5, condition)).float()
        return (base + _COM_REACH * torch.tanh(change / _COM_REACH)).clamp(0, 1)


class RecCNN(nn.Module):
    """The decoded compact image `[B, C, h, w]` → `x_hat` `[B, C, h·scale, w·scale]`; `scale` 1 or 2.

    `layers` 3×3 convolutions with `width` channels between them, of which the last starts at zero and is added to
    the bicubically upsampled image.

    `blocks` "plain": BatchNorm and ReLU after every layer but the last (Jiang et al.). "residual": pairs of layers
    without BatchNorm, each added to its own input (EDSR, https://arxiv.org/abs/1707.02921).

    `reduction` is how all but the outer layers come to work at half the resolution, for a quarter of the cost:
    "none", they do not (Jiang et al.); "max_pooling" after the first layer and bilinear upsampling before the last;
    "unshuffle", every 2×2 pixels become the channels of one (FFDNet, https://arxiv.org/abs/1710.04026).
    """

    def __init__(
        self,
        image_channels: int,
        width: int,
        layers: int,
        blocks: str,
        scale: int,
        reduction: str,
        conditional: bool,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.reduction = reduction
        pixels = 4 if reduction == "unshuffle" else 1
        self.head = nn.Sequential(
            nn.Conv2d(image_channels * pixels + conditional, width, 3, padding=1), nn.ReLU(inplace=True)
        )
        if blocks == "plain":
            self.body = nn.Sequential(*(ConvBlock(width, width) for _ in range(layers - 2)))
            for block in self.body:  # the identity, added: 18 layers of noise would let too little through
                block[0].weight.data += nn.init.dirac_(torch.empty_like(block[0].weight))
        else:
            self.body = nn.Sequential(*(_ResidualPair(width) for _ in range((layers - 2) // 2)))
        self.tail = nn.Conv2d(width, image_channels * pixels, 3, padding=1)
        zero_(self.tail)

    def forward(self, y_hat: Tensor, condition: Tensor | None) -> Tensor:
        base = _upsampled(y_hat, self.scale)
        return base + NETWORK_SHARE * self._residual(base - 0.5, condition).float()

    def _residual(self, x: Tensor, condition: Tensor | None) -> Tensor:
        if self.reduction == "none":
            return self.tail(self.body(self.head(_with_plane(x, condition))))
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        if self.reduction == "unshuffle":
            h = self.head(_with_plane(F.pixel_unshuffle(x, 2), condition))  # (B, width, H/2, W/2)
            residual = F.pixel_shuffle(self.tail(self.body(h)), 2)
        else:
            h = F.max_pool2d(self.head(_with_plane(x, condition)), 2)  # (B, width, H/2, W/2)
            h = F.interpolate(self.body(h), scale_factor=2.0, mode="bilinear", align_corners=False)
            residual = self.tail(h)
        return residual[..., :height, :width]


class RecUNet(nn.Module):
    """As RecCNN, by a U-Net from 1/2 to 1/8 of the resolution, 18 layers in blocks that the quality modulates.

        2×2 pixels ── 3×3 ── block ───────────────────────── + ── blocks ── 3×3 ── 2×2 pixels
                               └ 2×2 ── blocks ──────── + ── blocks ┘ 2×2 transposed
                                          └ 2×2 ── blocks ┘

    `width` is that of 1/2; 1/4 and 1/8 have 4/3 and twice as many channels. `condition` `[B]`, about −1 to 1, is
    an octave of the quantiser's step over four; None: there is one quality. The last convolution starts at zero.
    """

    def __init__(self, image_channels: int, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        half, quarter, eighth = width, width * 4 // 3, 2 * width
        self.stem = nn.Conv2d(4 * image_channels, half, 3, padding=1)
        self.to_quarter = nn.Conv2d(half, quarter, 2, stride=2)
        self.to_eighth = nn.Conv2d(quarter, eighth, 2, stride=2)
        self.from_eighth = nn.ConvTranspose2d(eighth, quarter, 2, stride=2)
        self.from_quarter = nn.ConvTranspose2d(quarter, half, 2, stride=2)
        self.down_half = RatedBlocks(half, 1)
        self.down_quarter = RatedBlocks(quarter, 2)
        self.middle = RatedBlocks(eighth, 2)
        self.up_quarter = RatedBlocks(quarter, 2)
        self.up_half = RatedBlocks(half, 2)
        self.tail = zero_(nn.Conv2d(half, 4 * image_channels, 3, padding=1))

    def forward(self, y_hat: Tensor, condition: Tensor | None) -> Tensor:
        base = _upsampled(y_hat, self.scale)
        if condition is None:
            condition = base.new_zeros(len(base))
        height, width = base.shape[-2:]
        x = F.pad(base - 0.5, (0, -width % 8, 0, -height % 8), mode="replicate")
        rate = nearness_to_knots((50 - 50 * condition).clamp(0, 100))
        half = self.down_half(self.stem(4 * F.pixel_unshuffle(x, 2)), rate)  # (B, width, H/2, W/2)
        quarter = self.down_quarter(self.to_quarter(half), rate)  # (B, 4/3 width, H/4, W/4)
        eighth = self.middle(self.to_eighth(quarter), rate)  # (B, 2 width, H/8, W/8)
        quarter = self.up_quarter(quarter + self.from_eighth(eighth), rate)
        half = self.up_half(half + self.from_quarter(quarter), rate)
        deviation = _REC_DEVIATION * torch.exp2(_REC_OCTAVES * condition).view(-1, 1, 1, 1)
        return base + deviation * F.pixel_shuffle(self.tail(half).float(), 2)[..., :height, :width]


class _ResidualPair(nn.Module):
    """conv, ReLU, conv, added to the input: `[B, C, H, W]` → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _upsampled(y_hat: Tensor, scale: int) -> Tensor:
    return y_hat if scale == 1 else F.interpolate(y_hat, scale_factor=2.0, mode="bicubic", align_corners=False)


def _with_plane(x: Tensor, condition: Tensor | None) -> Tensor:
    """`x` `[B, C, H, W]` and, if there is a `condition` `[B]`, one more channel that is it everywhere."""
    if condition is None:
        return x
    plane = condition.to(x).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[-2:])
    return torch.cat([x, plane], dim=1)
