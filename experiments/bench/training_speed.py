"""How fast a codec trains here: `Trainer.fit` as train.py runs it, on batches from memory."""

import itertools
import statistics
import time
import warnings
from typing import Any

import lightning
import torch
from omegaconf import DictConfig

from codec.errors import ConfigError
from codec.learned_codec import LearnedCodec
from codec.training.callbacks import ChannelsLast
from codec.training.config import Builder

WARM_UP, AT_LEAST = 2, 3  # calls, or blocks of training steps, that are not counted and that are


class StepTimer(lightning.Callback):
    """Times blocks of training steps, then stops the fit; `step_seconds` holds one number per block."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.step_seconds: list[float] = []
        self._block = self._left = 1

    def on_train_batch_end(self, trainer: lightning.Trainer, codec: LearnedCodec, *step: Any) -> None:
        self._left -= 1
        if self._left:
            return  # no sync inside a block: launches may run ahead of the device, as they do in training
        now, done = clock(codec.device), step[-1] + 1
        if done > WARM_UP:
            self.step_seconds.append((now - self._since) / self._block)
            trainer.should_stop = enough(self.step_seconds, self.seconds / self._block)
        elif done == WARM_UP:  # five blocks, if steps stay as fast as this one
            self._block = max(1, round(self.seconds / 5 / (now - self._since)))
        self._left, self._since = self._block, now


def training_speed(
    codec: LearnedCodec, config: DictConfig, precision: str, channels_last: bool, seconds: float
) -> dict[str, Any]:
    """Steps/s, images/s and megapixels/s of fitting `codec` to random batches of the config's shape."""
    size, channels, side = (config.data[key] for key in ("batch_size", "channels", "crop_size"))
    if side is None:
        raise ConfigError("data.crop_size", None, "training speed needs crops of one size, e.g. data.crop_size=128")
    batches = [torch.randint(0, 256, (size, channels, side, side), dtype=torch.uint8) for _ in range(4)]
    timer = StepTimer(seconds)
    settings = {"precision": precision, "limit_val_batches": 0, "max_steps": -1}
    for extra in ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"):
        settings[extra] = False
    callbacks = [timer, ChannelsLast()] if channels_last else [timer]
    with Builder(config) as build:
        # No scheduler: it acts between epochs, and all steps are of one.
        codec.prepare_training(loss=build.part("loss"), optimizer=build.part("optimizer"))
        trainer = build.part("trainer", **settings, callbacks=callbacks)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # its advice is about training runs
        trainer.fit(codec, itertools.cycle(batches))
    images = size / statistics.median(timer.step_seconds)
    speed = {"images_per_s": images, "megapixels_per_s": images * side * side / 1e6, "steps_per_s": images / size}
    return {**speed, "batch": [size, channels, side, side]}


def ways_to_train(precision: str) -> dict[str, tuple[str, bool]]:
    """By name, precision and whether weights lie channels last: plain fp32, and `precision` in the fast way."""
    short = precision.replace("32-true", "fp32").removesuffix("-mixed")
    return {"fp32": ("32-true", False), f"{short}_channels_last": (precision, True)}


def enough(seconds: list[float], budget: float) -> bool:
    """Whether measurements of so many seconds each fill a budget of seconds, and are not too few."""
    return len(seconds) >= AT_LEAST and sum(seconds) >= budget


def clock(device: torch.device) -> float:
    """Seconds by the wall clock, once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
