"""Learning rates, epoch by epoch."""

import math

import pytest
import torch
from torch import nn

from codec.errors import ArgumentError
from codec.training.schedules import warm_up_cosine


def rates(epochs: int, **options: float) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = warm_up_cosine(optimizer, epochs, **options)
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_it_begins_at_a_tenth_is_whole_after_the_warm_up_and_falls_along_a_cosine() -> None:
    falling = [1.0 + math.cos(math.pi * n / 4) for n in range(4)]
    assert rates(5) == pytest.approx([0.2, *falling])
    assert rates(6, warm_up=2) == pytest.approx([0.2, 1.1, *falling])


@pytest.mark.parametrize("warm_up", [0, -1, 3, 5, 1.5])
def test_a_warm_up_that_leaves_no_epoch_is_refused(warm_up: float) -> None:
    with pytest.raises(ArgumentError, match="^warm_up="):
        rates(3, warm_up=warm_up)
