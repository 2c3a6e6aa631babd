"""PassNetwork: the distributions of one pass of a context prior, by exact arithmetic (codec.networks.exact)."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.entropy.laplace import FRACTIONS, LOWEST, PER_OCTAVE, SCALES
from codec.entropy.priors.prior import Size
from codec.networks.blocks import zero_
from codec.networks.eight_bit import EightBitConv2d
from codec.networks.exact import (
    CODE_MAX,
    CODE_UNIT,
    ExactConv2d,
    ExactUpConv2d,
    codes,
    whole,
)
from codec.networks.rate import KNOTS

Offset = tuple[int, int]

KNOT_UNIT = 256
# Up to so many channels a neighbourhood is 5×5, else 3×3; from more than so many nothing is predicted linearly.
_FEW, MANY = 16, 256
_LARGEST_MAGNITUDE = 255  # in linear predictions; larger levels count as this
_LARGEST_LEVEL = 2047
_MAGNITUDE_UNIT = 64  # predicted magnitudes are multiples of 1/64 ...
_SCALE_UNIT = 16  # ... and their binary logarithms of 1/16
SLOWNESS = 32  # of linear predictors' training
_COMPANDING = 32  # codes a doubling of 1 + |level|, in what networks see


class Known(NamedTuple):
    """What of one tensor is known so far, `[B, C, H, W]`, unknown levels being 0, in forms that predictors take."""

    magnitudes: Tensor
    levels: Tensor
    companded: Tensor

    @classmethod
    def of(cls, levels: Tensor) -> "Known":
        return cls(
            levels.abs().clamp(max=_LARGEST_MAGNITUDE),
            levels.clamp(-_LARGEST_LEVEL, _LARGEST_LEVEL),
            companded(levels),
        )


class Coarser(NamedTuple):
    """What is known of everything coarser than a tensor.

    `features` are codes `[B, F, h, w]`, by the offset in the tensor that they begin at every other position from;
    `magnitudes` are the next coarser tensor's, on a grid of half the tensor's size, repeated where its own is
    coarser still, with a margin of one position all around, which is 0 where there is no more.
    """

    features: dict[Offset, Tensor] | None = None
    magnitudes: Tensor | None = None


class SlowPredictor(ExactConv2d):
    """A linear predictor: a convolution whose optimizer's steps are 32 times smaller than those of the networks.

    Its weights are small, and fitted before training where a prior begins so: steps of the networks' size would
    undo that at once.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, **options: int) -> None:
        super().__init__(inputs, outputs, kernel, bias=False, **options)
        nn.init.zeros_(self.weight)

    def kernel(self) -> Tensor:
        return self.weight / SLOWNESS


class LinearPredictor(SlowPredictor):
    """Of whole numbers of either sign."""


class MagnitudePredictor(SlowPredictor, EightBitConv2d):
    """Of magnitudes, 0 to 255."""


