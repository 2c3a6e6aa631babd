"""Options of the parts that can be checked without torch: by their constructors, and before torch is imported."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from codec.checks import check_choice, check_from_zero, check_integer, check_seed, together
from codec.errors import ArgumentError

if TYPE_CHECKING:  # which coding does without
    from omegaconf import DictConfig

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
WANDB_MODES = ("online", "offline", "disabled", "shared")
NOISES = ("uniform", "paper", "straight_through")
_SSIM_SCALES = range(1, 6)


def check_bottleneck(bits: Any, noise: Any) -> None:
    """How a latent is quantised. Raises ArgumentError."""
    with together() as check:
        check(check_integer, "bits", bits, 1, 8)
        check(check_choice, "noise", noise, NOISES)


def check_loss(
    mse_weight: Any = 1.0,
    ssim_weight: Any = 0.0,
    vgg_weight: Any = 0.0,
    rate_weight: Any = 0.0,
    ssim_scales: Any = (1.0,),
) -> None:
    """The weights of a RateDistortionLoss. Raises ArgumentError."""
    with together() as check:
        check(check_from_zero, "mse_weight", mse_weight)
        check(check_from_zero, "ssim_weight", ssim_weight)
        check(check_from_zero, "vgg_weight", vgg_weight)
        check(check_from_zero, "rate_weight", rate_weight)
        check(_check_scales, ssim_scales)
    if not any((mse_weight, ssim_weight, vgg_weight, rate_weight)):
        raise ArgumentError(
            "mse_weight", mse_weight, "of this, ssim_weight, vgg_weight and rate_weight one must be positive"
        )


def check_data(
    val_fraction: Any = 0.1,
    channels: Any = 3,
    crop_size: Any = 256,
    eval_crop: Any = None,
    crops_per_image: Any = 1,
    batch_size: Any = 16,
    num_workers: Any = 2,
    limit: Any = None,
    split_seed: Any = 0,
    seed: Any = 0,
) -> None:
    """Numbers of an ImageDataModule. Raises ArgumentError, or ArgumentsError with all that is wrong."""
    with together() as check:
        if crop_size is not None:
            check(check_integer, "crop_size", crop_size, 1)
        if eval_crop is not None:
            check(check_integer, "eval_crop", eval_crop, 1)
        check(check_integer, "crops_per_image", crops_per_image, 1)
        check(check_integer, "batch_size", batch_size, 1)
        if limit is not None:
            check(check_integer, "limit", limit, 1)
        check(_check_channels, "channels", channels)
        check(check_integer, "num_workers", num_workers, 0)
        check(check_seed, "split_seed", split_seed)
        check(check_seed, "seed", seed)
        check(_check_val_fraction, val_fraction)


def check_image_channels(image_channels: Any) -> None:
    """What a learned codec codes. Raises ArgumentError."""
    _check_channels("image_channels", image_channels)


def _check_channels(key: str, channels: Any) -> None:
    if channels not in (1, 3):
        raise ArgumentError(key, channels, "allowed are 1 (greyscale) and 3 (RGB)")


def _check_val_fraction(fraction: Any) -> None:
    if not (isinstance(fraction, float) and 0 < fraction < 1):
        raise ArgumentError("val_fraction", fraction, "allowed are numbers between 0 and 1")


def _check_scales(scales: Any) -> None:
    listed = list(scales) if isinstance(scales, Sequence) and not isinstance(scales, str) else []
    if len(listed) not in _SSIM_SCALES or not all(type(scale) in (int, float) and scale > 0 for scale in listed):
        raise ArgumentError("ssim_scales", scales, "allowed are one to five numbers above 0")


def check_trainer(
    max_epochs: Any = 1,
    max_steps: Any = -1,
    max_time: Any = None,
    limit_train_batches: Any = None,
    limit_val_batches: Any = None,
    limit_test_batches: Any = None,
    check_val_every_n_epoch: Any = 1,
    accumulate_grad_batches: Any = 1,
    log_every_n_steps: Any = 10,
    gradient_clip_val: Any = None,
    fast_dev_run: Any = False,
    precision: Any = "32-true",
) -> None:
    """What a training is limited to. Raises ArgumentError, or ArgumentsError with all that is wrong."""
    with together() as check:
        if max_epochs != -1:  # which is without end
            check(check_integer, "max_epochs", max_epochs, 1)
        if max_steps != -1:
            check(check_integer, "max_steps", max_steps, 1)
        if max_time is not None and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(max_time)):
            check(_refuse, "max_time", max_time, "allowed are null and DD:HH:MM:SS, in quotes: '00:01:30:00'")
        check(check_choice, "precision", precision, PRECISIONS)
        check(_check_limit, "limit_train_batches", limit_train_batches)
        check(_check_limit, "limit_val_batches", limit_val_batches)
        check(_check_limit, "limit_test_batches", limit_test_batches)
        if limit_train_batches == 0:
            check(_refuse, "limit_train_batches", 0, "nothing would be trained; evaluate.py measures what is")
        if check_val_every_n_epoch is not None:
            check(check_integer, "check_val_every_n_epoch", check_val_every_n_epoch, 1)
        check(check_integer, "accumulate_grad_batches", accumulate_grad_batches, 1)
        check(check_integer, "log_every_n_steps", log_every_n_steps, 0)
        if gradient_clip_val is not None:
            check(check_from_zero, "gradient_clip_val", gradient_clip_val)
        if fast_dev_run:
            check(
                _refuse,
                "fast_dev_run",
                fast_dev_run,
                "it leaves no checkpoint; debug=one_step tries all once",
            )


def validates(config: "DictConfig") -> bool:
    """Whether a training of `config` ever looks at its validation images."""
    every = config.trainer.get("check_val_every_n_epoch")
    last = -1 if config.trainer.max_epochs == -1 else config.trainer.max_epochs + config.more_epochs
    return config.trainer.get("limit_val_batches") != 0 and (every is None or last == -1 or every <= last)


def check_devices(devices: Any) -> None:
    """How many devices train together, or which. Raises ArgumentError."""
    text = str(list(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else devices)
    if not re.fullmatch(r"auto|-1|[1-9]\d*|\d+(, ?\d+)+,?|\d+,|\[\d+(, \d+)*\]", text):
        raise ArgumentError("devices", devices, "allowed are auto, a number from 1, and a list of some, e.g. [0,1]")


def check_device(device: Any) -> None:
    """Where files are coded. Raises ArgumentError on all but auto, cpu, cuda, cuda:N and mps."""
    kind, _, index = str(device).partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or not (index or "0").isdecimal() or (index and kind != "cuda"):
        raise ArgumentError("device", device, "allowed are auto, cpu, cuda, cuda:N, mps")


def asked_wandb_mode() -> str | None:
    """What the environment variable WANDB_MODE asks for; None without it. Raises ArgumentError on others."""
    asked = os.environ.get("WANDB_MODE") or None
    asked = {"dryrun": "offline", "run": "online"}.get(asked, asked)  # as W&B called them once
    if asked is not None:
        check_choice("WANDB_MODE", asked, WANDB_MODES)
    return asked


def _check_limit(key: str, value: Any) -> None:
    whole, part = type(value) is int and value >= 0, type(value) is float and 0 <= value <= 1
    if value is not None and not whole and not part:
        raise ArgumentError(key, value, "allowed are null, a number of batches, and a fraction from 0.0 to 1.0")


def _refuse(key: str, value: Any, reason: str) -> None:
    raise ArgumentError(key, value, reason)
