"""Building blocks that more than one scheme uses."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.coded import Coded, of_nearest, of_two_by_two
from codec.networks.kept import Kept


class ConvBlock(Kept, nn.Sequential):
    """`kernel`×`kernel` convolution, BatchNorm, ReLU: `[B, inputs, H, W]` → `[B, outputs, H/stride, W/stride]`."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            # BatchNorm brings the bias
            nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor | Coded, doubled: bool = False) -> Tensor | Coded:
        """`doubled`: of `x` at twice its height and width, by nearest; for 3×3 convolutions."""
        conv, norm, relu = self
        if isinstance(x, Coded):
            return x.normalised(self, conv, norm, doubled)
        return relu(normalised(x, conv, norm, doubled))


class ResidualBlock(Kept):
    """Two 3×3 convolutions with BatchNorm, added to the input (He et al. 2016): `[B, C, H, W]` → the same.

    With `upsample` the block doubles height and width, and `inputs` may differ from `outputs`. The second
    convolution sees `beside` channels more, of what is as large as the output.
    """

    def __init__(self, inputs: int, outputs: int | None = None, upsample: bool = False, beside: int = 0) -> None:
        super().__init__()
        outputs = outputs or inputs
        self.upsample = Upsample("nearest") if upsample else nn.Identity()
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.body = nn.Sequential(
            ConvBlock(inputs, outputs),
            nn.Conv2d(outputs + beside, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor | Coded, beside: Tensor | Coded | None = None) -> Tensor | Coded:
        first, conv, norm = self.body
        doubled = isinstance(self.upsample, Upsample)
        body = first(x, doubled)
        if isinstance(x, Coded):
            body = body if beside is None else Coded.joined([body, beside])
            return body.residual(self, conv, norm, x, self.shortcut, doubled)
        body = normalised(body if beside is None else torch.cat([body, beside], dim=1), conv, norm)
        return self.relu(self.upsample(self.shortcut(x)) + body)


class UpsamplingLayers(nn.Sequential):
    """Layers in a row, of which a nearest Upsample and the ConvBlock after it are one transposed convolution."""

    def forward(self, x: Tensor | Coded) -> Tensor | Coded:
        doubled = False
        for layer in self:
            if isinstance(layer, Upsample):
                doubled = True
                continue
            x = layer(x, doubled=True) if doubled else layer(x)
            doubled = False
        return x


def normalised(
    x: Tensor,
    conv: nn.Conv2d | nn.ConvTranspose2d,
    norm: nn.BatchNorm2d,
    doubled: bool = False,
    weight: Tensor | None = None,
) -> Tensor:
    """`norm(conv(x))`, `doubled` of x at twice its size; without a gradient norm is a part of the convolution.

    `weight`, if given, instead of the convolution's own.
    """
    weight, bias = conv.weight if weight is None else weight, conv.bias
    folds = not norm.training and not torch.is_grad_enabled()
    if folds:
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = weight * factor.view((-1, 1, 1, 1) if isinstance(conv, nn.Conv2d) else (1, -1, 1, 1))
        bias = norm.bias - norm.running_mean * factor
    if doubled:
        h = F.conv_transpose2d(x, of_nearest(weight), bias, stride=2, padding=1)
    else:
        convolve = F.conv2d if isinstance(conv, nn.Conv2d) else F.conv_transpose2d
        h = convolve(x, weight, bias, conv.stride, conv.padding)
    return h if folds else norm(h)


class ImageConv2d(Kept, nn.Conv2d):
    """3×3 convolution to the few channels of an image: `[B, inputs, H, W]` → `[B, outputs, H, W]`, both even."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor | Coded, weight: Tensor | None = None) -> Tensor:
        """`weight`, if given, instead of its own."""
        if isinstance(x, Coded):
            return x.image(self, self)
        weight = self.weight if weight is None else weight
        if torch.is_grad_enabled():
            return F.conv2d(x, weight, self.bias, padding=1)
        return F.pixel_shuffle(F.conv2d(x, *of_two_by_two(weight, self.bias), stride=2, padding=1), 2)


class MaxPool(nn.MaxPool2d):
    """The largest of each 2×2 positions."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor | Coded) -> Tensor | Coded:
        return x.halved() if isinstance(x, Coded) else super().forward(x)


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

    def forward(self, x: Tensor | Coded) -> Tensor | Coded:
        return x.doubled(self.mode) if isinstance(x, Coded) else super().forward(x)