class PassNetwork(nn.Module):
    """The distributions of one pass: a mean and a magnitude, both linear in what is known, and what a network adds.

        magnitudes of the neighbourhood, of what is coarser ── linear ── m ─┐
        companded magnitudes, features of what is coarser ── 3 layers ─┬─ u ┴→ scale = m · 2^u
                                                                       └─ v ┬→ mean
        levels of the neighbourhood ── linear ──────────────────────────────┘

    `coded` of the tensor's `channels` are coded. `neighbours` False: nothing of the tensor itself is known yet.
    `coarser_channels` are the next coarser tensor's, `features_in` the width of what else is known, 0: nothing. Of
    very many channels nothing is predicted linearly. The network's end starts at zero, and so do both linear parts
    but for the constant in m; see `codec.entropy.priors.linear_start`, which fits them.
    """

    def __init__(
        self, channels: int, coded: int, features: int, neighbours: bool, coarser_channels: int, features_in: int
    ) -> None:
        super().__init__()
        self.kernel = 5 if channels <= _FEW else 3
        self.mean = self.magnitude = self.first = self.coarser_magnitude = None
        if neighbours and channels <= MANY:
            self.mean = LinearPredictor(channels, coded, self.kernel, stride=2, reach=_LARGEST_LEVEL)
            self.magnitude = MagnitudePredictor(channels, coded, self.kernel, stride=2)
        if 0 < coarser_channels <= MANY:
            self.coarser_magnitude = MagnitudePredictor(coarser_channels, coded, 3)
        self.constant = LinearPredictor(KNOTS, coded, 1, reach=KNOT_UNIT)
        nn.init.constant_(self.constant.weight, 0.5 * SLOWNESS / KNOT_UNIT)
        if neighbours:
            self.first = EightBitConv2d(channels, features, self.kernel, stride=2, bias=False)
        self.from_features = EightBitConv2d(features_in, features, 1, bias=False) if features_in else None
        self.rate = zero_(ExactConv2d(KNOTS, features, 1, reach=KNOT_UNIT))
        self.middle = EightBitConv2d(features, features, 1)
        self.last = zero_(EightBitConv2d(features, 2 * coded, 1))

    def forward(
        self, known: Known, coarser: Coarser, knots: Tensor, offsets: Sequence[Offset], size: Size
    ) -> tuple[Tensor, Tensor]:
        """Mean and binary logarithm of the scale, `[B, coded, K, h, w]`, at every other position from K offsets on.

        `size` is (h, w), the same for all of them, `knots` as ContextPrior's.
        """
        # What differs from one offset to the next is of K · B images.
        m = whole(self.constant(knots), _MAGNITUDE_UNIT)
        h = whole(self.rate(knots))
        mean = None
        if self.coarser_magnitude is not None:
            coarse = self.coarser_magnitude.whole(coarser.magnitudes, _MAGNITUDE_UNIT)
            m = _added(coarse if coarse.shape[-2:] == size else coarse[..., : size[0], : size[1]], m)
        if self.mean is not None:
            levels, magnitudes = (around(x, offsets, self.kernel) for x in (known.levels, known.magnitudes))
            mean = self.mean.whole(levels, FRACTIONS)
            m = _added(self.magnitude.whole(magnitudes, _MAGNITUDE_UNIT), m)
        if self.first is not None:
            h = _added(self.first.whole(around(known.companded, offsets, self.kernel)), h)
        if self.from_features is not None:
            features = joined([coarser.features[offset] for offset in offsets])
            h = _added(self.from_features.whole(features), h)
        u, v = (self.last(self.middle.coded(codes(h))) / CODE_UNIT).chunk(2, 1)
        v = whole(v, FRACTIONS)
        mean = v if mean is None else _added(mean, v)
        log_scale = _added(whole(u, _SCALE_UNIT), _log2(m, self.training))
        count, batch = len(offsets), len(knots)
        each = (y.unflatten(0, (-1, batch)).expand(count, batch, y.shape[1], *size) for y in (mean, log_scale))
        return tuple(y.permute(1, 2, 0, 3, 4) for y in each)


class CoarserFeatures(nn.Module):
    """Features of one tensor and of what is coarser than that, on the grid of the next, which is finer."""

    def __init__(self, channels: int, features: int, first: bool) -> None:
        super().__init__()
        self.levels = EightBitConv2d(2 * channels, features, 3, padding=1)
        self.before = None if first else EightBitConv2d(features, features, 1, bias=False)
        self.to_next = ExactUpConv2d(features, features)

    def forward(self, levels: Tensor, before: Tensor | None, size: Size) -> Tensor:
        return spread(self.on_double_grid(levels, before), size)

    def on_double_grid(self, levels: Tensor, before: Tensor | None) -> Tensor:
        """`levels` `[B, C, h, w]` → codes `[B, F, 2h, 2w]`, which reach two positions of `levels` around theirs."""
        h = whole(self.levels(torch.cat([companded(levels.clamp(min=0)), companded(levels.clamp(max=0))], 1)))
        if self.before is not None:
            h = h + whole(self.before(before))
        return codes(self.to_next(codes(h)))


def companded(levels: Tensor) -> Tensor:
    """Levels of either sign → codes 0…255, 32 a doubling of 1 + |level|; uint8 where no gradient is wanted."""
    if levels.requires_grad:
        return codes(_COMPANDING * torch.log2(1 + levels.abs()))
    return _looked_up(_companding_table(levels.device), levels.abs().clamp(max=256).int())


