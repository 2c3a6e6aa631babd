"""Callbacks of our own; everything else is Lightning's."""

import math
import signal
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics.functional.image import peak_signal_noise_ratio

from codec.checks import check_integer
from codec.data.image_file import NamedImage
from codec.entropy.laplace import LaplaceTables
from codec.errors import ConfigError, UserError
from codec.training.faults import raise_if_lost


class TrainingDivergedError(UserError, RuntimeError):
    """The loss is no longer a number; the text is one line that names the term."""


class StopOnNaN(Callback):
    """Raises TrainingDivergedError where a loss term is nan or inf, before a checkpoint can hold it.

    Looks at every `every_n_steps`-th batch, since a look makes a GPU wait, at the last one of an epoch, and at
    `val/loss`.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: dict[str, Tensor], batch: Any, batch_idx: int
    ) -> None:
        due = batch_idx % self.every_n_steps == 0 or trainer.is_last_batch
        if not due or bool(torch.isfinite(outputs["loss"])):
            return
        parts = {name: float(outputs[name]) for name in ("bpp", "distortion", "loss")}
        lost = [f"train/{name} is {value}" for name, value in parts.items() if not math.isfinite(value)]
        self._stop(" and ".join(lost), trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")  # after the last update, which no batch has met yet
        if loss is not None and not bool(torch.isfinite(loss)):
            self._stop(f"val/loss is {float(loss)}", trainer)

    @staticmethod
    def _stop(what: str, trainer: Trainer) -> None:
        raise TrainingDivergedError(
            f"{what} at step {trainer.global_step}: training stopped; "
            f"try a smaller optimizer.lr, or trainer.gradient_clip_val"
        )


class StopAllRanks(Callback):
    """Ends the processes that train together when the first of them raises or is interrupted.

    They would wait for it in a collective for ever. When another one raises, Lightning kills them all itself.
    SIGTERM does in training what it did when this was made: in Lightning's way processes meet in a collective of
    its own, in the middle of others. One that was lost is heeded before the next batch.
    """

    def __init__(self) -> None:
        self.on_sigterm = signal.getsignal(signal.SIGTERM)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signal.signal(signal.SIGTERM, self.on_sigterm)  # Lightning has just set its own

    on_train_start = on_sanity_check_start  # a resumed training is not checked

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int
    ) -> None:
        raise_if_lost()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        launcher = trainer.strategy.launcher
        if getattr(launcher, "procs", None):  # in the process that has started the others
            launcher.kill(signal.SIGKILL)
            launcher.procs.clear()  # or Lightning's observer takes their end for a fault and kills this process


class ChannelsLast(Callback):
    """Trains with the weights' memory laid out channels last, which most convolutions run faster on."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.to(memory_format=torch.channels_last)


class CompiledBits(Callback):
    """Compiles what counts the bits of a context prior's symbols: most of the operations of a training step.

    (https://docs.pytorch.org/docs/stable/generated/torch.compile.html) It takes a C++ compiler, and half a minute.
    Raises ConfigError where there is none.
    """

    @staticmethod
    def counting(codec: LightningModule) -> list[nn.Module]:
        """What of the codec is compiled; none where it has no context prior."""
        return [module for module in codec.modules() if isinstance(module, LaplaceTables)]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        try:
            torch.compile(torch.log2)(torch.ones(64, device=pl_module.device))
        except Exception as error:  # of the compiler's own kinds
            first_line = str(error).splitlines()[0]
            raise ConfigError(
                "strategy.compile", True, f"nothing can be compiled here ({first_line}): leave it false"
            ) from error
        for module in self.counting(pl_module):
            module.compile(fullgraph=True, dynamic=True)


class SeededEpochs(Callback):
    """Seeds every epoch's noise by (seed, epoch, process): a resumed run draws what an uninterrupted one would."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Tensor, batch_idx: int
    ) -> None:
        if batch_idx > 0:  # on_train_epoch_start would do, but Lightning skips it in the first epoch after a resume
            return
        words = np.random.SeedSequence([self.seed, trainer.current_epoch, trainer.global_rank]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))


class LongerSchedule(Callback):
    """Has a training that goes on for more epochs than it was begun with go on at the longer one's learning rates.

    A schedule that follows the metrics, as ReduceLROnPlateau, is left where it is.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        longer = pl_module.configure_optimizers()
        schedule = longer.get("lr_scheduler", {}).get("scheduler")
        if schedule is None or isinstance(schedule, ReduceLROnPlateau):
            return
        (state,), (reached,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
        for _ in range(reached["last_epoch"]):
            longer["optimizer"].step()  # without gradients, nothing: or torch would warn of the order
            schedule.step()
        checkpoint["lr_schedulers"] = [schedule.state_dict()]
        for group, as_longer in zip(state["param_groups"], longer["optimizer"].param_groups, strict=True):
            group["lr"] = as_longer["lr"]


class ReconstructionPanel(Callback):
    """Shows the first `images` validation images in W&B as original | decoded, every `every_n_epochs` epochs."""

    def __init__(self, images: int = 4, every_n_epochs: int = 1) -> None:
        check_integer("images", images, 1)
        check_integer("every_n_epochs", every_n_epochs, 1)
        self.images = images
        self.every_n_epochs = every_n_epochs
        self._panels: list[tuple[np.ndarray, str]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._panels = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: NamedImage,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if len(self._panels) < self.images and self._due(trainer):
            side_by_side = torch.cat([batch.image, outputs], dim=2).permute(1, 2, 0).cpu().numpy()  # (H, 2W, C)
            psnr = peak_signal_noise_ratio(outputs.float(), batch.image.float(), data_range=255.0)
            self._panels.append(
                (
                    side_by_side.squeeze(-1) if len(outputs) == 1 else side_by_side,
                    f"{batch.name}: original | decoded, {psnr:.2f} dB",
                )
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for n, (image, caption) in enumerate(self._panels):  # a key each: W&B wants one size per key
                    logger.log_image(
                        f"val/reconstruction_{n}", [image], caption=[caption], step=trainer.global_step
                    )

    def _due(self, trainer: Trainer) -> bool:
        return (
            trainer.is_global_zero
            and not trainer.sanity_checking
            and (
                trainer.current_epoch % self.every_n_epochs == 0
                or trainer.current_epoch == (trainer.max_epochs or 0) - 1
            )
        )
