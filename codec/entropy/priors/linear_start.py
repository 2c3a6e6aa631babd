"""Starts a context prior as a context model: its linear parts are fitted by least squares before training begins.

For each coded channel of each pass, the mean is regressed on the known levels around a position, and the magnitude
of what is left on the known magnitudes there and in what is coarser, in turns. Errors count relative to the
magnitude, as they do for the bits. A last regression is of the scale that leaves such a magnitude: the two differ
where levels are mostly 0, so wherever a latent has many channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.entropy.priors.context import ContextPrior
from codec.entropy.priors.pass_network import (
    KNOT_UNIT,
    MANY,
    SLOWNESS,
    Coarser,
    Known,
    Offset,
    PassNetwork,
    around,
    on_half_grid,
)

_ROUNDS = 2
_ADDED = 0.2  # of a level: what is added to the magnitude that errors are relative to
_LEAST = 0.25  # of a channel's mean magnitude: predictions are at least that
_RIDGE = 1e-3  # of each regressor's square
# Regressors of a magnitude and of a mean, those that correlate most; twice as many gain nothing.
_MOST_MAGNITUDES, _MOST_LEVELS = 160, 48
_MOST_VALUES = 30_000_000  # of all regressors of a pass, for memory's sake


@torch.no_grad()
def fit_linear(prior: ContextPrior, levels: Sequence[Tensor], quality: Tensor | None, rows: int = 24_000) -> None:
    """Sets the linear weights of `prior` by `levels`, whole numbers `[B, C, H, W]` a tensor, of several images.

    `quality` is as in Prior; at most about `rows` positions of each pass are looked at, drawn at random.
    """
    knots = prior.knots(quality, len(levels[0]))
    for n, tensor in enumerate(levels):
        if tensor.shape[1] > MANY:
            continue
        height, width = tensor.shape[-2:]
        coarser = Coarser()
        if n:
            coarser = Coarser(magnitudes=on_half_grid(levels[n - 1], (height, width)))
        known = torch.zeros_like(tensor)
        for (channels, offsets), network in zip(prior.passes[n], prior.networks[n], strict=True):
            there = [(row, column) for row, column in offsets if row < height and column < width]
            if there:
                _fit_pass(network, Known.of(known), coarser, knots, tensor[:, channels], there, rows)
            for row, column in there:
                known[:, channels, row::2, column::2] = tensor[:, channels, row::2, column::2]


def _fit_pass(
    network: PassNetwork,
    known: Known,
    coarser: Coarser,
    knots: Tensor,
    coded: Tensor,
    offsets: Sequence[Offset],
    rows: int,
) -> None:
    rows = min(rows, _MOST_VALUES // (known.levels.shape[1] * network.kernel**2))
    samples = [_samples(network, known, coarser, knots, coded, at, rows // len(offsets)) for at in offsets]
    levels, magnitudes, constants, values = (torch.cat(of, 1) for of in zip(*samples, strict=True))
    # What is predicted varies as the magnitudes around it do.
    activity = magnitudes.sum(0)
    importance = 1 / (1 + activity + activity.mean())
    telling_levels = _most_telling(levels, values, importance, _MOST_LEVELS)
    telling_magnitudes = _most_telling(magnitudes, values.abs(), importance, _MOST_MAGNITUDES)
    means = levels.new_zeros(len(values), len(levels))
    weights = levels.new_zeros(len(values), len(magnitudes))
    least = levels.new_zeros(len(values), len(constants))
    for k, y in enumerate(values):
        of_mean, of_scale = telling_levels[k], telling_magnitudes[k]
        means[k, of_mean], weight = _fit_channel(y, levels[of_mean], magnitudes[of_scale], constants)
        weights[k, of_scale], least[k] = weight.split([len(of_scale), len(constants)])
    if network.mean is not None:
        network.mean.weight.copy_(SLOWNESS * means.view_as(network.mean.weight))
    weights = torch.cat([weights, least], 1)
    parts = [p for p in (network.magnitude, network.coarser_magnitude, network.constant) if p is not None]
    for part, weight in zip(parts, weights.split([part.weight[0].numel() for part in parts], 1), strict=True):
        part.weight.copy_(SLOWNESS * weight.reshape(part.weight.shape))


def _fit_channel(y: Tensor, levels: Tensor, magnitudes: Tensor, constants: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of the regressors `[R, rows]` of the mean and of the scale of `y` `[rows]`.

    The scale's are the magnitudes and the constants, which tell the quality.
    """
    magnitude = (constants @ y.abs() / constants.sum(1).clamp(min=1e-9)) @ constants / KNOT_UNIT
    magnitudes = torch.cat([magnitudes, constants])
    least = (_LEAST * magnitude).clamp(min=1e-4)
    for _ in range(_ROUNDS):
        importance = 1 / (magnitude + _ADDED)
        of_mean = _least_squares(levels, y, importance)
        deviation = (y - torch.floor(of_mean @ levels + 0.5)).abs()
        magnitude = torch.maximum(_least_squares(magnitudes, deviation, importance) @ magnitudes, least)
    return of_mean, _least_squares(magnitudes, *_scale(magnitude))


