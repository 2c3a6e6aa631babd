"""Levels around a predicted mean, of a predicted scale: mixtures of two Laplace distributions, coded by tables.

The scale picks a table, one of four for every doubling, and the mean's position between two levels picks it in
eighths. Scales and means that come from exact arithmetic (codec.networks.exact) are the same on every machine, and
so is what is coded with them.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from codec.entropy import unbounded
from codec.entropy.rdoq import cheaper
from codec.entropy.tables import PRECISION, CodingTables

# Mean magnitudes from 2^-5 of a level to 2^10.75 levels.
LOWEST, PER_OCTAVE, SCALES = -5, 4, 64
FRACTIONS = 8
_REACH = 24
# A scale whose magnitudes are larger than this many symbols has its lowest bits written as they are.
_WIDEST = 3.4
_KNOTS = 9
_ROW_BITS = 9  # of a packed integer, for one of SCALES · FRACTIONS rows
_ROWS = (1 << _ROW_BITS) - 1
_IN_CACHE = 1 << 15  # symbols whose bits are counted together
_SOME = 1 << 20  # of decoded levels, that a copy is made of at a time
_FURTHEST = 1 << 21  # no mean lies further away: more than the largest level a prediction is made from, 1,000 times


class LaplaceTables(CodingTables):
    """P(level | mean, scale): two Laplace distributions around the mean, whose shares and widths follow the scale.

    Starts nearly as a single one: in equal shares, of widths 2^±0.3 times `scale`, which is the mean magnitude of
    (level − mean).
    """

    shifts: Tensor

    def __init__(self) -> None:
        super().__init__()
        # By scale: the logit of the first one's share, and the binary logarithms of both widths over the scale.
        start = torch.tensor([0.0, -0.3, 0.3])
        self.shape = nn.Parameter(start[:, None].repeat(1, _KNOTS))
        scales = 2.0 ** (LOWEST + torch.arange(SCALES) / PER_OCTAVE)
        shifts = torch.log2(scales / _WIDEST).ceil().clamp(min=0).long()
        self.register_buffer("shifts", shifts.repeat_interleave(FRACTIONS), persistent=False)
        self.make_room(SCALES * FRACTIONS, 2 * _REACH + 2)

    def pmf(self) -> Tensor:
        with torch.no_grad():
            log_scale = (LOWEST + torch.arange(SCALES, dtype=torch.float64) / PER_OCTAVE)[:, None, None]
            fraction = ((torch.arange(FRACTIONS) - FRACTIONS // 2) / FRACTIONS).double()[:, None]
            step = 2.0 ** self.shifts[::FRACTIONS].cpu().double()[:, None, None]
            # A symbol stands for `step` levels, of which one more lies below the middle than above it.
            first = step * torch.arange(-_REACH, _REACH + 2).double() - (step / 2).floor() - 0.5
            below = self._cumulative(first - fraction, log_scale)
            inside = below.diff(dim=-1)
            outside = 1 - inside.sum(-1, keepdim=True)
            return torch.cat([inside, outside.clamp(min=0)], -1).flatten(0, 1).float()

    def bits(self, levels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Bits of every level `[…, B, C, N]`, which need not be whole; `log_scale` is a binary logarithm."""
        several = levels.shape[: levels.ndim - mean.ndim]
        return self(levels.reshape(*several, -1), mean.flatten(), log_scale.flatten()).view(levels.shape)

    def forward(self, levels: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """`bits` of levels `[…, N]` of N symbols: many operations on each, which is what a compiler makes quick."""
        share, narrow, wide = self._shape_at(log_scale)
        rates = torch.exp2(-wide), torch.exp2(-narrow)  # as `lerp` takes them: its weight is the second one's
        # A level's mass is that of the tail beyond its end next to the mean less that of the tail beyond the other.
        to_end = (levels - mean).abs() - 0.5
        with torch.no_grad():
            side = torch.ones_like(to_end).copysign_(to_end)  # −1: the mean lies between both ends
            # Taken out of both tails, which far away would be 0; nothing depends on how much it is.
            common = to_end.clamp(min=0) * torch.minimum(*rates)
        # Not abs(): a mean often lies on an end, where that has no gradient.
        distance = side * to_end
        exponents = [common - distance * rate for rate in rates]
        others = [side * exponent - rate for exponent, rate in zip(exponents, rates, strict=True)]
        tail, other_tail = (torch.lerp(*map(torch.exp, of), share) for of in (exponents, others))
        doubled = torch.addcmul(1 - side, side, tail) - other_tail
        bits = 1 + math.log2(math.e) * common - torch.log2(doubled)
        # A level that no table has costs the escape and a code that grows with the logarithm of its distance.
        beyond = torch.log1p((bits - PRECISION).clamp(min=0))
        return torch.add(bits.clamp(max=PRECISION), beyond, alpha=2 * math.log2(math.e))

    def _cumulative(self, x: Tensor, log_scale: Tensor) -> Tensor:
        share, narrow, wide = (value.double() for value in self._shape_at(log_scale.float()))
        return share * _below(x, 2**narrow) + (1 - share) * _below(x, 2**wide)

    def _shape_at(self, log_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first's share, and both widths as binary logarithms, at each scale."""
        log_scale = log_scale.clamp(LOWEST, LOWEST + (SCALES - 1) / PER_OCTAVE)
        position = (log_scale - LOWEST) * ((_KNOTS - 1) * PER_OCTAVE / SCALES)
        logit, narrow, wide = _Interpolated.apply(self.shape, position)
        return torch.sigmoid(logit), log_scale + narrow, log_scale + wide


class Laplace:
    """The distributions of one pass: `mean` in levels and `log_scale`, both `[B, …]`; a Distribution."""

    def __init__(self, model: LaplaceTables, mean: Tensor, log_scale: Tensor) -> None:
        self.model, self.mean, self.log_scale = model, mean, log_scale

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mean.shape

    def at(self, part: slice) -> "Laplace":
        return Laplace(self.model, self.mean[:, :, part], self.log_scale[:, :, part])

    def bits(self, levels: Tensor) -> Tensor:
        return self.model.bits(levels, self.mean, self.log_scale)

    @staticmethod
    def total_bits(passes: Sequence[tuple["Laplace", Tensor]]) -> Tensor:
        told = zip(*((levels, one.mean, one.log_scale) for one, levels in passes), strict=True)
        joined = [torch.cat([tensor.flatten(1) for tensor in of], 1) for of in told]
        batch, count = joined[0].shape
        # A GPU wants all at once, a CPU what its cache holds.
        step = count if joined[0].is_cuda else max(1, _IN_CACHE // batch)
        parts = zip(*(tensor.split(step, 1) for tensor in joined), strict=True)
        return sum(passes[0][0].model.bits(*part).sum(1) for part in parts)

    def file_bits(self, levels: Tensor) -> Tensor:
        return self._coded.file_bits(levels)

    def cheaper(self, targets: Tensor, worth: Tensor) -> Tensor:
        return self._coded.cheaper(targets, worth)

    def encode(self, levels: Tensor) -> bytes:
        return self._coded.encode(levels)

    def decode(self, data: bytes) -> Tensor:
        return self._coded.decode(data)

    def told(self) -> tuple[Tensor, ...]:
        return self._coded.told()

    @cached_property
    def _coded(self) -> "CodedLaplace":
        return CodedLaplace(self.model, packed(self.mean, self.log_scale))


class CodedLaplace:
    """As Laplace, for coding only: of each symbol no more is kept than the integer of `packed`, `[B, …]`."""

    def __init__(self, model: LaplaceTables, integers: Tensor) -> None:
        self.model, self.integers = model, integers

    @property
    def shape(self) -> tuple[int, ...]:
        return self.integers.shape

    def at(self, part: slice) -> "CodedLaplace":
        return CodedLaplace(self.model, self.integers[:, :, part])

    def file_bits(self, levels: Tensor) -> Tensor:
        integers = self.integers.flatten()
        several = levels.shape[: levels.ndim - self.integers.ndim]
        beside = levels.reshape(*several, -1).long() - _middle(integers)
        bits = unbounded.file_bits(beside, _row(integers), self.model.costs(), self.model.shifts)
        return bits.view(levels.shape)

    def cheaper(self, targets: Tensor, worth: Tensor) -> Tensor:
        if targets.device.type != "cpu":
            return cheaper(targets, worth, self.file_bits)
        from codec.entropy.unbounded_kernel import take_cheaper

        chosen = targets.clone(memory_format=torch.contiguous_format)
        told = (chosen, worth.expand(chosen.shape), self.integers)
        tables = self.model.costs(), self.model.shifts
        take_cheaper(*(of.numpy() for of in told), _ROW_BITS, *(of.numpy() for of in tables))
        return chosen

    def encode(self, levels: Tensor) -> bytes:
        flat, integers = levels.flatten(), self.integers.flatten()
        beside = _Made(len(flat), lambda part: flat[part].long() - _middle(integers[part]))
        return unbounded.encode(beside, self._rows(integers), self.model.current_tables(), self.model.shifts)

    def decode(self, data: bytes) -> Tensor:
        integers = self.integers.flatten()
        rows, tables = self._rows(integers), self.model.current_tables()
        levels = unbounded.decode(data, rows, tables, self.model.shifts).to(integers.device)
        for some, where in zip(levels.split(_SOME), integers.split(_SOME), strict=True):
            some.add_(where >> _ROW_BITS)
        return levels.view(self.integers.shape)

    def told(self) -> tuple[Tensor, ...]:
        integers = self.integers.flatten()
        return _row(integers), _middle(integers), self.model.current_tables(), self.model.shifts

    @staticmethod
    def _rows(integers: Tensor) -> "_Made":
        return _Made(len(integers), lambda part: integers[part] & _ROWS)


class _Made:
    """Integers `[count]` made where they are asked for; see unbounded.Sliced."""

    def __init__(self, count: int, make: Callable[[slice], Tensor]) -> None:
        self.count, self.make = count, make

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> Tensor:
        return self.make(part)


class _Interpolated(torch.autograd.Function):
    """Of `values` `[V, K]`, which lie at 0 … K − 1, what lies at `position` `[…]` between them: `[V, …]`.

    It can be differentiated once.
    """

    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, values: Tensor, position: Tensor) -> Tensor:
        knot = position.floor().clamp_(0, values.shape[1] - 2)
        # Of nan any knot: what comes of it is nan.
        index, shape = knot.long().clamp_(0, values.shape[1] - 2).flatten(), (len(values), *position.shape)
        rise = values.diff().to(position).index_select(1, index).view(shape)
        context.save_for_backward(position, rise)
        context.knots = values.shape[1]
        return rise * (position - knot) + values.to(position).index_select(1, index).view(shape)

    @staticmethod
    @once_differentiable
    def backward(
        context: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        position, rise = context.saved_tensors
        of_values = of_position = None
        if context.needs_input_grad[0]:
            knots = torch.arange(context.knots, device=position.device)[:, None]
            # By products: to add up at an index is slow where many share it.
            near = (position.flatten() - knots).abs_().neg_().add_(1).clamp_(min=0)
            of_values = gradient.flatten(1) @ near.T
        if context.needs_input_grad[1]:
            of_position = (gradient * rise).sum(0)
        return of_values, of_position


def packed(mean: Tensor, log_scale: Tensor) -> Tensor:
    """What of each distribution a file depends on: the level next to the mean, and the row of its table; int32."""
    eighths = torch.floor(mean.clamp(-_FURTHEST, _FURTHEST) * FRACTIONS + 0.5).int()
    middle = (eighths + FRACTIONS // 2) >> 3
    scale = torch.floor((log_scale - LOWEST) * PER_OCTAVE + 0.5).clamp(0, SCALES - 1).int()
    row = scale * FRACTIONS + eighths - FRACTIONS * middle + FRACTIONS // 2
    return (middle << _ROW_BITS) + row


def _middle(integers: Tensor) -> Tensor:
    return integers.long() >> _ROW_BITS


def _row(integers: Tensor) -> Tensor:
    return integers.long() & _ROWS


def _below(x: Tensor, width: Tensor) -> Tensor:
    tail = 0.5 * torch.exp(-x.abs() / width)
    return torch.where(x < 0, tail, 1 - tail)
