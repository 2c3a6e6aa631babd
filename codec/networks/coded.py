"""Coded: features as codes, which layers with BatchNorm convolve in evaluation, as bytes on many CPUs."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.eight_bit import ExactWeights, bytes_of, takes_bytes
from codec.networks.exact import CODE_MAX, SIGNED_ZERO
from codec.networks.kept import Kept
from codec.networks.modes import in_codes, quick_layout

# Up to so many of BatchNorm's deviations above its mean codes reach; what is larger counts as that.
_DEVIATIONS = 8
_SMALLEST_REACH = 1e-3
# Of a shortcut's reach signed codes, of half as far, hold at least so much.
_LEAST_OF_SHORTCUT = 0.75

_KEPT = 4  # kinds of codes that a layer keeps weights for

Made = TypeVar("Made")


class Coded(NamedTuple):
    """Features `[B, C, H, W]` as codes 0…255 `[B, K, H, W]`, bytes where those are convolved.

    The k-th of them counts `unit[k]`, of either sign, of the channel `of[k]`, and is `mean[k]` on average; there
    are `channels`.
    """

    codes: Tensor
    unit: Tensor
    of: Tensor
    mean: Tensor
    channels: int

    @classmethod
    def unsigned(cls, x: Tensor, reach: float) -> "Coded":
        """Of `x` from 0 to `reach`."""
        x = (quick_layout(x) * (CODE_MAX / reach)).clamp_(0, CODE_MAX).round_()
        unit = x.new_full((x.shape[1],), reach / CODE_MAX)
        return _whole(bytes_of(x) if takes_bytes(x.device) else x, unit, torch.full_like(unit, CODE_MAX / 2))

    @classmethod
    def signed(cls, x: Tensor, reach: float) -> "Coded":
        """Of `x` from -`reach` to `reach`, its positive and its negative parts."""
        both = cls.unsigned(torch.cat([x, -x], 1), reach)
        positive, negative = both.unit.chunk(2)
        unit, of = torch.cat([positive, -negative]), both.of % x.shape[1]
        return both._replace(unit=unit, of=of, mean=torch.zeros_like(unit), channels=x.shape[1])

    @classmethod
    def joined(cls, parts: "Sequence[Coded]") -> "Coded":
        """All channels of several, as `torch.cat` of the features."""
        before = accumulate((part.channels for part in parts), initial=0)
        of = torch.cat([part.of + first for part, first in zip(parts, before, strict=False)])
        codes, unit, mean = (torch.cat([part[n] for part in parts], dim) for n, dim in ((0, 1), (1, 0), (3, 0)))
        return cls(codes, unit, of, mean, sum(part.channels for part in parts))

    def halved(self) -> "Coded":
        """The largest of each 2×2 positions, of an even height and width; of features that are not signed."""
        x = self.codes
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return self._replace(codes=torch.maximum(rows[..., ::2], rows[..., 1::2]))

    def doubled(self, mode: str) -> "Coded":
        """At twice the height and width, by `nearest` or `bilinear` interpolation."""
        if mode == "nearest":
            return self._replace(codes=_by_nearest(self.codes))
        x = F.interpolate(self.codes.float(), scale_factor=2, mode=mode, align_corners=False).round_()
        return self._replace(codes=x.to(self.codes.dtype))

    def normalised(
        self, owner: Kept, conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d, doubled: bool = False
    ) -> "Coded":
        """ReLU of BatchNorm of `conv`, of the features or these `doubled` by nearest; `owner` keeps it ready.

        A transposed convolution is one 4×4 of stride 2.
        """

        def made() -> tuple[ExactWeights, Tensor, Tensor]:
            unit = _reach(norm) / CODE_MAX
            return self._exact(conv, norm, unit, doubled), unit, _mean_of_relu(norm.bias, norm.weight) / unit

        weights, *of_result = self._kept(owner, made)
        x = weights.coded(self.codes)
        return _whole(_as_pixels(x) if doubled or isinstance(conv, nn.ConvTranspose2d) else x, *of_result)

    def residual(
        self, owner: Kept, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: "Coded", shortcut: nn.Module, doubled: bool
    ) -> "Coded":
        """ReLU of BatchNorm of `conv` plus `shortcut` of `x`, `doubled` by nearest: 1×1 convolution or identity."""

        def made() -> tuple[ExactWeights, ExactWeights, Tensor, Tensor]:
            if isinstance(shortcut, nn.Conv2d):
                weight, bias = x._of_codes(shortcut.weight), shortcut.bias
            else:
                weight, bias = x._of_codes(torch.eye(x.channels).to(x.unit)[..., None, None]), 0 * norm.bias
            # As far as inputs reach, and vary, that do not know of each other.
            reach = CODE_MAX * weight.square().sum((1, 2, 3)).sqrt()
            unit = torch.maximum((_reach(norm) + reach) / CODE_MAX, _LEAST_OF_SHORTCUT * reach / SIGNED_ZERO)
            middle = norm.bias + bias + weight.sum((2, 3)) @ x.mean
            mean = _mean_of_relu(middle, torch.hypot(norm.weight, reach / _DEVIATIONS))
            of_shortcut = ExactWeights(weight / unit.view(-1, 1, 1, 1), bias / unit, x.mean)
            return self._exact(conv, norm, unit, False), of_shortcut, unit, mean / unit

        weights, of_shortcut, *of_result = self._kept(owner, made, x)
        added = of_shortcut.coded(x.codes, signed=True)
        return _whole(weights.coded(self.codes, added=_by_nearest(added) if doubled else added), *of_result)

    def image(self, owner: Kept, conv: nn.Conv2d) -> Tensor:
        """`conv`, 3×3 to the few channels of an image, of the features: floats, of all 2×2 pixels at once."""

        def made() -> ExactWeights:
            weight, bias = (CODE_MAX * values for values in of_two_by_two(conv.weight, conv.bias))
            return ExactWeights(self._of_codes(weight), bias, self.mean, stride=2, padding=1)

        return F.pixel_shuffle(self._kept(owner, made).sums(self.codes) / CODE_MAX, 2)

    def _exact(
        self, conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d, unit: Tensor, doubled: bool
    ) -> ExactWeights:
        transposed = isinstance(conv, nn.ConvTranspose2d)
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = conv.weight.transpose(0, 1) if transposed else conv.weight
        weight = self._of_codes(weight * (factor / unit).view(-1, 1, 1, 1))
        bias = (norm.bias - norm.running_mean * factor) / unit
        if not doubled and not transposed:
            return ExactWeights(weight, bias, self.mean, conv.stride[0], conv.padding[0])
        # Of each parity of rows and columns one convolution 2×2, whose outputs _as_pixels puts side by side.
        of_doubled = weight if transposed else of_nearest(weight).transpose(0, 1)
        parities = [of_doubled[..., rows, :][..., columns] for rows in _TAPS for columns in _TAPS]
        return ExactWeights(torch.cat(parities), bias.repeat(4), self.mean, padding=1)

    def _of_codes(self, weight: Tensor) -> Tensor:
        return weight[:, self.of] * self.unit.view(-1, 1, 1)

    def _kept(self, owner: Kept, make: Callable[[], Made], *others: "Coded") -> Made:
        """What `owner` convolves with, for codes of these units and means."""
        told = [tensor for codes in (self, *others) for tensor in codes[1:4]]
        before: list[tuple[list[Tensor], Made]] = owner.kept((*owner.parameters(), *owner.buffers()), list)
        for known, kept in before:
            if all(a is b or (a.shape == b.shape and torch.equal(a, b)) for a, b in zip(known, told, strict=True)):
                return kept
        with torch.autocast(self.unit.device.type, enabled=False):
            made = make()
        if len(before) == _KEPT:
            before.clear()
        before.append((told, made))
        return made


def as_floats(features: Tensor | Coded) -> Tensor:
    """The features, of channels that are one code each if they are Coded."""
    return features.codes * features.unit.view(-1, 1, 1) if isinstance(features, Coded) else features


def seen_by_encoder(codec: nn.Module, x: Tensor) -> Tensor | Coded:
    """Pixels as an encoder takes them that need not be exact: whatever it makes of them, the file holds."""
    return Coded.unsigned(x, 1.0) if in_codes(codec) and takes_bytes(x.device) else quick_layout(x)


def seen_by_decoder(codec: nn.Module, x: Tensor, reach: float | None) -> Tensor | Coded:
    """What a decoder sees that only adds to an image, for which codes will do, if `reach` is how far it goes."""
    return quick_layout(x) if reach is None or not in_codes(codec) else Coded.signed(x, reach)


def _whole(codes: Tensor, unit: Tensor, mean: Tensor) -> Coded:
    return Coded(codes, unit, torch.arange(len(unit), device=unit.device), mean, len(unit))


def _mean_of_relu(mean: Tensor, deviation: Tensor) -> Tensor:
    """The mean of normally distributed features of these, once negative ones are 0."""
    normal, deviation = torch.distributions.Normal(0, 1, validate_args=False), deviation.abs().clamp(min=1e-6)
    above = mean / deviation
    return mean * normal.cdf(above) + deviation * normal.log_prob(above).exp()


def _reach(norm: nn.BatchNorm2d) -> Tensor:
    size = norm.bias.abs() + norm.weight.abs()
    # Of a channel that is hardly ever above 0, too: in units much smaller than its bias that would be no number.
    return torch.maximum(norm.bias + _DEVIATIONS * norm.weight.abs(), size / 64).clamp(min=_SMALLEST_REACH)


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


def _by_nearest(x: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(count, height, 2, width, 2, channels)
    return rows.reshape(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
