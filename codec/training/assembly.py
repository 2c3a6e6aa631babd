"""From a composed config to all that a training is made of; whatever is wrong is said before any data is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import Tensor, nn

from codec.checkpoint import start_from
from codec.data.module import ImageDataModule
from codec.errors import ConfigError, UserError
from codec.learned_codec import LearnedCodec
from codec.losses import RateDistortionLoss
from codec.training.callbacks import ChannelsLast, CompiledBits, LongerSchedule, StopAllRanks
from codec.training.checkpoint_io import WholeCheckpoints
from codec.training.config import Builder, call
from codec.training.config_checks import NOTHING_TO_TRAIN, validates
from codec.training.cuda_graph import RecordedSteps
from codec.training.moving_average import MovingAverage
from codec.training.precision import Precision, choose_precision

_IMAGES_FOR_PRIORS = 96


class TrainingParts(NamedTuple):
    """A codec that is ready to be trained, what it is trained with, and on what."""

    codec: LearnedCodec
    data: LightningDataModule
    trainer: Trainer
    precision: Precision


def training_parts(config: DictConfig) -> TrainingParts:
    """What `config` describes, with fresh weights, no data read and no logger begun.

    Raises ConfigError with what is wrong, a line each.
    """
    with Builder(config) as build:
        build.seed()
        codec, data = build.codec("model"), build.part("data")
        loss, optimizer, scheduler = (build.part(name) for name in ("loss", "optimizer", "scheduler"))
        callbacks: list[Callback] = [*build.group("callbacks"), StopAllRanks()]
        if config.strategy.channels_last:
            callbacks.append(ChannelsLast())
        if config.strategy.compile:
            callbacks.append(CompiledBits())
        if config.strategy.cuda_graph:
            callbacks.append(RecordedSteps())
        if config.more_epochs:
            callbacks.append(LongerSchedule())
        if not validates(config):
            callbacks = [c for c in callbacks if not (isinstance(c, ModelCheckpoint) and c.monitor)]
        summary = {} if "enable_model_summary" in config.trainer else {"enable_model_summary": False}
        precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
        trainer = None
        if config.trainer.accelerator == "gpu" and not torch.accelerator.is_available():
            without = "torch finds no GPU here: strategy=cpu trains without one"
            build.faults.append(ConfigError("strategy.accelerator", "gpu", without))
        else:
            trainer = build.part(
                "trainer",
                callbacks=callbacks,
                plugins=[WholeCheckpoints()],
                logger=False,
                precision=precision.name,
                **summary,
            )
        if codec is not None and not isinstance(codec, LearnedCodec):
            build.faults.append(ConfigError("model", NOTHING_TO_TRAIN))
            codec = None
        tried = None
        if optimizer is not None:
            tried = build.attempt("optimizer", lambda: call(optimizer, [nn.Parameter(torch.zeros(1))]))
        if tried is not None and scheduler is not None:
            build.attempt("scheduler", lambda: call(scheduler, tried))
        if loss is not None:
            build.faults += _too_small_for(loss, config.data)
        if codec is not None and loss is not None:
            build.attempt("loss", lambda: codec.check_loss(loss))
        if codec is not None and config.strategy.compile and not CompiledBits.counting(codec):
            build.faults.append(
                ConfigError("strategy.compile", True, "this model has no context prior: leave it false")
            )
        if codec is not None and isinstance(data, ImageDataModule):
            build.attempt("data", lambda: data.code_by(codec.training_coding()))
    _check_processes(trainer, config.strategy.devices)
    check_cuda_graph(config, trainer)
    check_average(trainer)
    with Builder(config) as build:
        of = {"prior_lr_factor": config.prior_lr_factor, "trained": config.trained}
        build.attempt("trained", lambda: codec.prepare_training(loss, optimizer, scheduler, **of))
    return TrainingParts(codec, data, trainer, precision)


def load_inputs(config: DictConfig, parts: TrainingParts, resumed_from: Path | None) -> str | None:
    """Brings the weights that training starts from, unless it is resumed, then the images.

    Returns what is to be said of the weights. Raises ConfigError where a file is missing or cannot be fetched.
    """
    said = None
    with Builder(config) as build:
        if resumed_from is None and config.start_from is not None:
            said = build.attempt("start_from", lambda: start_from(parts.codec, config.start_from))
        elif resumed_from is None:
            build.attempt("model", parts.codec.load_starting_weights)
    with Builder(config) as build:
        if rank_zero_only.rank == 0:  # further processes meet the data inside fit
            build.attempt("data", parts.data.prepare_data)
            build.attempt("data", lambda: parts.data.setup(None if config.test else "fit"))
    if rank_zero_only.rank == 0:
        _check_shares(config, parts)
        if resumed_from is None:  # further processes get the first one's weights
            parts.codec.fit_priors(_some_batches(parts.data))
    return said


def add_loggers(config: DictConfig, trainer: Trainer) -> None:
    """Gives the trainer those that `config` names; W&B's may ask its server. Raises ConfigError."""
    with Builder(config) as build:
        trainer.loggers = build.group("logger")


