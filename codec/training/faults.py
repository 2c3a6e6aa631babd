"""How `train.py` and `evaluate.py` end: a user's errors as lines and an exit status, SIGTERM as an interrupt.

Importing this takes no torch, so that a fault that needs none to be seen is told at once.
"""

import gc
import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from codec.errors import ConfigError, UserError, did_you_mean
from codec.training.paths import conf_folder

# Faults that the user can mend; anything else is ours, and its traceback is wanted.
USER_ERRORS = (
    UserError,
    HydraException,
    OmegaConfBaseException,
    OSError,  # no space, no permission, no such folder
)
# Processes that Lightning starts inherit HYDRA_FULL_ERROR from `user_errors`; the second variable tells them so.
_WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1" and "QUINTET_ONE_LINE_ERRORS" not in os.environ
_interrupted = threading.Event()


class JobFailedError(UserError, RuntimeError):
    """Of several jobs that were started one failed; the text says which, why, and where its log is.

    Who started them has said so: the process ends with status 1, and nothing more is printed.
    """


@contextmanager
def user_errors() -> Iterator[None]:
    """Prints a user's error as `error: …` on stderr and exits with status 2; used as decorator too.

    Stands around a Hydra entry point, where the config is composed, and again inside, around the job, before
    Hydra adds lines of its own. The environment variable HYDRA_FULL_ERROR=1 brings the traceback. SIGTERM, unless
    somebody else handles it, is an interrupt too: status 130. JobFailedError: status 1.
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
        # DataLoader's workers got the signal as well: torch would raise at their end, in what is done at exit.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
        ".*in eval mode at the start of training.*",
        ".*srun. command is available on your system but is not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def faults_in(error: BaseException) -> list[UserError]:
    """What went wrong first, one of USER_ERRORS; of Hydra's and OmegaConf's own texts, what helps, in one line."""
    error = cause_of(error)
    if isinstance(error, UserError):
        return error.faults
    lines = lines_of(error)
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return [ConfigError(line) for line in lines or [type(error).__name__]]
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return [ConfigError(error.override, f"quote a value with spaces or signs twice, '{key}=\"{value}\"'")]
    noise = r"(full_key|object_type|reference_type|Set the env|Config search path|provider=|Key )"
    text = " ".join(line for line in lines if not re.match(noise, line)) or type(error).__name__
    several = re.match(r"Ambiguous value for argument '([^=]+)=(.*?)' 1\. ", text)
    if several:
        key, values = several.groups()
        is_group = (conf_folder() / key.lstrip("+~")).is_dir()
        one = "" if is_group or key.startswith("~") else f"; one list is [{values}]"
        return [ConfigError(f"{key}={values}", f"-m makes a run of each{one}")]
    text = re.sub(r"\. To append to your config use .*", ": there is no such key; --help lists them all", text)
    text = re.sub(r"\. No match in the defaults list\. .*", ": this command has no such group", text)
    text = re.sub(r" Available options in '[\w/]+': (base )?", ": there are ", text)  # base is what others build on
    text = text.removesuffix(".") + _meant_by(error)
    if text.startswith("Error merging override ") and isinstance(error.__cause__, OmegaConfBaseException):
        text = ": ".join([text, *lines_of(error.__cause__)[:1]])
    full_key = getattr(error, "full_key", None)
    return [ConfigError(full_key, text) if full_key and full_key not in text else ConfigError(text)]


def _meant_by(error: BaseException) -> str:
    """The key or the option of a group that is nearest to a misspelt one."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return did_you_mean(option, error.options or (), within=f"{group}=")
    deleted = re.search(r"Could not delete from config. '([\w.]+)' does not exist", str(error))
    if deleted:
        parent, dot, key = deleted[1].rpartition(".")
        groups = [path.name for path in conf_folder().iterdir() if path.is_dir()]
        return did_you_mean(key, _keys_below(parent, error) if dot else groups, within=f"~{parent}{dot}")
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, ConfigAttributeError | ConfigKeyError):
        key = str(cause.key)
        keys = list(map(str, cause.parent_node.keys())) if isinstance(cause.parent_node, DictConfig) else []
        return "" if key in keys else did_you_mean(key, keys, within=(cause.full_key or key).removesuffix(key))
    return ""


def _keys_below(parent: str, error: BaseException) -> list[str]:
    """The keys at `parent` of the config that Hydra was changing when it raised; its error tells nothing of it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    config = frames[-1].f_locals.get("cfg") if frames else None
    node = OmegaConf.select(config, parent) if isinstance(config, DictConfig) else None
    return list(map(str, node.keys())) if isinstance(node, DictConfig) else []


def messages(error: BaseException) -> list[str]:
    """The lines of `faults_in`."""
    return [line for fault in faults_in(error) for line in lines_of(fault)]


def lines_of(error: BaseException) -> list[str]:
    """The lines of an error's text that hold anything."""
    return [line.strip() for line in str(error).splitlines() if line.strip()]


def cause_of(error: BaseException) -> BaseException:
    """What a constructor raised that Hydra called; any other error itself."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Has SIGTERM raise KeyboardInterrupt in this block, unless somebody else handles it.

    What else is raised once it has come, is raised because of it.
    """
    handled = signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    if not handled:
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except Exception as error:
        # Sent to a whole group, it ends a DataLoader's workers too, and torch raises that on top of the interrupt.
        if _interrupted.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        if not handled:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _interrupted.clear()


def raise_if_lost() -> None:
    """Raises KeyboardInterrupt if SIGTERM has come, but where Python drops what is raised: in a `__del__`."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _interrupt(*_: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _never_ran(error: BaseException) -> bool:
    """Whether Hydra's very call was refused: the arguments were not those of the signature."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals["__name__"].startswith("hydra._internal.instantiate")
