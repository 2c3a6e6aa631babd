"""What is wrong with a config, as far as that can be seen without torch: told together, before any work.

`check_training` and `check_evaluation` look at a whole config, the functions below them at a part each.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from codec.checkpoint_files import find_checkpoint
from codec.checks import (
    check_bottleneck,
    check_choice,
    check_data,
    check_device,
    check_from_zero,
    check_integer,
    check_loss,
    check_names,
    check_positive,
    check_seed,
    together,
)
from codec.data.folder import FolderSource
from codec.data.source import FETCH, SourceError, check_folder
from codec.errors import ArgumentError, ConfigError, UserError
from codec.further_metrics import check_metrics
from codec.training.config import NOT_FOUND, Builder
from codec.training.wandb_names import asked_wandb_mode

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")  # priors compute in float32
DATA, LOSS = "codec.data.module.ImageDataModule", "codec.losses.RateDistortionLoss"
FOLDER = "codec.data.folder.FolderSource"
NOTHING_TO_TRAIN = "this codec has nothing to train; measure it with evaluate.py"
FETCHED = ("codec.data.archive.ArchiveSource", "codec.data.bsd300.Bsd300Source", "codec.data.kodak.KodakSource")


def check_training(config: DictConfig) -> None:
    """Raises ConfigError with all that is wrong, a line each. To be called in Hydra's job."""
    with Builder(config) as build:
        build.attempt("WANDB_MODE", lambda: _check_environment(config))
        build.faults += _without_wandb(config)
        build.faults += _left_open(config)
        if str(config.model.get("_target_")).startswith("codec.baselines."):
            build.faults.append(ConfigError("model", NOTHING_TO_TRAIN))
        build.attempt("seed", lambda: check_seed("seed", config.seed))
        build.attempt("epochs", lambda: check_integer("epochs", config.epochs, 1))
        build.attempt("more_epochs", lambda: check_integer("more_epochs", config.more_epochs, 0))
        build.faults += _of_two_lengths(config)
        build.faults += _cannot_go_on(config)
        build.attempt("prior_lr_factor", lambda: check_positive("prior_lr_factor", config.prior_lr_factor))
        if config.trained is not None:
            build.attempt("trained", lambda: check_names("trained", config.trained))
        if config.get("quantization") is not None:
            build.attempt("quantization", lambda: _check(check_bottleneck, config.quantization))
        build.attempt("data", lambda: _check(check_data, config.data, DATA))
        if config.data.get("train", ...) is None:
            build.faults.append(
                ConfigError("data.train", None, "this data has no train images: choose another data=...")
            )
        build.attempt("loss", lambda: _check(check_loss, config.loss, LOSS))
        build.attempt("optimizer", lambda: check_positive("optimizer.lr", config.optimizer.get("lr", 1)))
        build.attempt("trainer", lambda: _check(check_trainer, config.trainer))
        build.attempt("strategy", lambda: check_devices(config.strategy.devices))
        if config.test and config.trainer.get("limit_test_batches") == 0:
            build.faults.append(ConfigError("trainer.limit_test_batches", 0, "test=false leaves the test out"))
        build.faults += _wrong_kinds(config, but=build.faults)
        build.faults += _not_installed(config)
    with Builder(config) as build:
        if config.start_from is not None:
            build.attempt("start_from", lambda: find_checkpoint(config.start_from))
    with Builder(config) as build:
        own = (part for part in ("train", "val", "test") if not OmegaConf.is_interpolation(config.data, part))
        for part in own:
            build.attempt(f"data.{part}", lambda part=part: _check_source(f"data.{part}", config.data.get(part)))
    if not validates(config) and "ReduceLROnPlateau" in OmegaConf.to_yaml(config.get("scheduler") or {}):
        raise ConfigError(
            "scheduler",
            "plateau",
            "it follows val/loss, and no epoch is validated: see trainer.limit_val_batches and "
            "trainer.check_val_every_n_epoch, or choose another scheduler",
        )


