"""Callbacks for tests of sweeps: one leaves a trace of every process that trains, one raises where it is told."""

import os
import signal
import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer


class Witness(Callback):
    """Writes down, in `witness.txt`, which process of how many begins to train in which folder."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seen = (trainer.default_root_dir, trainer.global_rank, trainer.world_size)
        with Path("witness.txt").open("a") as file:
            file.write(" ".join(map(str, seen)) + "\n")


class Fault(Callback):
    """Raises `before_fit` or `in_training` in one rank's process: `at` is e.g. `before_fit-1`, or `nowhere`."""

    def __init__(self, at: str) -> None:
        self.at = at
        self._raise("before_fit", int(os.environ.get("LOCAL_RANK", 0)))

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self._raise("in_training", trainer.global_rank)

    def _raise(self, when: str, rank: int) -> None:
        if self.at == f"{when}-{rank}":
            raise RuntimeError(f"a fault {when} of rank {rank}")


class FaultWhile(Callback):
    """While there is a file of this name in the working folder, raises in the first step of training.

    If the file holds a number, the process is killed instead, when it has trained so many steps.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        at = self.file.read_text() if self.file.exists() else None
        if at == "":
            raise RuntimeError(f"{self.file} is still there")
        if at == str(trainer.global_step):
            os.kill(os.getpid(), signal.SIGKILL)


class LostInterrupt(Callback):
    """Has SIGTERM come after two steps, but while an object is deleted: Python drops what is raised there."""

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == 2:
            Deleted()


class Deleted:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # the handler runs before this returns
