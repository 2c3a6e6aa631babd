"""LogisticMixture: pixels coded under mixtures of discretised logistic distributions, in integers only.

The distribution is PixelCNN++'s (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, equation 2): over the 256
values of a pixel, the mass a mixture of logistics has between x − ½ and x + ½, with the tails in the end values.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from codec.entropy import coder
from codec.entropy.tables import PRECISION

VALUES = 256
_DIGIT = 16  # a pixel is coded as two digits, 16·high + low: 2·17 cumulative counts are computed, not 257

_TOTAL = 1 << PRECISION
_MASS = _TOTAL - VALUES  # what is left when every value has its one count
FRACTIONS = 16  # means are multiples of a sixteenth of a level
_FURTHEST = VALUES * FRACTIONS
SCALES, SCALES_PER_E, SMALLEST_SCALE = 48, 6, -2.5  # log-scales -2.5 to 5.33
# What the likeliest pixel costs at least, in both of its digits.
LEAST_BITS = math.log2(_TOTAL / (_MASS + _DIGIT)) + math.log2(_TOTAL / (_TOTAL - _DIGIT + 1))
WEIGHT_STEPS, WEIGHTS_PER_E, _WEIGHT_TOTAL = 64, 8, 1024


class Mixture(NamedTuple):
    """The parameters of one plane, `[B, K, h, w]` each: `logits` of the K weights; `means` and `log_scales`.

    Means are in levels, 0…255 or about so, scales (e to the log_scales) in levels too.
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor


class Rounded(NamedTuple):
    """Mixtures, int32 `[N, K]`: means in sixteenths, scales by index, and by how many eighths logits are behind."""

    means: Tensor
    scales: Tensor
    behind: Tensor


class Integers(NamedTuple):
    """Mixtures as digits are coded with, int32 `[N, K]`: means and scales as in Rounded, weights of 1,024."""

    means: Tensor
    scales: Tensor
    weights: Tensor


class Plane(NamedTuple):
    """Where the pixels of one coding pass lie in their image: from (`top`, `left`), `step` apart both ways.

    `position` is that of their channel in coding order. `phase` is 0 for a first plane; 1, 2, 3 for those at odd
    rows and columns, at odd columns, at odd rows of the grid of twice the resolution, the others being known.
    Planes of one `kind` have their distributions from one network.
    """

    channel: int
    position: int
    top: int
    left: int
    step: int
    phase: int
    kind: int