def check_evaluation(config: DictConfig) -> None:
    """Raises ConfigError with all that is wrong, a line each. To be called in Hydra's job."""
    with Builder(config) as build:
        build.attempt("WANDB_MODE", lambda: _check_environment(config))
        build.faults += _without_wandb(config)
        build.faults += _left_open(config)
        build.attempt("seed", lambda: check_seed("seed", config.seed))
        build.attempt("device", lambda: check_device(config.device, auto=True))
        build.attempt("target_bpp", lambda: _check_target(config))
        build.attempt("metrics", lambda: check_metrics(config.metrics))
        build.attempt("data", lambda: _check(check_data, config.data, DATA))
        build.faults += _wrong_kinds(config, but=build.faults)
    # Where a set has no images of its own to train on, `test` is what `train` is, and is named there.
    node = "train" if config.data.get("test") == config.data.get("train") else "test"
    _check_source(f"data.{node}", config.data.get("test"))


def _check_target(config: DictConfig) -> None:
    if config.target_bpp is None:
        return
    check_positive("target_bpp", config.target_bpp)
    if config.quality is not None:
        raise ConfigError(
            "target_bpp", config.target_bpp, f"quality={config.quality} is given too: name one of them"
        )


def check_parts(config: DictConfig) -> None:
    """Raises ConfigError where a training lacks a part."""
    for name in ("model", "data", "loss", "optimizer", "strategy", "trainer"):
        if config.get(name) is None:
            raise ConfigError(name, f"a training needs one, and ~{name} leaves it out")


def check_launcher(devices: Any) -> None:
    """Refuses several devices inside a sweep's own process, where Lightning would start the sweep once a device."""
    if HydraConfig.get().mode == RunMode.MULTIRUN and devices not in (1, "1"):
        launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
        raise ConfigError(
            "strategy.devices",
            f"{devices} with hydra/launcher={launcher}",
            "such jobs have no processes of their own; use hydra/launcher=local",
        )


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
    """What a training is limited to. Raises ArgumentError, or FaultsError with all that is wrong."""
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


def check_devices(devices: Any) -> None:
    """How many devices train together, or which. Raises ArgumentError."""
    text = str(list(devices) if isinstance(devices, Sequence) and not isinstance(devices, str) else devices)
    if not re.fullmatch(r"auto|-1|[1-9]\d*|\d+(, ?\d+)+,?|\d+,|\[\d+(, \d+)*\]", text):
        raise ArgumentError("devices", devices, "allowed are auto, a number from 1, and a list of some, e.g. [0,1]")


def validates(config: DictConfig) -> bool:
    """Whether a training of `config` ever looks at its validation images."""
    every = config.trainer.get("check_val_every_n_epoch")
    last = -1 if config.trainer.max_epochs == -1 else config.trainer.max_epochs + config.more_epochs
    return config.trainer.get("limit_val_batches") != 0 and (every is None or last == -1 or every <= last)


def _of_two_lengths(config: DictConfig) -> list[UserError]:
    """Schedules follow `epochs`: a trainer that ends elsewhere would cut them short, or go on beyond them."""
    last = config.trainer.get("max_epochs")
    if type(last) is not int or last < 1 or last == config.epochs:  # -1 is without end
        return []
    return [ConfigError("trainer.max_epochs", last, f"say epochs={last}, which schedules follow, too")]


def _cannot_go_on(config: DictConfig) -> list[UserError]:
    """Where something but the number of epochs ends a training, more of them change nothing."""
    steps = config.trainer.get("max_steps", -1)
    if not config.more_epochs or steps == -1:
        return []
    return [ConfigError("more_epochs", config.more_epochs, f"trainer.max_steps={steps} ends this training")]


def _check_environment(config: DictConfig) -> None:
    if OmegaConf.select(config, "logger.wandb") is not None:
        asked_wandb_mode()


def _without_wandb(config: DictConfig) -> list[UserError]:
    if OmegaConf.select(config, "logger.wandb") is None or find_spec("wandb") is not None:
        return []
    return [ConfigError("logger", "wandb", "W&B is not installed: pip install wandb, or logger=csv")]


