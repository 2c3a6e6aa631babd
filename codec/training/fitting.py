"""Trains a learned codec, then measures its best checkpoint on the real files it writes."""

import copy
import sys

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from codec.checkpoint import load_codec
from codec.errors import ConfigError
from codec.learned_codec import LearnedCodec
from codec.training.assembly import TrainingParts, add_loggers, load_inputs, training_parts
from codec.training.config_checks import validates
from codec.training.evaluation import evaluate_into
from codec.training.faults import quieten
from codec.training.loggers import log_config, shut_down, where_to_look
from codec.training.memory import keep_freed_memory
from codec.training.provenance import commit
from codec.training.results import table
from codec.training.run_folder import RunFolder
from codec.training.run_state import Recorder


def train(config: DictConfig, run: RunFolder, record: Recorder) -> float | None:
    """Trains and measures in the folder of `run`; of several processes the first returns the best `val/loss`."""
    quieten()
    keep_freed_memory()
    resumed_from = run.checkpoint_to_resume() if config.resume else None
    if resumed_from is None and config.resume and config.more_epochs and run.came_to_its_end(config.test):
        raise ConfigError(
            "more_epochs", config.more_epochs, f"no checkpoints/last.ckpt in {run.path} to go on from"
        )
    if resumed_from is not None and run.more_epochs_begun > config.more_epochs:
        raise ConfigError(
            "more_epochs",
            config.more_epochs,
            f"this training was cut off on its way to more_epochs={run.more_epochs_begun}, which goes on",
        )
    if config.more_epochs and (stopped := (run.results or {}).get("stopped")):
        raise ConfigError("more_epochs", config.more_epochs, f"the training was {stopped}, and would be so again")
    parts = training_parts(lengthened(config))
    codec, data, trainer, precision = parts
    started = load_inputs(config, parts, resumed_from)
    add_loggers(config, trainer)
    try:
        if trainer.is_global_zero:
            if (kept := run.begin(config, str(precision))) is not None:
                print(f"files that this run's finished weights wrote are decoded with --checkpoint {kept}")
            record.begin(trainer.world_size)
            log_config(trainer.loggers, config, codec)
            if started is not None:
                print(started)
            print(f"{'resuming' if resumed_from else 'training'} in {run.path}: {described(codec)}\n{precision}")
            if config.trained is not None and config.start_from is None and not resumed_from:
                print("all other parts stay as this model begins: start_from= brings weights")
            if not validates(config):
                print("no epoch is validated: the last weights are kept instead of the best")
        try:
            trainer.fit(codec, data, ckpt_path=resumed_from, weights_only=True)
        except SystemExit:  # what Lightning makes of an interrupt, and, with exit status 0, of SIGTERM
            raise KeyboardInterrupt from None
        except MisconfigurationException as error:
            raise ConfigError(str(error)) from error
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if not trainer.is_global_zero:
            return None
        val_loss = run.val_loss_of_checkpoint()  # earlier results stay until those of a longer training are there
        if config.test:
            test(config, run, parts, val_loss)
        elif (stopped := stopped_by_max_time(trainer)) is not None:
            print(stopped)
        return val_loss
    finally:
        shut_down(trainer.loggers, exit_code=int(sys.exc_info()[0] is not None))


def lengthened(config: DictConfig) -> DictConfig:
    """`config` with `more_epochs` added to its length, which schedules follow."""
    longer = copy.deepcopy(config)
    longer.epochs += config.more_epochs
    if not OmegaConf.is_interpolation(config.trainer, "max_epochs") and config.trainer.max_epochs != -1:
        longer.trainer.max_epochs += config.more_epochs
    return longer


def described(codec: LearnedCodec) -> str:
    """What is trained, and how large it is: "ConvBaseline, 523,000 parameters, of which 90,000 learn"."""
    parameters = sum(parameter.numel() for parameter in codec.parameters())
    learning = sum(parameter.numel() for parameter in codec.parameters() if parameter.requires_grad)
    some = f", of which {learning:,} learn" if learning < parameters else ""
    return f"{type(codec).__name__}, {parameters:,} parameters{some}"


def test(config: DictConfig, run: RunFolder, parts: TrainingParts, val_loss: float) -> None:
    """Measures the best checkpoint of a training that has just ended, and prints what it reaches."""
    trainer = parts.trainer
    known = {"train_minutes": train_minutes(trainer), "stopped": stopped_by_max_time(trainer)}
    about = {
        "run": run.path.name,
        "val_loss": val_loss,
        "epochs": trainer.current_epoch,
        **({"more_epochs": config.more_epochs} if config.more_epochs else {}),
        "precision": trainer.precision,
        **{key: value for key, value in known.items() if value is not None},
        "commit": commit(),
    }
    results = evaluate_into(
        run.path,
        load_codec(run.path),
        parts.data,
        about,
        device=trainer.strategy.root_device,
        loggers=trainer.loggers,
        step=trainer.global_step,
        limit=config.trainer.get("limit_test_batches"),
    )
    print(f"\n{table({run.path.name: results})}\n\nresults, checkpoints and curves: {run.path}")
    print(where_to_look(trainer.loggers) or "")


def train_minutes(trainer: Trainer) -> float | None:
    """The minutes that a training took, those before a resume included; None where no clock ran."""
    clock = _clock(trainer)
    return None if clock is None else round(clock.time_elapsed() / 60, 1)


def stopped_by_max_time(trainer: Trainer) -> str | None:
    """After a fit: "stopped by max_time after N of M steps" where that is what happened, else None.

    Steps of earlier starts are counted.
    """
    clock, planned = _clock(trainer), trainer.estimated_stepping_batches
    remaining = None if clock is None else clock.time_remaining()
    if remaining is None or remaining > 0 or trainer.global_step >= planned:
        return None
    return f"stopped by max_time after {trainer.global_step:,} of {planned:,} steps"


def _clock(trainer: Trainer) -> Timer | None:
    return next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)
