"""From a point's overrides to a job: the command that runs it, its folder, and the GPUs it wants."""

import copy
import inspect
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from codec.sweeps.record import INTERRUPTED, Sweep, SweepJob
from codec.training.faults import USER_ERRORS, JobFailedError
from codec.training.paths import conf_folder, entry_command, expand_home
from codec.training.run_folder import RunFolder, folder_of
from codec.training.run_state import first_line

# What is the sweep's and not its jobs', of the overrides of Hydra itself.
_OF_THE_SWEEP = ("hydra.mode=", "hydra.launcher", "hydra/launcher", "hydra.sweep", "hydra/sweep")


@dataclass
class Job:
    """A point of a sweep; `done` says that it was so before, `gpus`, set by who has some, how many it works on.

    `value` is the lowest val/loss of a finished training, `failure` says why it failed; a job whose folder is that
    of another one, `same_as`, comes to what that comes to.
    """

    record: SweepJob
    config: DictConfig
    run: RunFolder | None
    command: list[str]
    done: bool = False
    value: float | None = None
    failure: JobFailedError | None = None
    same_as: "Job | None" = None
    gpus: int = 0

    def fail(self, reason: str) -> None:
        """Takes `reason` down as why this job failed."""
        self.record.error = reason
        how = reason if reason == INTERRUPTED else f"failed: {reason}"
        self.failure = JobFailedError(f"job {self.record.number} {how}; log: {self.record.log}")


def plan(sweep: Sweep, number: int, overrides: Sequence[str], config: DictConfig, others: Sequence[Job]) -> Job:
    """The job of `overrides`, after `others`, entered into the record of `sweep`.

    `config` is composed, with Hydra's own part; where it cannot be resolved, the job has failed.
    """
    run, done, value, fault, plain = None, False, None, None, task_config(config)
    try:
        run = run_folder(config)
        done = run.is_done(plain)
        value = run.val_loss if done else None
    except USER_ERRORS as error:
        fault = first_line(error)
    record = sweep.add(number, overrides, None if run is None else run.path)
    job = Job(record, plain, run, command_of(sweep.script, config), done, value)
    if fault is not None:
        job.fail(fault)
    elif not done:
        job.same_as = next((other for other in others if other.record.folder == record.folder), None)
    return job


def task_config(config: DictConfig) -> DictConfig:
    """What the script is given of a composed config: all but Hydra's own part."""
    plain = copy.deepcopy(config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    expand_home(plain)
    return plain


def run_folder(config: DictConfig) -> RunFolder:
    """Where the job of a composed config, which has Hydra's own part too, leaves its results.

    Raises what the script would raise where it cannot be said.
    """
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        return folder_of(task_config(config))
    finally:
        hydra.cfg = before


def gpus_wanted(config: DictConfig, present: int) -> int:
    """How many GPUs a training or an evaluation of this config works on, where so many are `present`."""
    if "trainer" not in config:
        device = str(config.device)
        one = device == "cuda" or (device == "auto" and present > 0)
        return 1 if one else max(1, present) if device.startswith("cuda:") else 0
    accelerator, devices = str(config.trainer.accelerator), config.trainer.devices
    if accelerator not in ("auto", "gpu", "cuda") or (accelerator == "auto" and not present):
        return 0
    if isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    return devices if isinstance(devices, int) and devices > 0 else max(1, present)  # auto, -1, or a list of some


def command_of(script: str, config: DictConfig) -> list[str]:
    """The command line of one job, which shares with the sweep what the user told Hydra about where configs are."""
    options = {"main": "--config-path", "command-line": "--config-dir"}
    sources = [s for s in config.hydra.runtime.config_sources if s.provider in options]
    sources = [s for s in sources if s.path != str(conf_folder())]
    entry, name = shlex.split(script), config.hydra.job.config_name
    hydra = [o for o in config.hydra.overrides.hydra if not o.lstrip("+~").startswith(_OF_THE_SWEEP)]
    return [
        *(sys.executable, *entry),
        *(argument for source in sources for argument in (options[source.provider], source.path)),
        *(("--config-name", name) if name != _name_of(entry[-1]) else ()),
        *hydra,
        *config.hydra.overrides.task,
    ]


def script_of(task: Callable[..., Any]) -> str:
    """The entry point whose job `task` is, as one would type it here behind `python`."""
    return shlex.join(entry_command(Path(inspect.unwrap(task).__globals__["__file__"]).stem))


def _name_of(entry: str) -> str:
    """`train` of a path to train.py, and of codec.training.train."""
    return Path(entry).stem if entry.endswith(".py") else entry.rpartition(".")[2]
