"""What is common to the priors that condition on what is decoded: a walk in passes, and a network for each.

A pass codes some channels at some positions of one tensor: of every 2×2 positions the offsets that are its own. Its
distributions follow from the tensor's levels that are known by then, in a neighbourhood of each position, and from
features of everything coarser. Networks are exact (codec.networks.exact), so every machine predicts the same.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.checks import check_integer
from codec.entropy.laplace import Laplace, LaplaceTables
from codec.entropy.priors.factorized import part_name
from codec.entropy.priors.hyper import Hyper
from codec.entropy.priors.pass_network import (
    KNOT_UNIT,
    Coarser,
    CoarserFeatures,
    Known,
    Offset,
    PassNetwork,
    by_offset,
    spread,
)
from codec.entropy.priors.prior import Prior, Size
from codec.entropy.walk import Code
from codec.errors import ArgumentError
from codec.networks.rate import nearness_to_knots

# The offsets, (row, column) modulo 2, that are coded at a time; with two, a checkerboard (He et al. 2021,
# https://arxiv.org/abs/2103.15306).
PHASES: dict[int, tuple[tuple[Offset, ...], ...]] = {
    1: (((0, 0), (1, 1), (0, 1), (1, 0)),),
    2: (((0, 0), (1, 1)), ((0, 1), (1, 0))),
    4: (((0, 0),), ((1, 1),), ((0, 1),), ((1, 0),)),
}


class Group(NamedTuple):
    """Channels of a tensor that are coded together, in `phases` (1, 2 or 4) passes over the positions."""

    channels: tuple[int, ...]
    phases: int


class ContextPrior(Prior):
    """Codes a latent tensor by tensor, group by group, phase by phase, each pass conditioned on all before it.

    `channels` are those of each tensor, coarse to fine, `groups` those of every tensor in coding order, `features`
    the networks' width. With `hyper`, every tensor has side information (see Hyper), coded before it.
    """

    def __init__(
        self, channels: Sequence[int], groups: Sequence[Sequence[Group]], features: int, hyper: bool = False
    ) -> None:
        super().__init__()
        check_integer("features", features, 1)
        for count, of_tensor in zip(channels, groups, strict=True):
            if sorted(c for group in of_tensor for c in group.channels) != list(range(count)):
                raise ArgumentError("groups", of_tensor, f"each of the channels 0 to {count - 1} belongs to one")
        self.channels = list(channels)
        self.passes = [
            [(group.channels, offsets) for group in of_tensor for offsets in PHASES[group.phases]]
            for of_tensor in groups
        ]
        self.tables = LaplaceTables()
        self.features = nn.ModuleList(
            CoarserFeatures(count, features, first=n == 0) for n, count in enumerate(channels[:-1])
        )
        self.hypers = nn.ModuleList(Hyper(count, features) for count in channels) if hyper else None
        self.networks = nn.ModuleList(
            nn.ModuleList(
                PassNetwork(
                    count,
                    len(coded),
                    features,
                    neighbours=number > 0,
                    coarser_channels=channels[n - 1] if n else 0,
                    features_in=features * ((n > 0) + hyper),
                )
                for number, (coded, _) in enumerate(self.passes[n])
            )
            for n, count in enumerate(channels)
        )

    def visit(
        self,
        levels: Sequence[Tensor] | None,
        sizes: Sequence[tuple[int, int, int]],
        code: Code,
        quality: Tensor | None = None,
    ) -> list[Tensor]:
        knots = self.knots(quality, sizes[0][0])
        features = None
        decoded: list[Tensor] = []
        for n, (batch, height, width) in enumerate(sizes):
            told = []
            magnitudes = None
            if n:
                features = self.features[n - 1](decoded[-1], features, (height, width))
                told.append(features)
                magnitudes = spread(Known.of(decoded[-1]).magnitudes, (-(-height // 2), -(-width // 2)))
            if self.hypers is not None:
                told.append(self.hypers[n].visit(levels and levels[n], sizes[n], code, not self.training))
            coarser = Coarser(by_offset(torch.cat(told, 1)) if told else None, magnitudes)
            known = knots.new_zeros(batch, self.channels[n], height, width)
            for number in range(len(self.passes[n])):
                known = self._pass(n, number, known, levels and levels[n], coarser, knots, code)
            decoded.append(known)
        return decoded

    def least_bits(self, sizes: Sequence[Size]) -> float:
        least = float(self.tables.least_bits_of_rows().min())
        bits = least * sum(c * height * width for c, (height, width) in zip(self.channels, sizes, strict=True))
        return bits + sum(map(Hyper.least_bits, self.hypers or (), sizes))

    def _pass(
        self,
        n: int,
        number: int,
        known: Tensor,
        levels: Tensor | None,
        coarser: Coarser,
        knots: Tensor,
        code: Code,
    ) -> Tensor:
        """`known` with the levels of one pass over the `n`th tensor in it."""
        (channels, offsets), network = self.passes[n][number], self.networks[n][number]
        picked = _picking(channels, known.device)
        # Of the channels behind these nothing is known, so that sums over them would add zeros.
        reached = max((1 + channel for coded, _ in self.passes[n][:number] for channel in coded), default=0)
        seen = Known.of(known[:, :reached])
        height, width = known.shape[-2:]
        there = [(row, column) for row, column in offsets if row < height and column < width]
        if not there:
            return known
        shapes = [(-(-(height - row) // 2), -(-(width - column) // 2)) for row, column in there]
        predicted = [network(seen, coarser, knots, *at) for at in zip(there, shapes, strict=True)]
        mean, log_scale = (torch.cat([p.flatten(2) for p in of], 2) for of in zip(*predicted, strict=True))
        coded = None
        if levels is not None:
            coded = torch.cat([levels[:, picked, row::2, column::2].flatten(2) for row, column in there], 2)
        coded = code(part_name(n), Laplace(self.tables, mean, log_scale), coded)
        known = known.clone()
        for (row, column), (m, _) in zip(there, predicted, strict=True):
            here, coded = coded.split([m[0, 0].numel(), coded.shape[2] - m[0, 0].numel()], 2)
            known[:, picked, row::2, column::2] = here.view(m.shape)
        return known

    def knots(self, quality: Tensor | None, batch: int) -> Tensor:
        """How near each image's quality, 0–100, is to each knot's: whole numbers 0…256, `[B, KNOTS, 1, 1]`."""
        if quality is None:
            quality = self.tables.shape.new_full((batch,), 50.0)
        return torch.floor(nearness_to_knots(quality) * KNOT_UNIT + 0.5)


@cache
def _picking(channels: tuple[int, ...], device: torch.device) -> slice | Tensor:
    """An index of these channels, made once: of neighbours a slice, which copies nothing."""
    neighbours = range(channels[0], channels[-1] + 1)
    if channels == tuple(neighbours):
        return slice(neighbours.start, neighbours.stop)
    return torch.tensor(channels, device=device)
