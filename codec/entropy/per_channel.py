"""A learned distribution per channel, the same at every position.

Ballé, Minnen, Singh, Hwang, Johnston, "Variational image compression with a scale hyperprior" (ICLR 2018),
appendix 6.1, https://arxiv.org/abs/1802.01436. Differs from it in one thing: the density is cut off half a level
beyond the alphabet −R … R and normalised. A level outside is escaped (see codec.entropy.unbounded).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.checks import check_integers
from codec.entropy import unbounded
from codec.entropy.rdoq import cheaper
from codec.entropy.tables import PRECISION, CodingTables

# The network sees the alphabet as [-4, 4], over which its initial logistic density is spread.
_SPAN = 8.0
# Logits that differ by less, in float32, are taken to differ by this: the logarithm of their gap stays finite.
_SMALLEST_GAP = 1e-7
# How likely a level without a symbol of its own may be: at some twenty bits for each, that costs next to nothing.
_ESCAPED = 2.0**-15


class ChannelTables(CodingTables):
    """P(level | channel) as the mass of a learned monotone cumulative function over [level − ½, level + ½].

    `channels` C are the latent's, the alphabet is −`reach` … `reach`; `filters` are the widths of the cumulative
    network.
    """

    def __init__(self, channels: int, reach: int, filters: Sequence[int] = (3, 3, 3)) -> None:
        super().__init__()
        check_integers("filters", filters, lowest=1)
        self.channels = channels
        self.reach = reach
        self.levels = 2 * reach + 1
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

        self.make_room(channels, self.levels + 1)

    def bits(self, levels: Tensor) -> Tensor:
        """Bits of each of `levels`, float `[…, B, C, H, W]`, which need not be whole."""
        by_channel = levels.transpose(0, -3)
        x = by_channel.reshape(self.channels, 1, -1)  # (C, 1, … · B · H · W)
        # What the tables charge: every level keeps one count of 65536, so none is free and none costs over 16 bits.
        total = 1 << PRECISION
        bits = -torch.log2((self._mass(x) * (total - self.levels - 1) + 1) / total)
        return bits.view(by_channel.shape).transpose(0, -3)

    def pmf(self) -> Tensor:
        """P(level) of every channel, float `[C, 2r + 2]`, the last for whatever lies outside −r … r.

        r is the least that leaves next to nothing outside in any channel: narrow tables are decoded sooner.
        """
        matrix = self.matrices[0]
        x = torch.arange(-self.reach, self.reach + 1, device=matrix.device, dtype=matrix.dtype)
        mass = self._mass(x.expand(self.channels, 1, -1))[:, 0]
        below, above = mass[:, : self.reach].double(), mass[:, self.reach + 1 :].double()
        # Outside −r … r lies, for r from R − 1 down to 0, what is found from both ends on.
        outside = (below + above.flip(1)).cumsum(1)
        cut = int((outside <= _ESCAPED).all(0).sum())
        escaped = outside[:, cut - 1 : cut].to(mass) if cut else mass.new_zeros(self.channels, 1)
        return torch.cat([mass[:, cut : self.levels - cut], escaped], 1)

    def _mass(self, levels: Tensor) -> Tensor:
        ends = torch.arange(2, device=levels.device, dtype=levels.dtype) * self.levels - 0.5
        first, last = self._logits(ends.expand(self.channels, 1, 2)).chunk(2, dim=-1)
        levels = levels + self.reach
        return (_log_mass(self._logits(levels + 0.5), self._logits(levels - 0.5)) - _log_mass(last, first)).exp()

    def _logits(self, levels: Tensor) -> Tensor:
        x = ((levels + 0.5) / self.levels - 0.5) * _SPAN  # (C, 1, N)
        for n, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if n < len(self.factors):
                x = x + torch.tanh(self.factors[n]) * torch.tanh(x)
        return x


class PerChannel:
    """The distributions of latents of `size` (B, H, W): a Distribution."""

    def __init__(self, model: ChannelTables, size: tuple[int, int, int]) -> None:
        self.model, self.size = model, size

    @property
    def shape(self) -> tuple[int, ...]:
        batch, height, width = self.size
        return batch, self.model.channels, height, width

    def at(self, part: slice) -> "PerChannel":
        batch, height, width = self.size
        return PerChannel(self.model, (batch, len(range(height)[part]), width))

    def bits(self, levels: Tensor) -> Tensor:
        return self.model.bits(levels)

    @staticmethod
    def total_bits(passes: Sequence[tuple["PerChannel", Tensor]]) -> Tensor:
        return sum(one.bits(levels).flatten(1).sum(1) for one, levels in passes)

    def file_bits(self, levels: Tensor) -> Tensor:
        integers, index = levels.long().flatten(-4), self._index().to(levels.device)
        return unbounded.file_bits(integers, index, self.model.costs(), self._shifts()).view(levels.shape)

    def cheaper(self, targets: Tensor, worth: Tensor) -> Tensor:
        return cheaper(targets, worth, self.file_bits)

    def encode(self, levels: Tensor) -> bytes:
        return unbounded.encode(levels.long().flatten(), self._index(), self.model.current_tables(), self._shifts())

    def decode(self, data: bytes) -> Tensor:
        tables = self.model.current_tables()
        batch, height, width = self.size
        integers = unbounded.decode(data, self._index(), tables, self._shifts())
        return integers.view(batch, -1, height, width).to(tables.device, torch.float32)

    def told(self) -> tuple[Tensor, ...]:
        return self._index(), self.model.current_tables()

    def _index(self) -> Tensor:
        batch, height, width = self.size
        return torch.arange(self.model.channels).repeat_interleave(height * width).repeat(batch)

    def _shifts(self) -> Tensor:
        return torch.zeros(self.model.channels, dtype=torch.int64, device=self.model.tables.device)


def _log_mass(upper: Tensor, lower: Tensor) -> Tensor:
    """log(sigmoid(upper) − sigmoid(lower)), upper > lower: in the tails, too, where the difference underflows."""
    gap = (lower - upper).clamp(max=-_SMALLEST_GAP)
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(gap))
