"""How far a training is: a bar in a terminal, a line now and then in a log."""

import os
import sys
import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from torch import Tensor

from codec.checks import check_positive


def progress(seconds: float) -> ProgressBar:
    """What suits standard output: a bar, or where that is no terminal a line, at most one in so many `seconds`."""
    check_positive("seconds", seconds)
    return Bar(refresh_rate=10) if sys.stdout.isatty() and _has_rows() else Lines(seconds)


def _has_rows() -> bool:
    """Whether the terminal says how high it is: in one of no height, as some tools make them, no bar is drawn."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines > 0
    except OSError:
        return True


class Bar(TQDMProgressBar):
    """Lightning's, which moves at the first step already: with large batches the tenth takes minutes.

    Epochs count from 1, as everywhere else. It asks for the loss when it shows it. What is logged for Lightning's
    bar is asked for at every step, by which a GPU waits for the next one.
    """

    _loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = outputs["shown"]  # as it is logged: what is minimised may count more, or a part of a batch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self.train_progress_bar.set_description(_epoch(trainer))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # of the log's folder
        return shown if self._loss is None else {**shown, "loss": self._loss.item()}

    def _should_update(self, current: int, total: int | float) -> bool:
        return current == 1 or super()._should_update(current, total)


class Lines(ProgressBar):
    """`epoch 2 of 20, step 31 of 40: loss 0.0123, val/loss 0.0145` at the first step, then every `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self._enabled = True
        self._told = -float("inf")
        self._reached = ""
        self._loss: Tensor | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._enabled:
            return
        due = time.monotonic() - self._told >= self.seconds
        if not due and not trainer.is_last_batch:  # a look at the loss makes a GPU wait
            return
        self._reached = f"{_epoch(trainer)}, step {batch_idx + 1} of {self.total_train_batches}"
        self._loss = outputs["shown"]
        if due:
            self._tell(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._reached:
            self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        """What is reached, its loss, and the one that was validated last."""
        losses = {"loss": self._loss, "val/loss": trainer.callback_metrics.get("val/loss")}
        told = [f"{name} {float(loss):.4g}" for name, loss in losses.items() if loss is not None]
        print(f"{self._reached}: {', '.join(told)}", flush=True)
        self._told, self._reached = time.monotonic(), ""


def _epoch(trainer: Trainer) -> str:
    epochs = f" of {trainer.max_epochs}" if trainer.max_epochs not in (None, -1) else ""
    return f"epoch {trainer.current_epoch + 1}{epochs}"
