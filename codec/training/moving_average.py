"""MovingAverage: an exponential moving average of the weights, which is what is validated and saved."""

from itertools import chain

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel

from codec.checks import check_integer
from codec.errors import ArgumentError


class MovingAverage(WeightAveraging):
    """Keeps `decay` of the average at every update, of which there is one in `every_n_steps` steps.

    It begins with less, (1 + n) / (10 + n) after n updates, so that of a short training, too, the average is of
    its end, and not mostly the weights that it began with (as in TensorFlow's `ExponentialMovingAverage`).
    """

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1) -> None:
        if type(decay) not in (int, float) or not 0 <= decay < 1:
            raise ArgumentError("decay", decay, "allowed are numbers from 0 up to, not including, 1")
        check_integer("every_n_steps", every_n_steps, 1)
        super().__init__()
        self.decay = decay
        self.every_n_steps = every_n_steps

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._average_model = _Average(pl_module, self.decay)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Asked by Lightning after every step and every epoch."""
        return step_idx is not None and step_idx % self.every_n_steps == 0


class _Average(AveragedModel):
    """torch's reads from the device how many updates there were, so that a GPU's next step waits for this one."""

    def __init__(self, model: LightningModule, decay: float) -> None:
        super().__init__(model, model.device)
        self.decay = decay
        self._updates: int | None = None

    def update_parameters(self, model: nn.Module) -> None:
        averages, currents = (list(chain(m.parameters(), m.buffers())) for m in (self.module, model))
        if self._updates is None:
            self._updates = int(self.n_averaged)  # a checkpoint's, if one was loaded
            for average, current in zip(averages, currents, strict=True):
                # On the device that trains; and all are updated at once only where both lie in memory in one way.
                average.data = torch.empty_like(current).copy_(average)
        kept = min(self.decay, (1 + self._updates) / (10 + self._updates)) if self._updates else 0.0
        numbers, counts = (
            [[t for t in tensors if t.is_floating_point() == floating] for tensors in (averages, currents)]
            for floating in (True, False)
        )
        with torch.no_grad():
            torch._foreach_lerp_(*numbers, 1 - kept)
            if counts[0]:
                torch._foreach_copy_(*counts)  # what is counted has no average
        self._updates += 1
        self.n_averaged += 1