class LogisticMixture(nn.Module):
    """From the parameters of mixtures to bits, and to bytes and back.

    Training uses the smooth densities. Everything else rounds the parameters to integers and computes with those
    and with two tables: `rises`, half a logistic's cumulative counts per scale and distance in sixteenths of a
    level, and `weights`, e to minus eighths. So a file decodes to the same pixels wherever the parameters are the
    same.
    """

    rises: Tensor
    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        rises, weights = _tables()  # int32: narrower integers cannot be sent from process to process
        self.register_buffer("rises", rises)
        self.register_buffer("weights", weights)

    def tables_are_valid(self) -> bool:
        """Whether the tables, perhaps from a file, are the logistic's but for the rounding of another machine."""
        pairs = zip((self.rises, self.weights), _tables(), strict=True)
        return all(int((mine.cpu().int() - made.int()).abs().max()) <= 1 for mine, made in pairs) and bool(
            (self.rises.diff(dim=1) >= 0).all()
        )

    def bits(self, mixture: Mixture, x: Tensor) -> Tensor:
        """Bits `[B]` of the plane `x` `[B, h, w]`, 0…255: differentiable in training, else those of a file."""
        if self.training:
            return self._smooth_bits(mixture, x)
        (low_a, high_a), (low_b, high_b) = self._intervals(self.integers(mixture), x.flatten().int())
        bits = 2 * PRECISION - torch.log2((high_a - low_a).float()) - torch.log2((high_b - low_b).float())
        return bits.view(x.shape).sum((1, 2))

    def encode(self, mixture: Mixture, x: Tensor) -> list[bytes]:
        """The plane `x` `[1, h, w]` as two strings, its high digits and its low ones."""
        intervals = self._intervals(self.integers(mixture), x.flatten().int())
        return [coder.encode_intervals(low, high) for low, high in intervals]

    def decode(self, mixture: Mixture, strings: list[bytes]) -> Tensor:
        """The plane, float `[1, h, w]`, that `encode` was given. Raises BitstreamError (see coder.decode)."""
        parameters = self.integers(mixture)
        count = parameters.means.shape[0]
        ends = torch.arange(0, VALUES + 1, _DIGIT, device=parameters.means.device, dtype=torch.int32)

        def rows_of_high(part: slice) -> np.ndarray:
            chosen = Integers(*(values[part] for values in parameters))
            return _wrapped(self._cumulative(chosen, ends.expand(len(chosen.means), -1)))

        high = coder.decode_rows(strings[0], count, rows_of_high).to(ends) * _DIGIT

        def rows_of_low(part: slice) -> np.ndarray:
            chosen = Integers(*(values[part] for values in parameters))
            counts = self._cumulative(chosen, high[part, None] + ends.new_tensor(range(_DIGIT + 1)))
            return _wrapped(_within(counts))

        low = coder.decode_rows(strings[1], count, rows_of_low).to(ends)
        return (high + low).view(mixture.means[:, 0].shape).float()

    def told(self, mixture: Mixture) -> tuple[Tensor, ...]:
        """All integers that a plane's counts are made of: of each pixel the mixture's, `[N, K]`, and the tables."""
        return *self.integers(mixture), self.rises, self.weights

    def rounded(self, mixture: Mixture) -> Rounded:
        """The parameters as integers, N pixels of one plane after the other."""

        def to_integers(values: Tensor, low: float, high: float) -> Tensor:
            # The clamp comes first: what a float32 cannot hold as an integer must not be made one.
            return values.clamp(low, high).round_().int().movedim(1, -1).flatten(0, 2)

        behind = (mixture.logits.amax(1, keepdim=True) - mixture.logits) * WEIGHTS_PER_E
        return Rounded(
            to_integers(mixture.means * FRACTIONS, -_FURTHEST, 2 * _FURTHEST),
            to_integers((mixture.log_scales - SMALLEST_SCALE) * SCALES_PER_E, 0, SCALES - 1),
            to_integers(behind, 0, WEIGHT_STEPS - 1),
        )

    def integers(self, mixture: Mixture) -> Integers:
        """What digits are coded with, N pixels of one plane after the other."""
        means, scales, behind = self.rounded(mixture)
        weights = self.weights[behind.long()]
        weights = weights * _WEIGHT_TOTAL // weights.sum(1, keepdim=True)
        missing = (_WEIGHT_TOTAL - weights.sum(1, keepdim=True)).to(weights)
        first = torch.zeros_like(weights).scatter_(1, behind.argmin(1, keepdim=True), missing)
        return Integers(means, scales, (weights + first).int())

    def _smooth_bits(self, mixture: Mixture, x: Tensor) -> Tensor:
        x = x[:, None]
        inverse = torch.exp(-mixture.log_scales.clamp(SMALLEST_SCALE, SMALLEST_SCALE + SCALES / SCALES_PER_E))
        centred, half = (x - mixture.means) * inverse, 0.5 * inverse
        upper = torch.sigmoid(centred + half).masked_fill(x >= VALUES - 1, 1.0)
        lower = torch.sigmoid(centred - half).masked_fill(x <= 0, 0.0)
        mass = (torch.softmax(mixture.logits, 1) * (upper - lower)).sum(1)
        return -torch.log2((mass * _MASS + 1) / _TOTAL).sum((1, 2))

    def _intervals(self, parameters: Integers, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Lower and upper counts `[N]` of the high digits of `x` `[N]`, and those of the low ones."""
        start = x // _DIGIT * _DIGIT
        counts = self._cumulative(parameters, torch.stack([start, x, x + 1, start + _DIGIT], 1))
        first, last = counts[:, :1].long(), counts[:, 3:].long()
        digit = (x - start)[:, None]
        lower, upper = (
            ((counts[:, n, None] - first) * (_TOTAL - _DIGIT) // (last - first) + digit + k)[:, 0]
            for n, k in ((1, 0), (2, 1))
        )
        return (counts[:, 0], counts[:, 3]), (lower, upper)

    def _cumulative(self, parameters: Integers, ends: Tensor) -> Tensor:
        """Cumulative counts below each of `ends` `[N, T]`, 0…256: int32 `[N, T]`, 0 at 0 and 65536 at 256."""
        below = torch.zeros_like(ends)
        at = ends * FRACTIONS - FRACTIONS // 2
        rises, columns = self.rises.flatten(), self.rises.shape[1]
        for k in range(parameters.means.shape[1]):
            distance = at - parameters.means[:, k, None]
            index = parameters.scales[:, k, None] * columns + distance.abs().clamp(max=columns - 1)
            rise = rises[index] * distance.sign()
            below += parameters.weights[:, k, None] * rise
        counts = (below + _WEIGHT_TOTAL * (_MASS // 2)) // _WEIGHT_TOTAL + ends
        return counts.masked_fill(ends == 0, 0).masked_fill(ends == VALUES, _TOTAL)


def _within(counts: Tensor) -> Tensor:
    """Rows of cumulative counts `[N, 17]` of one high digit, stretched to 0…65536."""
    first, last = counts[:, :1].long(), counts[:, -1:].long()
    stretched = (counts - first) * (_TOTAL - _DIGIT) // (last - first)
    return (stretched + torch.arange(_DIGIT + 1, device=counts.device)).int()


def _wrapped(counts: Tensor) -> np.ndarray:
    return counts.cpu().numpy().astype(np.uint16)


def _tables() -> tuple[Tensor, Tensor]:
    log_scales = torch.arange(SCALES, dtype=torch.float64) / SCALES_PER_E + SMALLEST_SCALE
    distances = torch.arange(_FURTHEST + 1, dtype=torch.float64) / FRACTIONS
    rises = (_MASS * (torch.sigmoid(distances / log_scales.exp()[:, None]) - 0.5)).round().to(torch.int32)
    weights = [round(_TOTAL * math.exp(-n / WEIGHTS_PER_E)) for n in range(WEIGHT_STEPS)]
    return rises, torch.tensor(weights, dtype=torch.int32)
