"""Coded: features as codes, which layers with BatchNorm convolve in evaluation, as bytes on many CPUs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.eight_bit import ExactWeights, bytes_of, takes_bytes
from codec.networks.exact import CODE_MAX
from codec.networks.kept import Kept

# Up to so many of BatchNorm's deviations above its mean codes reach; what is larger counts as that.
_DEVIATIONS = 8
_SMALLEST_REACH = 1e-3

Made = TypeVar("Made")


class Coded(NamedTuple):
    """Features `[B, C, H, W]` as codes 0…255 `[B, K, H, W]`, bytes where those are convolved.

    The k-th of them counts `unit[k]`, of either sign, of the channel `of[k]`.
    """

    codes: Tensor
    unit: Tensor
    of: Tensor

    @classmethod
    def unsigned(cls, x: Tensor, reach: float) -> "Coded":
        """Of `x` from 0 to `reach`."""
        x = (x * (CODE_MAX / reach)).clamp_(0, CODE_MAX).round_()
        unit = x.new_full((x.shape[1],), reach / CODE_MAX)
        return cls(bytes_of(x) if takes_bytes(x.device) else x, unit, torch.arange(len(unit), device=x.device))

    @classmethod
    def signed(cls, x: Tensor, reach: float) -> "Coded":
        """Of `x` from -`reach` to `reach`, its positive and its negative parts."""
        both = cls.unsigned(torch.cat([x, -x], 1), reach)
        positive, negative = both.unit.chunk(2)
        return both._replace(unit=torch.cat([positive, -negative]), of=both.of % x.shape[1])

    @classmethod
    def joined(cls, parts: "Sequence[Coded]") -> "Coded":
        """All channels of several, as `torch.cat` of the features."""
        before, of = 0, []
        for part in parts:
            of.append(part.of + before)
            before += int(part.of.max()) + 1
        return cls(
            torch.cat([part.codes for part in parts], 1), torch.cat([part.unit for part in parts]), torch.cat(of)
        )

    def floats(self) -> Tensor:
        """The features, of channels that are one code each."""
        return self.codes * self.unit.view(-1, 1, 1)

    def halved(self) -> "Coded":
        """The largest of each 2×2 positions, of an even height and width."""
        x = self.codes
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return self._replace(codes=torch.maximum(rows[..., ::2], rows[..., 1::2]))

    def doubled(self) -> "Coded":
        """At twice the height and width, by bilinear interpolation."""
        x = F.interpolate(self.codes.float(), scale_factor=2, mode="bilinear", align_corners=False).round_()
        return self._replace(codes=x.to(self.codes.dtype))

    def normalised(self, owner: Kept, conv: nn.Conv2d, norm: nn.BatchNorm2d, doubled: bool = False) -> "Coded":
        """ReLU of BatchNorm of `conv`, of the features or these `doubled` by nearest; `owner` keeps it ready."""

        def made() -> tuple[ExactWeights, Tensor]:
            factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            unit = (norm.bias + _DEVIATIONS * norm.weight.abs()).clamp(min=_SMALLEST_REACH) / CODE_MAX
            weight = conv.weight * (factor / unit).view(-1, 1, 1, 1)
            return self._exact(weight, (norm.bias - norm.running_mean * factor) / unit, doubled), unit

        weights, unit = self._kept(owner, (conv.weight, *norm.parameters(), *norm.buffers()), made)
        x = weights.coded(self.codes)
        return Coded(_as_pixels(x) if doubled else x, unit, torch.arange(len(unit), device=unit.device))

    def image(self, owner: Kept, conv: nn.Conv2d) -> Tensor:
        """`conv`, 3×3 to the few channels of an image, of the features: floats, of all 2×2 pixels at once."""
        tensors = conv.weight, conv.bias

        def made() -> ExactWeights:
            weight, bias = (CODE_MAX * values for values in of_two_by_two(*tensors))
            return ExactWeights(self._of_codes(weight), bias, stride=2, padding=1)

        return F.pixel_shuffle(self._kept(owner, tensors, made).sums(self.codes) / CODE_MAX, 2)

    def _exact(self, weight: Tensor, bias: Tensor, doubled: bool) -> ExactWeights:
        weight = self._of_codes(weight)
        if not doubled:
            return ExactWeights(weight, bias, padding=weight.shape[-1] // 2)
        # Of each parity of rows and columns one convolution 2×2, whose outputs _as_pixels puts side by side.
        of_doubled = of_nearest(weight).transpose(0, 1)
        parities = [of_doubled[..., rows, :][..., columns] for rows in _TAPS for columns in _TAPS]
        return ExactWeights(torch.cat(parities), bias.repeat(4), padding=1)

    def _of_codes(self, weight: Tensor) -> Tensor:
        return weight[:, self.of] * self.unit.view(-1, 1, 1)

    def _kept(self, owner: Kept, tensors: Sequence[Tensor], make: Callable[[], Made]) -> Made:
        by_unit = owner.kept(tuple(tensors), dict)
        key = tuple(self.unit.tolist())
        if key not in by_unit:
            by_unit[key] = make()
        return by_unit[key]


# Which rows of a transposed convolution 4×4 of stride 2 make its even and its odd outputs, of two inputs each.
_TAPS = ([3, 1], [2, 0])


def of_nearest(weight: Tensor) -> Tensor:
    """3×3 weights → those 4×4 of the transposed convolution that does as they do to a doubled tensor.

    Two neighbours that are equal there are multiplied once, by the sum of their weights: 4 products for 9.
    """
    sums = F.pad(weight.flip(-2, -1), (1, 1, 1, 1))
    sums = sums[..., 1:, :] + sums[..., :-1, :]
    return (sums[..., 1:] + sums[..., :-1]).transpose(0, 1)


def of_two_by_two(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """3×3 weights and bias → those 4×4 of stride 2 that make 2×2 pixels at once, as channels of each output.

    Few channels leave most lanes of a CPU idle.
    """
    shifts = [(column, 1 - column, row, 1 - row) for row in (0, 1) for column in (0, 1)]
    return torch.stack([F.pad(weight, shift) for shift in shifts], 1).flatten(0, 1), bias.repeat_interleave(4)


def _as_pixels(x: Tensor) -> Tensor:
    """Outputs of each parity, `[B, 4C, h + 1, w + 1]`, of which every other row or column begins one later."""
    count, channels, height, width = x.shape
    height, width = height - 1, width - 1
    pixels = x.new_empty(count, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)
    for n, part in enumerate(x.chunk(4, 1)):
        row, column = divmod(n, 2)
        pixels[..., row::2, column::2] = part[..., row : row + height, column : column + width]
    return pixels