def _some_batches(data: LightningDataModule) -> Iterator[Tensor]:
    """Of as many training images as a prior is fitted to."""
    left = _IMAGES_FOR_PRIORS
    for batch in data.train_dataloader():
        yield batch[:left]
        left -= len(batch)
        if left <= 0:
            return


def _check_shares(config: DictConfig, parts: TrainingParts) -> None:
    """Raises ConfigError where a process would get nothing to train on, or the test nothing to measure."""
    data, processes = parts.data, parts.trainer.world_size
    if not isinstance(data, ImageDataModule) or data.train_set is None:
        return
    crops = len(data.train_set.paths) * data.crops_per_image
    if crops < processes:
        raise ConfigError(
            "strategy.devices",
            config.strategy.devices,
            f"of {crops} crop{'s' * (crops != 1)} an epoch, "
            f"{processes} processes do not get one each: use fewer, or more data.crops_per_image",
        )
    limit = config.trainer.get("limit_test_batches")
    if config.test and data.test_set is not None and type(limit) is float and limit * len(data.test_set) < 1:
        raise ConfigError(
            "trainer.limit_test_batches", limit, f"of {len(data.test_set)} test images that leaves none to measure"
        )


def _too_small_for(loss: RateDistortionLoss, data: DictConfig) -> list[UserError]:
    sizes = {key: data.get(key) for key in ("crop_size", "eval_crop")}
    return [
        ConfigError(f"data.{key}", size, f"this loss compares images from {loss.smallest_side} pixels a side")
        for key, size in sizes.items()
        if isinstance(size, int) and size < loss.smallest_side
    ]


def check_cuda_graph(config: DictConfig, trainer: Trainer) -> None:
    """Raises ConfigError where `strategy.cuda_graph` is asked for and steps cannot be recorded."""
    if not config.strategy.cuda_graph:
        return
    device = trainer.strategy.root_device
    if device.type != "cuda" or trainer.world_size > 1 or trainer.accumulate_grad_batches > 1:
        raise ConfigError(
            "strategy.cuda_graph",
            True,
            "steps are recorded on one CUDA GPU that takes one for every batch: this is "
            f"{trainer.world_size} × {device}, trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}",
        )


def check_average(trainer: Trainer) -> None:
    """Raises ConfigError where an average is to be kept of weights of which each device has a part."""
    averaged = any(isinstance(callback, MovingAverage) for callback in trainer.callbacks)
    if averaged and trainer.world_size > 1 and isinstance(trainer.strategy, FSDPStrategy):
        raise ConfigError(
            "callbacks.ema",
            "MovingAverage",
            f"of weights shared out over {trainer.world_size} devices no average is kept: "
            "leave it out, callbacks=default, or train with strategy=ddp",
        )


def _check_processes(trainer: Trainer, devices: Any) -> None:
    wanted = trainer.num_devices * trainer.num_nodes
    if trainer.world_size != wanted:  # then whoever runs this is believed to have started all processes
        raise ConfigError(
            "strategy.devices",
            devices,
            f"{wanted} processes are to train, and there is {trainer.world_size}: in "
            "SLURM start a task for each, srun --ntasks-per-node=…, or on one node have them started, "
            "env -u SLURM_NTASKS python train.py …",
        )
