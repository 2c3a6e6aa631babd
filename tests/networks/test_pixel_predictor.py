"""The pixel predictor: what each channel's distributions depend on."""

import pytest
import torch
from conftest import noise
from torch import Tensor

from codec.networks.pixel_predictor import POLYPHASE, PixelPredictor


def predictor() -> PixelPredictor:
    torch.manual_seed(0)
    made = PixelPredictor(1, POLYPHASE[1, 1], 3, features=4, width=12, blocks=1, components=2, gates=2, join=3)
    with torch.no_grad():
        for head in made.heads:
            head.weight += 0.1 * torch.randn_like(head.weight)
    return made.eval()


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Of little contrast: errors are clamped."""
    known, features = ((128 + 4 * noise(1, n, 6, 7, seed=n)).round() for n in (3, 4))
    return known, features, (128 + 4 * noise(1, 3, 5, 7, seed=5)).round().byte()


def parameters(made: PixelPredictor, known: Tensor, features: Tensor, plane: Tensor) -> list[tuple[Tensor, ...]]:
    return [found for found, _, _ in made(known, features, plane)]


@pytest.mark.parametrize("training", [False, True])
def test_a_network_sees_the_errors_of_the_channels_before(training: bool) -> None:
    made = predictor().train(training)
    known, features, plane = inputs()
    with torch.set_grad_enabled(training):
        before = parameters(made, known, features, plane)
        other = plane.clone()
        other[:, made.order[1], 2, 3] += 9
        after = parameters(made, known, features, other)
    for n in (0, 1):  # its own pixels are not known when a channel is predicted
        assert all(map(torch.equal, before[n], after[n]))
    log_scales = [found[2][2][..., 2, 3] for found in (before, after)]  # which are the network's alone
    assert not torch.equal(*log_scales)


def test_with_gradients_wanted_it_predicts_the_same() -> None:
    made, given = predictor(), inputs()
    with torch.no_grad():
        expected = parameters(made, *given)
    for ones, others in zip(expected, parameters(made, *given), strict=True):
        assert all(map(torch.equal, ones, others))