def _check(check: Callable[..., None], node: DictConfig, target: str | None = None) -> None:
    """`check` of those of its arguments that `node` has, unless that is to make another thing than `target`."""
    if target is None or node.get("_target_") == target:
        check(**{name: node[name] for name in inspect.signature(check).parameters if name in node})


def _check_source(key: str, source: DictConfig | None) -> None:
    """Raises SourceError where no images can be there: of a data set that is not fetched, without its folder."""
    if source is None:
        return
    if not isinstance(source, DictConfig):
        raise ConfigError(key, source, "a source of images is wanted, a group of keys: see conf/data")
    several = source.get("sources") or {}
    for name in several:
        if not OmegaConf.is_interpolation(several, name):
            _check_source(f"{key}.sources.{name}", several[name])
    if source.get("_target_") in FETCHED and not source.get("download"):
        check_folder(f"{key}.root", Path(source.root), f"name the one that holds its images, or {FETCH}")
    if source.get("_target_") != FOLDER:
        return
    try:
        FolderSource(**{name: value for name, value in source.items() if name != "_target_"}).prepare()
    except SourceError as error:
        raise error.below(key) from error


def _left_open(config: DictConfig) -> list[UserError]:
    return [ConfigError(key, f"a value must be given: {key}=…") for key in sorted(OmegaConf.missing_keys(config))]


def _wrong_kinds(config: DictConfig, but: list[UserError]) -> list[UserError]:
    """Values of another kind than those of conf/, without the keys of the faults in `but`."""
    told = {fault.key for fault in but}
    return [fault for fault in _other_kinds(config, _defaults()) if fault.key not in told]


def _defaults() -> DictConfig:
    """What is composed of the options chosen, without the values given beside."""
    hydra = HydraConfig.get()
    chosen = [o for o in hydra.overrides.task if _key(o).partition("@")[0] in hydra.runtime.choices]
    return GlobalHydra.instance().config_loader().load_configuration(hydra.job.config_name, chosen, RunMode.RUN)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _other_kinds(given: DictConfig, defaults: DictConfig, prefix: str = "") -> Iterator[UserError]:
    for name, value in given.items_ex(resolve=False):
        if name not in defaults or OmegaConf.is_interpolation(given, name) or OmegaConf.is_missing(given, name):
            continue
        default = None if OmegaConf.is_missing(defaults, name) else defaults[name]
        if isinstance(value, DictConfig) and isinstance(default, DictConfig):
            yield from _other_kinds(value, default, f"{prefix}{name}.")
        elif (allowed := _unless_alike(value, default)) and name != "devices":  # a number, auto, or a list of some
            yield ConfigError(f"{prefix}{name}", value, f"allowed are {allowed}")


def _not_installed(node: DictConfig, prefix: str = "") -> Iterator[UserError]:
    for name, value in node.items_ex(resolve=False):
        if isinstance(value, DictConfig):
            yield from _not_installed(value, f"{prefix}{name}.")
        elif name == "_target_" and isinstance(value, str) and find_spec(value.partition(".")[0]) is None:
            yield ConfigError(f"{prefix}_target_", value, NOT_FOUND)


def _unless_alike(value: Any, default: Any) -> str | None:
    """Of what kind `value` should be, as `default` is, in words; None where it may be so."""
    if value is None:
        return None
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true and false"
    if isinstance(default, int):
        return None if type(value) is int or isinstance(value, ListConfig) else "integers"
    if isinstance(default, float):
        return None if type(value) in (int, float) else "numbers"
    if isinstance(default, ListConfig):
        if not isinstance(value, ListConfig):
            return "lists, e.g. [1,2]"
        of = default[0] if len(default) and not isinstance(default[0], DictConfig) else None
        kinds = {kind for element in value if (kind := _unless_alike(element, of))}
        return f"lists of {kinds.pop()}" if kinds else None
    return None


def _check_limit(key: str, value: Any) -> None:
    whole, part = type(value) is int and value >= 0, type(value) is float and 0 <= value <= 1
    if value is not None and not whole and not part:
        raise ArgumentError(key, value, "allowed are null, a number of batches, and a fraction from 0.0 to 1.0")


def _refuse(key: str, value: Any, reason: str) -> None:
    raise ArgumentError(key, value, reason)
