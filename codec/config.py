"""From a composed config to objects; every fault in it becomes one line for the person at the keyboard."""

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning import seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from codec.bitstream import BitstreamError
from codec.callbacks import TrainingDivergedError
from codec.checkpoint import CheckpointError, build_codec
from codec.checks import check_seed
from codec.data.download import DownloadError
from codec.data.image_file import ImageFileError
from codec.data.source import SourceError
from codec.image_codec import ImageCodec
from codec.interrupts import sigterm_interrupts
from codec.sweep import JobFailedError


class ConfigError(ValueError):
    """A config that cannot be run; each line of the text names one key, its value and what is allowed."""


# Faults that the user can mend; anything else is ours, and its traceback is wanted.
USER_ERRORS = (
    ConfigError,
    CheckpointError,
    BitstreamError,
    ImageFileError,
    SourceError,
    DownloadError,
    TrainingDivergedError,
    MisconfigurationException,
    HydraException,
    OmegaConfBaseException,
    OSError,  # no space, no permission, no such folder
)

# Processes that Lightning starts inherit HYDRA_FULL_ERROR from `user_errors`; the second variable tells them so.
_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and "QUINTET_ONE_LINE_ERRORS" not in os.environ


class Builder:
    """Instantiates parts of a config one after the other and collects what is wrong with each.

    Used as `with Builder(cfg) as build: model = build.codec("model"); data = build.part("data")`; leaving the
    block raises ConfigError with every fault, a line each, if there was one.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.faults: list[str] = []

    def __enter__(self) -> "Builder":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self.faults:
            raise ConfigError("\n".join(dict.fromkeys(self.faults)))

    def seed(self) -> None:
        """Seeds Python, NumPy, torch and the data loaders' workers by the config's `seed`."""
        self.attempt("seed", lambda: check_seed("seed", self.config.seed))
        if not self.faults:
            seed_everything(self.config.seed, workers=True, verbose=False)

    def codec(self, key: str) -> ImageCodec | None:
        """The codec at `key`, through `codec.checkpoint.build_codec`."""
        return self.attempt(key, lambda: build_codec(OmegaConf.to_container(self.config[key], resolve=True)))

    def part(self, key: str, **arguments: Any) -> Any:
        """Whatever stands at `key`, made with `arguments` besides its own; None if nothing stands there."""
        return self.attempt(key, lambda: instantiate(self.config.get(key), **arguments, _convert_="all"))

    def group(self, key: str) -> list[Any]:
        """The objects of a group of named parts, such as callbacks, in order; a part that is null is left out."""
        return [part for part in (self.part(key) or {}).values() if part is not None]

    def attempt(self, key: str, step: Callable[[], Any]) -> Any:
        """What `step` gives; None if it raises, which is then a fault of `key`."""
        try:
            return step()
        except (ValueError, TypeError, *USER_ERRORS) as error:
            for line in messages(error):
                known = line.startswith((f"{key}.", f"{key}="))
                self.faults.append(name_keys(self.config, line, key) or (line if known else f"{key}: {line}"))
            return None


def name_keys(config: DictConfig, message: str, within: str = "") -> str | None:
    """`message` with a leading `name=` replaced by the whole key that the user can set; None if there is none.

    Of several keys of that name, the uppermost in `within` is meant, else the uppermost of all; one that repeats
    another stands for that.
    """
    match = re.match(r"(\w+)=", message)
    sources = _sources(config)
    keys = [key for key in sources if match and key.rpartition(".")[2] == match[1]]
    if not keys:
        return None
    meant = min(keys, key=lambda key: (not key.startswith(f"{within}."), key.count(".")))
    return f"{sources[meant]}{message[match.end(1) :]}"


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
    _quieten()
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
        if _WANTS_TRACEBACK:
            raise
        for line in messages(error):
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:
        if _WANTS_TRACEBACK or "Config group override must be a string" not in str(error):
            raise
        nulls = " ".join(argument for argument in sys.argv[1:] if argument.endswith("=null"))
        print(f"error: {nulls}: a config group has no null; ~GROUP leaves it out, e.g. ~scheduler", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if rank_zero_only.rank == 0:
            print("\ninterrupted: the same command goes on from what was finished", file=sys.stderr)
        sys.exit(130)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before
        os.environ.pop("QUINTET_ONE_LINE_ERRORS", None)


def _quieten() -> None:
    """Keeps advice that the user can do nothing about off the terminal."""
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


def messages(error: BaseException) -> list[str]:
    """What went wrong first, one line a fault; of Hydra's and OmegaConf's own texts, what helps, in one line."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return lines or [type(error).__name__]
    noise = r"(full_key|object_type|reference_type|Set the env|Config search path|provider=|Key )"
    text = " ".join(line for line in lines if not re.match(noise, line)) or type(error).__name__
    text = re.sub(r"\. To append to your config use .*", ": there is no such key; --help lists them all", text)
    if "LexerNoViableAlt" in text:
        text += " - a value with spaces or signs is quoted twice: 'data.train.root=\"my photos\"'"
    full_key = re.search(r"full_key: (\S+)", str(error))
    return [f"{full_key[1]}: {text}" if full_key and full_key[1] not in text else text]