def _scale(magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of the Laplace distribution that, rounded, has this mean magnitude, and what its error counts."""
    half = torch.asinh(0.5 / magnitude)  # of 1 / scale
    slope = 2 * magnitude * half.square() / torch.tanh(half)  # of the magnitude over the scale
    return 0.5 / half, slope / (magnitude + magnitude.square()).sqrt()


def _samples(
    network: PassNetwork, known: Known, coarser: Coarser, knots: Tensor, coded: Tensor, offset: Offset, rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Regressors of the mean, of the scale, its constants, and the coded values, at some positions: `[…, rows]`."""
    row, column = offset
    coded = coded[..., row::2, column::2]
    height, width = coded.shape[-2:]
    coded = coded.flatten(2)
    chosen = torch.randperm(height * width)[: max(1, rows // len(coded))]
    samples = []
    for n in range(len(coded)):  # one image at a time, for memory's sake
        around_each = F.unfold(around(known.levels[n : n + 1], [offset], network.kernel), network.kernel, stride=2)
        seen = around_each[0][:, chosen]
        levels = seen if network.mean is not None else seen[:0]
        told = [seen.abs().clamp(max=network.magnitude.reach) if network.magnitude is not None else seen[:0]]
        if network.coarser_magnitude is not None:
            around_each = F.unfold(coarser.magnitudes[n : n + 1], 3)[0]
            rows_of_grid, columns_of_grid = (side - 2 for side in coarser.magnitudes.shape[-2:])
            grid = around_each.unflatten(1, (rows_of_grid, columns_of_grid))  # of an odd size, wider than the pass
            told.append(grid[:, :height, :width].flatten(1)[:, chosen])
        constants = knots[n].flatten(1).expand(-1, len(chosen))
        samples.append((levels, torch.cat(told), constants, coded[n][:, chosen]))
    return tuple(torch.cat(of, 1) for of in zip(*samples, strict=True))


def _most_telling(regressors: Tensor, values: Tensor, importance: Tensor, most: int) -> Tensor:
    """Of the regressors `[R, rows]` the numbers of those that correlate most with each value: `[K, ≤ most]`."""
    share = importance.square() / importance.square().sum()
    centred = (values - (values @ share)[:, None]) * share
    variance = (regressors.square() @ share - (regressors @ share).square()).clamp(min=1e-9)
    correlation = (centred @ regressors.T).abs() / variance.sqrt()
    return correlation.argsort(dim=1, descending=True)[:, :most]


def _least_squares(regressors: Tensor, values: Tensor, importance: Tensor) -> Tensor:
    """The weight of each regressor."""
    weighted = regressors * importance
    squares = (weighted @ weighted.T).double()
    squares += torch.diag(squares.diagonal() * _RIDGE + 1e-9)
    return torch.linalg.solve(squares, (weighted @ (values * importance)).double()).float()
