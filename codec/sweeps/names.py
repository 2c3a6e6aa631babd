"""What tells the jobs of a sweep apart, as W&B, the status table and the terminal name them."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from codec.run_names import without_hash
from codec.sweeps.record import Sweep, current_sweep, sweep_name
from codec.training.wandb_names import shortened


def sweep_group() -> str | None:
    """The name of the sweep that this process is a job of, which its W&B runs share; None for a job by itself."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return current_sweep()
    # Of a launcher that runs the jobs in the sweep's own process.
    return current_sweep() or sweep_name(_typed_overrides(sys.argv[1:]))


def run_name(folder: str | Path) -> str:
    """What the W&B run of the job in `folder` is called: what differs in its sweep, else the folder's name."""
    sweep = sweep_group()
    if sweep is not None or "WANDB_SWEEP_ID" in os.environ:
        differing = what_differs(own_overrides(), Path(folder).parent / "sweeps" / (sweep or ""))
        if differing:
            return shortened(" ".join(differing))
    return without_hash(Path(folder).name)


def own_overrides() -> list[str]:
    """The overrides of this process's job, without those of Hydra itself."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def what_differs(overrides: Sequence[str], sweep: str | Path) -> list[str]:
    """Those of a job's `overrides` that the sweep recorded in the folder `sweep` varies; without any, all."""
    try:
        swept = _swept_keys(Sweep.read(sweep).command)
    except ValueError:  # its launcher keeps no record
        swept = set()
    return [override for override in overrides if _key(override) in swept] or list(overrides)


def _swept_keys(command: str) -> set[str]:
    """The keys to which a command line gives several values: {"model"} of `train.py -m model=a,b epochs=3`."""
    parsed = OverridesParser.create().parse_overrides(_typed_overrides(shlex.split(command)))
    return {_key(override.input_line) for override in parsed if override.is_sweep_override()}


def _typed_overrides(arguments: Sequence[str]) -> list[str]:
    """Those of a command line's arguments that are overrides, and not of Hydra itself."""
    return [argument for argument in arguments if re.match(r"(?!hydra)[+~\w][\w.@/]*=", argument)]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
