"""Building blocks that more than one scheme uses."""

import torch
from torch import Tensor, nn


class ConvBlock(nn.Sequential):
    """`kernel`×`kernel` convolution, BatchNorm, ReLU: `[B, inputs, H, W]` → `[B, outputs, H/stride, W/stride]`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            # BatchNorm brings the bias
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm, added to the input (He et al. 2016): `[B, C, H, W]` → the same.

    With `upsample` the block doubles height and width, and `inputs` may differ from `outputs`.
    """

    def __init__(self, inputs: int, outputs: int | None = None, upsample: bool = False) -> None:
        super().__init__()
        outputs = outputs or inputs
        self.upsample = Upsample("nearest") if upsample else nn.Identity()
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.body = nn.Sequential(
            ConvBlock(inputs, outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        return self.relu(self.shortcut(x) + self.body(x))


def zero_(conv: nn.Conv2d) -> nn.Conv2d:
    """Makes `conv` give zeros, until training changes it."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def companded(levels: Tensor) -> Tensor:
    """±log2(1 + |level|), whose gradient is that from above at 0, where most levels are."""
    return torch.where(levels < 0, -torch.log2(1 - levels.clamp(max=0)), torch.log2(1 + levels.clamp(min=0)))


class Upsample(nn.Upsample):
    """Twice the height and width, by `nearest` or `bilinear` interpolation."""

    def __init__(self, mode: str) -> None:
        super().__init__(scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None)
