"""Starts a context prior as a context model: its linear parts are fitted by least squares before training begins.

For each coded channel of each pass, the mean is regressed on the known levels around a position, and the magnitude
of what is left on the known magnitudes there and in what is coarser, in turns. Errors count relative to the
magnitude, as they do for the bits.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.entropy.priors.context import ContextPrior
from codec.entropy.priors.pass_network import MANY, SLOWNESS, Coarser, Known, Offset, PassNetwork, around, spread

_ROUNDS = 2
_SMALLEST = 0.2  # of a level: what is added to the magnitude that errors are relative to
_RIDGE = 1e-3  # of each regressor's square
_MOST = 160  # regressors, those that correlate most
_MOST_VALUES = 12_000_000  # of all regressors of a pass, for memory's sake


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
            coarser = Coarser(
                magnitudes=spread(Known.of(levels[n - 1]).magnitudes, (-(-height // 2), -(-width // 2)))
            )
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
    levels, magnitudes, values = (torch.cat(of) for of in zip(*samples, strict=True))
    told_levels = levels.abs().sum(0) > 0
    told_magnitudes = magnitudes.abs().sum(0) > 0
    means = levels.new_zeros(coded.shape[1], levels.shape[1])
    weights = levels.new_zeros(coded.shape[1], magnitudes.shape[1])
    for k, y in enumerate(values.unbind(1)):
        magnitude = y.abs().mean().expand_as(y)
        mean = torch.zeros_like(y)
        for _ in range(_ROUNDS):
            importance = 1 / (magnitude + _SMALLEST)
            if bool(told_levels.any()):
                means[k, told_levels] = _least_squares(levels[:, told_levels], y, importance)
                mean = levels @ means[k]
            weights[k, told_magnitudes] = _least_squares(
                magnitudes[:, told_magnitudes], (y - mean).abs(), importance
            )
            magnitude = (magnitudes @ weights[k]).clamp(min=0)
    if network.mean is not None:
        network.mean.weight.copy_(SLOWNESS * means.view_as(network.mean.weight))
    parts = [p for p in (network.magnitude, network.coarser_magnitude, network.constant) if p is not None]
    for part, weight in zip(parts, weights.split([part.weight[0].numel() for part in parts], 1), strict=True):
        part.weight.copy_(SLOWNESS * weight.reshape(part.weight.shape))


def _samples(
    network: PassNetwork, known: Known, coarser: Coarser, knots: Tensor, coded: Tensor, offset: Offset, rows: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Regressors of the mean and of the magnitude, and the coded values, at some of the positions: `[rows, …]`."""
    row, column = offset
    coded = coded[..., row::2, column::2]
    height, width = coded.shape[-2:]
    coded = coded.flatten(2)
    chosen = torch.randperm(height * width)[: max(1, rows // len(coded))]
    samples = []
    for n in range(len(coded)):  # one image at a time, for memory's sake
        levels, magnitudes = (
            around(x[n : n + 1], offset, network.kernel) for x in (known.levels, known.magnitudes)
        )
        levels, magnitudes = (F.unfold(x, network.kernel, stride=2)[0][:, chosen] for x in (levels, magnitudes))
        told = [magnitudes] if network.magnitude is not None else []
        if network.coarser_magnitude is not None:
            around_each = F.unfold(coarser.magnitudes[n : n + 1], 3, padding=1)[0]
            grid = around_each.unflatten(1, coarser.magnitudes.shape[-2:])  # of an odd size, wider than the pass
            told.append(grid[:, :height, :width].flatten(1)[:, chosen])
        told.append(knots[n].flatten(1).expand(-1, len(chosen)))
        samples.append((levels.T, torch.cat(told).T, coded[n][:, chosen].T))
    return tuple(torch.cat(of) for of in zip(*samples, strict=True))


def _least_squares(regressors: Tensor, values: Tensor, importance: Tensor) -> Tensor:
    """The weight of each regressor, 0 for all but the most telling ones."""
    weighted, target = regressors * importance[:, None], values * importance
    told = (weighted.T @ target).abs() / weighted.square().sum(0).clamp(min=1e-9).sqrt()
    chosen = told.argsort(descending=True)[:_MOST]
    weighted = weighted[:, chosen]
    squares = (weighted.T @ weighted).double()
    squares += torch.diag(squares.diagonal() * _RIDGE + 1e-9)
    weights = torch.zeros_like(told)
    weights[chosen] = torch.linalg.solve(squares, (weighted.T @ target).double()).float()
    return weights
