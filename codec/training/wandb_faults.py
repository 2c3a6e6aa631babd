"""A fault of W&B costs no training and no result: it becomes one line, and CSV goes on."""

import os
import sys
import traceback
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wandb
from google.protobuf.message import DecodeError
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from pydantic import ValidationError

from codec.training.wandb_offline import remove_staging


def raised_by_wandb(error: BaseException) -> bool:
    """Whether W&B raised it, or its files, connections and settings did, and not the code that calls W&B."""
    frames = traceback.walk_tb(error.__traceback__)
    within = any(frame.f_globals.get("__name__", "").partition(".")[0] == "wandb" for frame, _ in frames)
    return isinstance(error, Exception) and (within or isinstance(error, OSError | DecodeError | ValidationError))


def report(error: BaseException) -> None:
    """The one line: what W&B raised."""
    if rank_zero_only.rank != 0:
        return
    text = " ".join(str(error).split()) or "no reason given"
    print(f"W&B: left out from here on, {type(error).__name__}: {text}; CSV and results go on", file=sys.stderr)


def tolerates_wandb_faults(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a logger that does nothing once W&B has failed; a fault of W&B in it is told, kept as `fault`."""

    @wraps(method)
    def tolerant_method(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.fault is not None:
            return None
        try:
            return method(self, *arguments, **named)
        except Exception as error:
            if not raised_by_wandb(error):
                raise
            if self.fault is None:  # or a method within this one has told it
                self.fault = error
                report(error)
            return None

    return tolerant_method


def ensure_home() -> None:
    """Gives a process of a user without a home folder one until it ends: W&B does not begin without."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = _temporary_home().name


@cache
def _temporary_home() -> TemporaryDirectory:
    return TemporaryDirectory(ignore_cleanup_errors=True)


def finish_wandb(logger: WandbLogger, exit_code: int) -> None:
    """Ends W&B's run, if it has not ended, and W&B's own process; clears away what no upload needs any more."""
    failed = logger.fault is not None
    for end in (wandb.finish, wandb.teardown):  # the second, or it comes when Python ends, and prints a traceback
        try:
            end(exit_code=exit_code)
        except Exception as error:  # whatever is raised is of W&B
            if not failed:
                report(error)
            failed = True
    # Only now are W&B's files whole; WANDB_DIR may be shared with runs that go on.
    if not failed and Path(logger.save_dir) == logger.folder:
        remove_staging(logger.folder)
