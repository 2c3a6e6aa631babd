"""What is common to the priors that condition on what is decoded: a walk in passes, and a network for each.

A pass codes some channels at some positions of one tensor: of every 2×2 positions the offsets that are its own. Its
distributions follow from the tensor's levels that are known by then, in a neighbourhood of each position, and from
features of everything coarser. Networks are exact (codec.networks.exact), so every machine predicts the same.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.checks import check_integer
from codec.entropy.laplace import LaplaceTables
from codec.entropy.priors.at_once import AtOnce
from codec.entropy.priors.blocks import Blocks, features_in_blocks, magnitudes_in_bytes
from codec.entropy.priors.factorized import part_name
from codec.entropy.priors.hyper import Hyper
from codec.entropy.priors.pass_network import (
    KNOT_UNIT,
    CoarserFeatures,
    Offset,
    PassNetwork,
    on_half_grid,
)
from codec.entropy.priors.positions import offsets_inside, told
from codec.entropy.priors.prior import Prior, Size
from codec.entropy.rdoq import BitsAhead, Targets
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

    arithmetic = "weights of 8 bits"

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
        self.has_side_information = hyper
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
        levels: Sequence[Tensor | Targets] | None,
        sizes: Sequence[tuple[int, int, int]],
        code: Code,
        quality: Tensor | None = None,
    ) -> list[Tensor]:
        knots = self.knots(quality, sizes[0][0])
        smooth = self.training or torch.is_grad_enabled() or isinstance(code, BitsAhead)
        features = None
        decoded: list[Tensor] = []
        for n, size in enumerate(sizes):
            beside = []
            magnitudes = None
            if n:
                next_features = CoarserFeatures.__call__ if smooth else features_in_blocks
                features = next_features(self.features[n - 1], decoded[-1], features, size[1:])
                beside.append(features)
                to_half_grid = on_half_grid if smooth else magnitudes_in_bytes
                magnitudes = to_half_grid(decoded[-1], size[1:])
            mine = levels and levels[n]
            if self.hypers is not None:
                beside.append(self.hypers[n].visit(mine, size, code, not self.training))
            walk = self._walk(n, size, mine, beside, magnitudes, knots, smooth)
            decoded.append(self._walked(n, walk, mine, code))
            del walk, beside  # what they hold would live on beside what the next tensor needs
        return decoded

    def least_bits(self, sizes: Sequence[Size]) -> float:
        least = float(self.tables.least_bits_of_rows().min())
        bits = least * sum(c * height * width for c, (height, width) in zip(self.channels, sizes, strict=True))
        return bits + sum(map(Hyper.least_bits, self.hypers or (), sizes))

    def _walk(
        self,
        n: int,
        size: tuple[int, int, int],
        levels: Tensor | Targets | None,
        told: Sequence[Tensor],
        magnitudes: Tensor | None,
        knots: Tensor,
        smooth: bool,
    ) -> AtOnce | Blocks:
        """What goes through the passes of the `n`th tensor: for a gradient, or in the levels' own memory."""
        shape = size[0], self.channels[n], *size[1:]
        if smooth:
            # As weights lie where training is quick, or every convolution would copy it.
            known = knots.new_zeros(shape).contiguous(memory_format=torch.channels_last)
            return AtOnce(self.tables, known, told, magnitudes, knots)
        known = levels.real if isinstance(levels, Targets) else levels
        if known is None:
            known = knots.new_zeros(shape, dtype=torch.int16)
        return Blocks(self.tables, known, told, magnitudes, knots)

    def _walked(self, n: int, walk: AtOnce | Blocks, levels: Tensor | Targets | None, code: Code) -> Tensor:
        """The `n`th tensor, as `code` gives it back pass by pass."""
        for (channels, offsets), network, reached in self._passes(n):
            at = offsets_inside(offsets, walk.known.shape[-2:])
            if at:
                # Without names, or those of one pass would live on through the next one.
                walk.learn(
                    code(
                        part_name(n),
                        walk.predicted(network, channels, reached, at),
                        told(levels, channels, at, walk.symbols),
                    ),
                    channels,
                    at,
                )
        return walk.known

    def _passes(self, n: int) -> Iterator[tuple[tuple[tuple[int, ...], tuple[Offset, ...]], PassNetwork, int]]:
        """Of every pass its channels and offsets, its network, and of how many channels something is known.

        Of the channels behind these nothing is, so that sums over them would add zeros.
        """
        reached = 0
        for coded, network in zip(self.passes[n], self.networks[n], strict=True):
            yield coded, network, reached
            reached = max(reached, 1 + max(coded[0]))

    def knots(self, quality: Tensor | None, batch: int) -> Tensor:
        """How near each image's quality, 0–100, is to each knot's: whole numbers 0…256, `[B, KNOTS, 1, 1]`."""
        if quality is None:
            quality = self.tables.shape.new_full((batch,), 50.0)
        return torch.floor(nearness_to_knots(quality) * KNOT_UNIT + 0.5)
