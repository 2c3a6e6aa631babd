"""The factorized prior: one learned distribution per channel, the same at every position.

Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior" (ICLR 2018),
appendix 6.1, https://arxiv.org/abs/1802.01436. Differs from it in one thing: the alphabet is finite (levels
0 … L−1 of a B-bit quantiser), so the density is cut off at −½ and L−½ and normalised.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.checks import check_integers
from codec.entropy.tables import PRECISION

# The network sees the alphabet as [-4, 4], over which its initial logistic density is spread.
_SPAN = 8.0
# Logits that differ by less, in float32, are taken to differ by this: the logarithm of their gap stays finite.
_SMALLEST_GAP = 1e-7


class FactorizedPrior(nn.Module):
    """P(level | channel) as the mass of a learned monotone cumulative function over [level − ½, level + ½].

    `channels` C and `levels` L ≥ 2 are the latent's; `filters` are the widths of the cumulative network.
    """

    def __init__(self, channels: int, levels: int, filters: Sequence[int] = (3, 3, 3)) -> None:
        super().__init__()
        check_integers("filters", filters, lowest=1)
        self.channels = channels
        self.levels = levels
        widths = (1, *filters, 1)
        self.matrices = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.factors = nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            # softplus(start) = 1 / outputs, so that the whole network starts with slope 1
            start = math.log(math.expm1(1 / outputs))
            # Registered, then filled: so a checkpoint's claims are counted before they take memory.
            self.matrices.append(torch.empty(channels, outputs, inputs))
            self.biases.append(torch.empty(channels, outputs, 1))
            nn.init.constant_(self.matrices[-1], start)
            nn.init.uniform_(self.biases[-1], -0.5, 0.5)
        for width in filters:
            self.factors.append(torch.empty(channels, width, 1))
            nn.init.zeros_(self.factors[-1])

    def forward(self, levels: Tensor) -> Tensor:
        """Bits of each image, `[B]`, for `levels`, float `[B, C, H, W]` in [−½, L−½], rounded or noisy."""
        x = levels.transpose(0, 1).reshape(self.channels, 1, -1)  # (C, 1, B·H·W)
        # What the tables charge: every level keeps one count of 65536, so none is free and none costs over 16 bits.
        total = 1 << PRECISION
        bits = -torch.log2((self._mass(x) * (total - self.levels) + 1) / total)
        return bits.reshape(self.channels, levels.shape[0], -1).sum((0, 2))

    def pmf(self) -> Tensor:
        """P(level) of every channel, float `[C, L]`."""
        x = torch.arange(self.levels, device=self.matrices[0].device, dtype=self.matrices[0].dtype)
        return self._mass(x.expand(self.channels, 1, -1))[:, 0]

    def table_index(self, height: int, width: int) -> Tensor:
        """Which row of `pmf` each symbol of a latent `[C, H, W]` is coded with, int64 `[C·H·W]`."""
        return torch.arange(self.channels).repeat_interleave(height * width)

    def table_counts(self, height: int, width: int) -> Tensor:
        """How often `table_index` has each row, int64 `[C]`, without making it."""
        return torch.full((self.channels,), height * width)

    def _mass(self, levels: Tensor) -> Tensor:
        ends = torch.tensor([-0.5, self.levels - 0.5], device=levels.device, dtype=levels.dtype)
        first, last = self._logits(ends.expand(self.channels, 1, 2)).chunk(2, dim=-1)
        return (_log_mass(self._logits(levels + 0.5), self._logits(levels - 0.5)) - _log_mass(last, first)).exp()

    def _logits(self, levels: Tensor) -> Tensor:
        x = ((levels + 0.5) / self.levels - 0.5) * _SPAN  # (C, 1, N)
        for n, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if n < len(self.factors):
                x = x + torch.tanh(self.factors[n]) * torch.tanh(x)
        return x


def _log_mass(upper: Tensor, lower: Tensor) -> Tensor:
    """log(sigmoid(upper) − sigmoid(lower)), upper > lower: in the tails, too, where the difference underflows."""
    gap = (lower - upper).clamp(max=-_SMALLEST_GAP)
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(gap))
