"""Building blocks that more than one scheme uses."""

from torch import nn


class ConvBlock(nn.Sequential):
    """3×3 convolution, BatchNorm, ReLU: `[B, inputs, H, W]` → `[B, outputs, H, W]`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),  # BatchNorm brings the bias
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Upsample(nn.Upsample):
    """Twice the height and width, by `nearest` or `bilinear` interpolation."""

    def __init__(self, mode: str) -> None:
        super().__init__(scale_factor=2, mode=mode, align_corners=False if mode == "bilinear" else None)
