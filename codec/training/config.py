"""From a composed config to objects; every fault in it becomes one line for the person at the keyboard.

Importing this takes no torch, so that a fault that needs none to be seen is told at once.
"""

import gc
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from codec.checks import check_seed
from codec.errors import ArgumentError, ArgumentsError, ConfigError, JobFailedError
from codec.training.calls import make
from codec.training.faults import USER_ERRORS, cause_of, messages
from codec.training.interrupts import sigterm_interrupts

if TYPE_CHECKING:
    from codec.image_codec import ImageCodec

# Processes that Lightning starts inherit HYDRA_FULL_ERROR from `user_errors`; the second variable tells them so.
_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and "QUINTET_ONE_LINE_ERRORS" not in os.environ


class Builder:
    """Instantiates parts of a config one after the other and collects what is wrong with each.

    Used as `with Builder(cfg) as build: model = build.codec("model"); data = build.part("data")`; leaving the
    block raises ConfigError with every fault, a line each, if there was one. What is no fault of the config is
    raised at once.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.faults: list[str] = []
        self._first: BaseException | None = None

    def __enter__(self) -> "Builder":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self.faults:
            raise ConfigError("\n".join(dict.fromkeys(self.faults))) from self._first

    def seed(self) -> None:
        """Seeds Python, NumPy, torch and the data loaders' workers by the config's `seed`."""
        from lightning import seed_everything

        self.attempt("seed", lambda: check_seed("seed", self.config.seed))
        if not self.faults:
            seed_everything(self.config.seed, workers=True, verbose=False)

    def codec(self, key: str) -> "ImageCodec | None":
        """The codec at `key`, through `codec.checkpoint.build_codec`."""
        from codec.checkpoint import build_codec

        return self.attempt(key, lambda: make(key, self.config[key], by=build_codec))

    def part(self, key: str, **arguments: Any) -> Any:
        """Whatever stands at `key`, made with `arguments` besides its own; None if nothing stands there."""
        return self.attempt(key, lambda: make(key, OmegaConf.select(self.config, key), **arguments))

    def group(self, key: str) -> list[Any]:
        """The objects of a group of named parts, such as callbacks, in order; a part that is null is left out."""
        parts = {f"{key}.{name}": self.part(f"{key}.{name}") for name in self.config.get(key) or {}}
        self.faults += [
            f"{name}: it has no _target_, so there is nothing to make"
            for name in parts
            if isinstance(parts[name], dict)
        ]
        return [part for part in parts.values() if part is not None]

    def attempt(self, key: str, step: Callable[[], Any]) -> Any:
        """What `step` gives; None if it raises something of USER_ERRORS, which is then a fault of `key`."""
        try:
            return step()
        except USER_ERRORS as error:
            self._first = self._first or error
            self.faults += faults_of(self.config, error, key)
            return None


def faults_of(config: DictConfig, error: BaseException, key: str) -> list[str]:
    """What `error` says, a line each, with the whole keys of `config`; the fault lies at or below `key`."""
    cause = cause_of(error)
    if isinstance(cause, ArgumentsError):
        return [line for fault in cause.faults for line in faults_of(config, fault, key)]
    if isinstance(cause, ArgumentError) and (whole := whole_key(config, cause.key, key)) is not None:
        return [str(ArgumentError(whole, cause.value, cause.allowed))]
    named = (f"{key}.", f"{key}=", f"{key}:", f"{key}[")
    return [line if line.startswith(named) else f"{key}: {line}" for line in messages(cause)]


def whole_key(config: DictConfig, name: str, within: str = "") -> str | None:
    """The key of the argument `name` of what stands at `within`, as the user can set it; None if there is none.

    Of several keys of that name the uppermost is meant; one that repeats another stands for that.
    """
    sources = _sources(config)
    nodes = [within, *(source for key, source in sources.items() if key.startswith(f"{within}.") and source != key)]
    below = [key for key in sources if key in nodes or key.startswith(tuple(f"{node}." for node in nodes))]
    keys = [key for key in below if key.rpartition(".")[2] == name]
    return sources[min(keys, key=lambda key: key.count("."))] if keys else None


def check_launcher(devices: Any) -> None:
    """Refuses several devices inside a sweep's own process, where Lightning would start the sweep once a device."""
    if HydraConfig.get().mode == RunMode.MULTIRUN and devices not in (1, "1"):
        launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
        raise ConfigError(
            f"strategy.devices={devices} with hydra/launcher={launcher}: such jobs have no processes of their own; "
            "use hydra/launcher=local"
        )


@contextmanager
def user_errors() -> Iterator[None]:
    """Prints a user's error as `error: …` on stderr and exits with status 2; used as decorator too.

    Stands around a Hydra entry point, where the config is composed, and again inside, around the job, before
    Hydra adds lines of its own. The environment variable HYDRA_FULL_ERROR=1 brings the traceback. SIGTERM, unless
    somebody else handles it, is an interrupt too: status 130. Where jobs of a sweep failed, the status is 1.
    """
    quieten()
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises then, instead of printing
    if not _WANTS_TRACEBACK:
        os.environ["QUINTET_ONE_LINE_ERRORS"] = "1"
    try:
        with sigterm_interrupts():
            yield
    except BrokenPipeError:  # of `--help | head`: who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails to flush at exit
        sys.exit(128 + signal.SIGPIPE)
    except JobFailedError:  # the launcher has said so
        sys.exit(1)
    except USER_ERRORS as error:
        cause = cause_of(error)
        if _WANTS_TRACEBACK or not (isinstance(cause, USER_ERRORS) or _never_ran(cause)):
            raise
        for line in messages(cause):
            print(f"error: {line}", file=sys.stderr)
        gc.freeze()  # or Python looks through all of torch for cycles before it ends, which takes seconds
        sys.exit(2)
    except ValueError as error:
        if _WANTS_TRACEBACK or "Config group override must be a string" not in str(error):
            raise
        nulls = " ".join(argument for argument in sys.argv[1:] if argument.endswith("=null"))
        print(f"error: {nulls}: a config group has no null; ~GROUP leaves it out, e.g. ~scheduler", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if process_rank() == 0:
            print("\ninterrupted: the same command goes on from what was finished", file=sys.stderr)
        sys.exit(130)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before
        os.environ.pop("QUINTET_ONE_LINE_ERRORS", None)


def process_rank() -> int:
    """Which of the processes that train together this one is, as Lightning has it."""
    ranks = (os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ)
    return int(next(ranks, 0))


def quieten() -> None:
    """Keeps advice that the user can do nothing about off the terminal; once more when Lightning is imported."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*does not have many workers.*",
        ".*model summary.*",
        ".*smaller than the logging interval.*",
        ".*lr_scheduler.step.*before.*",
        ".*srun. command is available on your system but is not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def _sources(config: DictConfig, prefix: str = "") -> dict[str, str]:
    """For every key that has a value, the key whose value it is: itself, or what it repeats as `${key}`."""
    sources = {}
    for key, value in config.items_ex(resolve=False):
        path = f"{prefix}{key}"
        if isinstance(value, DictConfig):
            sources |= _sources(value, f"{path}.")
        elif OmegaConf.is_interpolation(config, key):
            repeated = re.fullmatch(r"\$\{(\w[\w.]*)\}", value)
            sources |= {path: repeated[1]} if repeated else {}
        elif not OmegaConf.is_missing(config, key):
            sources[path] = path
    return sources


def _never_ran(error: BaseException) -> bool:
    """Whether Hydra's very call was refused: the arguments were not those of the signature."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("hydra._internal.instantiate")
