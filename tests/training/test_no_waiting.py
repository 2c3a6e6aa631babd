"""Between looks at the loss a training step reads no value from its device: a GPU would be waited for each time."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed
from lightning import Callback, LightningModule, Trainer
from sweeping import TINY
from torch.utils._python_dispatch import TorchDispatchMode

from codec.training.assembly import training_parts

STEPS = 12  # of which the first is looked at, by what watches the loss, and the last, of its epoch
EVERY = 5  # logged


class Questions(TorchDispatchMode):
    """Counts, of every step, how often a value is read out of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, int] = {}
        self.step: int | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.asked[self.step] = self.asked.get(self.step, 0) + 1
        return func(*args, **(kwargs or {}))


class Step(Callback):
    """Tells `questions` which step it is: from its batch to the next one's, all that ends a step included."""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.questions.step = trainer.global_step


@pytest.mark.parametrize("terminal", [False, True])
def test_steps_read_nothing_from_it(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    shown = [option for option in TINY if option != "~callbacks.progress"] + ["callbacks.progress.seconds=1e6"]
    kept = ["logger=none", "callbacks=ema", "strategy=cpu", f"folder={tmp_path}"]
    length = [
        "data.crops_per_image=16",
        f"+trainer.limit_train_batches={STEPS}",
        f"trainer.log_every_n_steps={EVERY}",
    ]
    config = composed("train", [*shown, *kept, *length])
    parts, questions = training_parts(config), Questions()
    parts.trainer.callbacks.append(Step(questions))
    with questions:
        parts.trainer.fit(parts.codec, parts.data)
    looked_at = {0, EVERY - 1, 2 * EVERY - 1, STEPS - 1} | ({9, 10} if terminal else {10})
    assert set(questions.asked) - {None} <= looked_at
    assert 0 in questions.asked  # or nothing would have been counted