@cache
def _companding_table(device: torch.device) -> Tensor:
    table = torch.log2(1.0 + torch.arange(257, dtype=torch.float64)) * _COMPANDING
    return table.round().clamp(max=CODE_MAX).byte().to(device)


def around(x: Tensor, offsets: Sequence[Offset], kernel: int) -> Tensor:
    """`x` `[B, …]` padded so that a convolution of stride 2 is centred on every other position from an offset on.

    From K of them, `[K · B, …]`, offset by offset, each of which must have as many positions.
    """
    radius = kernel // 2
    padded = []
    for offset in offsets:
        margins = []
        for size, first in zip(reversed(x.shape[-2:]), reversed(offset), strict=True):
            count = -(-(size - first) // 2)
            margins += [radius - first, 2 * count - 1 + radius - size + first]
        padded.append(F.pad(x, margins))
    return joined(padded)


def joined(each: Sequence[Tensor], dim: int = 0) -> Tensor:
    """`torch.cat` without a copy of a single one."""
    return each[0] if len(each) == 1 else torch.cat(each, dim)


def _added(made: Tensor, x: Tensor) -> Tensor:
    """`made` + `x`, written over `made` where that is as large: nothing else may hold it.

    Of K · B images and B, these are added for each of the K offsets.
    """
    if len(made) == len(x):
        return made.add_(x) if made.numel() >= x.numel() else made + x
    many, few = (made, x) if len(made) > len(x) else (x, made)
    return (many.unflatten(0, (-1, len(few))) + few).flatten(0, 1)


def on_half_grid(levels: Tensor, size: Size) -> Tensor:
    """The magnitudes of a tensor, as Coarser has them for the next one, of `size` (H, W)."""
    height, width = size
    magnitudes = levels.clamp(-_LARGEST_MAGNITUDE, _LARGEST_MAGNITUDE).abs()
    return F.pad(spread(magnitudes, (-(-height // 2), -(-width // 2))), (1, 1, 1, 1))


def by_offset(x: Tensor) -> dict[Offset, Tensor]:
    """Views of `x` `[…, H, W]`: every other position from each offset on."""
    if any(size % 2 for size in x.shape[-2:]):
        return {(row, column): x[..., row::2, column::2] for row in (0, 1) for column in (0, 1)}
    rows = x.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).unbind(-3)  # whose gradient is one copy
    return {(row, column): part for row, both in enumerate(rows) for column, part in enumerate(both.unbind(-1))}


def spread(x: Tensor, size: Size) -> Tensor:
    """`x` on a grid of `size` (H, W): each position repeated as often as it takes, and what is too much cut off."""
    for dim, length in zip((-2, -1), size, strict=True):
        times = -(-length // x.shape[dim])
        x = (x if times == 1 else x.repeat_interleave(times, dim)).narrow(dim, 0, length)
    return x


def _log2(m: Tensor, smooth: bool) -> Tensor:
    """log2(m), of multiples of 1/64; in steps of 1/16, from a table, where it must be the same on every machine."""
    if smooth:
        return torch.log2(m.clamp(min=2.0**LOWEST))
    table = _log2_table(m.device)
    last = len(table) - 1
    return _looked_up(table, (m * _MAGNITUDE_UNIT).clamp(0, last).nan_to_num(last).int())


def _looked_up(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]`, which takes several times as long on a CPU, in the layout of `index` `[B, C, H, W]`."""
    if index.is_contiguous(memory_format=torch.channels_last):
        in_memory = index.permute(0, 2, 3, 1)
        return table.index_select(0, in_memory.flatten()).view(in_memory.shape).permute(0, 3, 1, 2)
    return table.index_select(0, index.flatten()).view(index.shape)


@cache
def _log2_table(device: torch.device) -> Tensor:
    octaves = SCALES // PER_OCTAVE - 1
    steps = octaves * _SCALE_UNIT
    middles = 2.0 ** (LOWEST + (torch.arange(steps, dtype=torch.float64) + 0.5) / _SCALE_UNIT)
    m = torch.arange(2 ** (LOWEST + octaves) * _MAGNITUDE_UNIT + 1) / _MAGNITUDE_UNIT
    return (LOWEST + torch.bucketize(m, middles.float()) / _SCALE_UNIT).to(device)
