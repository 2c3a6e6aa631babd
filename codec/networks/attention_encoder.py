"""AttentionEncoder: the shrinking half of the lossless U-Net, with self-attention where the image is smallest."""

import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.modes import quick_layout

_HEADS = 4


class AttentionEncoder(nn.Module):
    """`[B, C, H, W]` → `[B, M, H/2^N, W/2^N]`; H and W are multiples of 2^N, N = `depth`.

    One strided convolution, applied N times, brings any image to the core resolution; there, N DoubleConvs with
    self-attention, and one last DoubleConv, whose output is projected to M = `outputs` channels.
    """

    def __init__(self, image_channels: int, width: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.stem = nn.Conv2d(image_channels, width, 3, padding=1)
        self.shrink = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.core = nn.Sequential(*(nn.Sequential(DoubleConv(width), SelfAttention(width)) for _ in range(depth)))
        self.last = DoubleConv(width)
        self.project = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(quick_layout(x))
        for _ in range(self.depth):
            h = F.relu(self.shrink(h))
        return self.project(self.last(self.core(h)))


class DoubleConv(nn.Sequential):
    """(3×3 convolution, RMSNorm, ReLU) twice, `width` channels throughout."""

    def __init__(self, width: int) -> None:
        layers = [(nn.Conv2d(width, width, 3, padding=1), _ChannelNorm(width), nn.ReLU()) for _ in range(2)]
        super().__init__(*layers[0], *layers[1])


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, added to its input `[B, C, h, w]`; C is a multiple of 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.queries_keys_values(self.norm(x.float().flatten(2).transpose(1, 2)))  # (B, h·w, 3·C)
        heads = tokens.unflatten(2, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, h·w, C/heads)
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)  # (B, h·w, C)
        return x + self.mix(mixed).transpose(1, 2).unflatten(2, x.shape[2:])


class _ChannelNorm(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float().movedim(1, -1)).movedim(-1, 1)
