"""MovingAverage: an exponential moving average of the weights, which is what is validated and saved."""

from functools import partial

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from codec.checks import check_integer
from codec.errors import ArgumentError


class MovingAverage(WeightAveraging):
    """Keeps `decay` of the average at every update, of which there is one in `every_n_steps` steps.

    It begins with less, (1 + n) / (10 + n) at the nth update, so that of a short training, too, the average is of
    its end, and not mostly the weights that it began with (as in TensorFlow's `ExponentialMovingAverage`).
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1) -> None:
        if type(decay) not in (int, float) or not 0 <= decay < 1:
            raise ArgumentError("decay", decay, "allowed are numbers from 0 up to, not including, 1")
        check_integer("every_n_steps", every_n_steps, 1)
        super().__init__(multi_avg_fn=partial(_average_, decay))
        self.every_n_steps = every_n_steps

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Asked by Lightning after every step and every epoch."""
        return step_idx is not None and step_idx % self.every_n_steps == 0


def _average_(decay: float, averages: list[Tensor], currents: list[Tensor], updates: Tensor) -> None:
    """All tensors of one type at once: a context prior has so many that a GPU would wait for Python's loop."""
    if not averages[0].is_floating_point():  # what is counted
        torch._foreach_copy_(averages, currents)
        return
    kept = torch.clamp((1 + updates) / (10 + updates), max=decay)
    apart = torch._foreach_sub(currents, averages)
    torch._foreach_mul_(apart, (1 - kept).to(averages[0].dtype))
    torch._foreach_add_(averages, apart)
