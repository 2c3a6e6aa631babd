"""ComCNN and RecCNN (Jiang et al. 2017, https://arxiv.org/abs/1708.00838): an image to a compact one, and back."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.block_dct import NETWORK_SHARE
from codec.networks.blocks import ConvBlock, zero_

# The gradient that reaches ComCNN past a codec is a guess, by which it would run away if it moved as fast as
# RecCNN: it is slower, and changes no pixel by more than its reach (of an image in [0, 1]).
_COM_SHARE = 0.3 * NETWORK_SHARE
_COM_REACH = 0.1


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
        base = y_hat
        if self.scale == 2:
            base = F.interpolate(y_hat, scale_factor=2.0, mode="bicubic", align_corners=False)
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


class _ResidualPair(nn.Module):
    """conv, ReLU, conv, added to the input: `[B, C, H, W]` → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _with_plane(x: Tensor, condition: Tensor | None) -> Tensor:
    """`x` `[B, C, H, W]` and, if there is a `condition` `[B]`, one more channel that is it everywhere."""
    if condition is None:
        return x
    plane = condition.to(x).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[-2:])
    return torch.cat([x, plane], dim=1)
