"""PixelPredictor: the distributions of one plane of pixels, from pixels that are known already."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.blocks import zero_
from codec.networks.eight_bit import EightBitConv2d
from codec.networks.exact import CODE_MAX, CODE_UNIT, WEIGHT_STEPS, ExactConv2d, codes_, integers_of

# Pixels enter the networks as integers around zero.
MID_GREY = 128

# Green first: it is most like the other two, which are then predicted from it.
CODING_ORDER = {1: (0,), 3: (1, 0, 2)}

_FIRST_GAIN = 2.0  # codes a level, times a first filter's weights
_BRIGHTNESS = 0.1
_MEAN_UNIT = 4.0  # levels by which a head's output of 1 moves a mean
_ERROR_STEPS = 4  # of a level, in what a channel's predictor sees of the channels before
_GATE_STEPS = 128
_LARGEST_DIFFERENCE = 256


class Tap(NamedTuple):
    """A neighbour of the pixels to predict: in known plane `plane`, `down` rows and `right` columns away."""

    plane: int
    down: int
    right: int


# The three planes that double the resolution of a fourth, (0, 0), by their rows and columns modulo 2, in coding
# order, and which neighbours of theirs are known by then: plane 0 is (0, 0), plane 1 the first of these, and so on.
POLYPHASE = {
    (1, 1): (Tap(0, 0, 0), Tap(0, 0, 1), Tap(0, 1, 0), Tap(0, 1, 1)),
    (0, 1): (Tap(0, 0, 0), Tap(0, 0, 1), Tap(1, 0, 0), Tap(1, -1, 0)),
    (1, 0): (Tap(0, 0, 0), Tap(0, 1, 0), Tap(1, 0, 0), Tap(1, 0, -1)),
}


class PixelPredictor(nn.Module):
    """Distributions of the pixels on one grid, channel after channel, each from all that is known before it.

        known planes ─ 3×3 ─┬─ residual blocks ─ h ──┬─ join ─ 1×1 ─→ logits, log-scales, gates, mean corrections
        features ──── 1×1 ──┘    errors before it ───┘
        known planes, channels before it ─ 3×3 ─→ linear prediction + Σ gate · difference

    `planes` planes are known. A mean is a linear prediction, plus `gates` linear differences of neighbours weighted
    by what the network sees (so that it predicts along edges), plus a correction for each of the `components` of
    the mixture. Linear predictions start as the average of `taps`; of a further channel, as that average plus the
    error that was made in the channels before it. Those errors, too low and too high apart, take the place of the
    last of the `width` channels of h, of which `join` × `join` places are seen together. `features` is the width of
    what else is known, at the same grid.
    All arithmetic is exact in evaluation mode (see codec.networks.exact).
    """

    def __init__(
        self,
        planes: int,
        taps: Sequence[Tap],
        image_channels: int,
        features: int,
        width: int,
        blocks: int,
        components: int,
        gates: int,
        join: int,
    ) -> None:
        super().__init__()
        self.components, self.gates = components, gates
        self.order = CODING_ORDER[image_channels]
        self.told = 2 * (image_channels - 1)
        inputs = planes * image_channels
        colours = [n % image_channels for n in range(inputs)]
        self.first = _DifferenceConv2d(colours, width, bias=True, brightness=_BRIGHTNESS)
        self.from_features = zero_(EightBitConv2d(features, width, 1))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.linear = nn.ModuleList(
            _DifferenceConv2d([*colours, *self.order[:n]], 1 + gates, bias=False) for n in range(image_channels)
        )
        self.join = nn.ModuleList(
            EightBitConv2d(width, width, join, padding=join // 2) for _ in range(image_channels)
        )
        self.heads = nn.ModuleList(EightBitConv2d(width, 3 * components + gates, 1) for _ in range(image_channels))
        self._start_simple(taps, image_channels)

    def forward(
        self, known: Tensor, features: Tensor, plane: Tensor, channels: int | None = None
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor, int]]:
        """Yields `(parameters, channel, n)` for the n-th channel of `plane` `[B, C, h, w]` in coding order.

        `known` `[B, n·C, H, W]` are the known planes, 0…255, and `features` `[B, F, H, W]` codes; h ≤ H, w ≤ W.
        `parameters` are those of codec.entropy.Mixture, `[B, K, h, w]` each; `channel` is `[B, h, w]` of `plane`;
        when the next is asked for, it must hold its pixels: a decoder writes them there. `channels` is how many are
        visited; None: all.
        """
        height, width = plane.shape[-2:]
        # What is beyond the border is taken for what is at it.
        known = F.pad(known.float() - MID_GREY, (1, 1, 1, 1), mode="replicate")
        known = known.contiguous(memory_format=torch.channels_last)
        h = self.join[0].taken(codes_(self.first(known).add_(self.from_features(features))))
        for block in self.blocks:
            h = block(h)
        own = h.shape[1] - self.told
        h = _with(h, slice(own, None), 0)
        linear_inputs, order = known, self.order[:channels]
        for n, channel in enumerate(order):
            with torch.autocast(known.device.type, enabled=False):
                linear = self.linear[n](linear_inputs).contiguous()
            # Channel by channel, for what follows works on some of them: 0.4 of the time, copying included.
            p = self.heads[n](self.join[n].coded(h)).float().contiguous() / CODE_UNIT
            predicted = MID_GREY + linear[:, :1] + self._gated(p[:, 3 * self.components :], linear[:, 1:])
            logits, corrections, log_scales = p[:, : 3 * self.components].chunk(3, 1)
            parameters = (logits, predicted + _MEAN_UNIT * corrections, log_scales)
            target = plane[:, channel]
            yield tuple(values[..., :height, :width] for values in parameters), target, n
            if n + 1 < len(order):
                there = fit(target[:, None].float(), known.shape[-2] - 2, known.shape[-1] - 2)
                error = ((there - predicted.detach()) * _ERROR_STEPS).round()
                at = own + 2 * n
                h = _with(h, slice(at, at + 2), torch.cat([error, -error], 1).clamp_(0, CODE_MAX))
                beyond = F.pad(there - MID_GREY, (1, 1, 1, 1), mode="replicate")
                linear_inputs = torch.cat([linear_inputs, beyond], 1)

    def _gated(self, gates: Tensor, differences: Tensor) -> Tensor:
        """The sum of `differences` `[B, G, H, W]`, in levels, each times its gate in [-1, 1]."""
        gates = gates.clamp(-1, 1)
        if not self.training:  # so that the sum is exact
            gates = gates.mul_(_GATE_STEPS).round_().mul_(1 / _GATE_STEPS)
            differences = differences.clamp(-_LARGEST_DIFFERENCE, _LARGEST_DIFFERENCE)
            differences = differences.mul_(CODE_UNIT).round_().mul_(1 / CODE_UNIT)
        return (gates * differences).sum(1, keepdim=True)

    def _start_simple(self, taps: Sequence[Tap], image_channels: int) -> None:
        with torch.no_grad():
            self.first.weight *= _FIRST_GAIN
            for n, join in enumerate(self.join):  # of channels that come after, no error is known
                join.weight[:, join.in_channels - self.told + 2 * n :] = 0
            for n, linear in enumerate(self.linear):
                linear.weight[0].zero_()
                before = self.order[:n]
                for plane, down, right in taps:
                    at = linear.start[0, image_channels * plane :, 1 + down, 1 + right]
                    at[self.order[n]] += 1 / len(taps)
                    for channel in before:
                        at[channel] -= 1 / len(taps) / n
                for position in range(n):
                    linear.start[0, position - n, 1, 1] += 1 / n
            for head in self.heads:
                nn.init.normal_(head.weight, std=0.01)
                nn.init.zeros_(head.bias)
                nn.init.zeros_(head.weight[3 * self.components :])
                scales = slice(2 * self.components, 3 * self.components)
                head.bias[scales] = torch.linspace(0.5, 3.0, self.components)


class _DifferenceConv2d(ExactConv2d):
    """A 3×3 convolution of known pixels whose weights sum to zero over each colour, plus the fixed `start`.

    What it gives depends on differences between pixels only, or nearly so: of the mean, `brightness` is left.
    Pixels of a patch share most of their value; without this, each step of the optimizer would move all of it.
    """

    start: Tensor

    def __init__(self, colours: Sequence[int], outputs: int, bias: bool, brightness: float = 0.0) -> None:
        super().__init__(len(colours), outputs, 3, bias=bias, reach=MID_GREY)
        self.removed = 1 - brightness
        self.register_buffer("start", torch.zeros_like(self.weight), persistent=False)
        self.register_buffer("colours", torch.tensor(colours), persistent=False)
        self.register_buffer("counts", 9 * torch.bincount(self.colours), persistent=False)

    def kernel(self) -> Tensor:
        if self.training:
            means = self._means(self.weight)
        else:  # sums of integers, which no order of adding can change
            means = self._means(integers_of(self.weight).to(self.weight.device)) / WEIGHT_STEPS
        return self.start + self.weight - self.removed * means[:, self.colours, None, None]

    def _means(self, weight: Tensor) -> Tensor:
        """Of each output and colour: `[O, I, 3, 3]` → float32 `[O, C]`."""
        sums = weight.sum((2, 3))
        return sums.new_zeros(len(sums), len(self.counts)).index_add(1, self.colours, sums) / self.counts


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = EightBitConv2d(width, width, 3, padding=1)
        self.b = EightBitConv2d(width, width, 3, padding=1)
        zero_(self.b)

    def forward(self, h: Tensor) -> Tensor:
        return self.b.coded(self.a.coded(h), h)


def _with(h: Tensor, channels: slice, values: Tensor | float) -> Tensor:
    """`h` `[B, W, H, W]` with `values` in some of its channels; written over where no gradient is wanted."""
    h = h.clone() if torch.is_grad_enabled() else h
    h[:, channels] = values
    return h


def fit(plane: Tensor, height: int, width: int) -> Tensor:
    """`plane` `[B, C, h, w]`, not empty, grown to height × width by repeating its last row and column."""
    return F.pad(plane, (0, width - plane.shape[-1], 0, height - plane.shape[-2]), mode="replicate")
