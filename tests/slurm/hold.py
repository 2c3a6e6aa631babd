"""A callback that keeps a training in its second epoch as long as there is a file `hold`, to be cut off there."""

import os
import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer


class Hold(Callback):
    """Writes, in `trained-SLURM_JOB_ID.txt`, each epoch, rank and world size, and holds the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seen = f"{trainer.current_epoch} {trainer.global_rank} {trainer.world_size}\n"
        with Path(f"trained-{os.environ.get('SLURM_JOB_ID')}.txt").open("a") as file:
            file.write(seen)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        while trainer.current_epoch == batch_idx == 1 and Path("hold").exists() and not trainer.received_sigterm:
            time.sleep(0.05)
