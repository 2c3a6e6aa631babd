"""What the job of this process is called, and which jobs belong to it: told by its launcher, or known to Hydra."""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from codec.run_names import without_hash
from codec.training.wandb_names import shortened

# The environment in which a launcher starts a job.
NAME, GROUP = "QUINTET_JOB_NAME", "QUINTET_JOB_GROUP"
_SWEEP_NAME_LENGTH = 80


def job_group() -> str | None:
    """The name that all jobs of a sweep share; None for a job by itself."""
    told = os.environ.get(GROUP)
    if told or not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return told
    # Hydra's own launchers run the jobs in the sweep's process, and tell them nothing.
    return sweep_name(typed_overrides(sys.argv[1:]))


def job_name(folder: str | Path) -> str:
    """What the job whose run is in `folder` is called: in a sweep by its overrides, else by the folder's name."""
    name = os.environ.get(NAME)
    if not name and (job_group() is not None or "WANDB_SWEEP_ID" in os.environ):
        name = " ".join(own_overrides())
    return shortened(name) if name else without_hash(Path(folder).name)


def own_overrides() -> list[str]:
    """The overrides of this process's job, without those of Hydra itself."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def typed_overrides(arguments: Sequence[str]) -> list[str]:
    """Those of a command line's arguments that are overrides, and not of Hydra itself."""
    return [argument for argument in arguments if re.match(r"(?!hydra)[+~\w][\w.@/]*=", argument)]


def sweep_name(overrides: Sequence[str]) -> str:
    """The sweep of these overrides, as a file's name: swept ones first, and a hash of them all.

    Where its results are put and how it is watched is no part of it.
    """
    named = [override for override in overrides if not re.match(r"[+~]*(runs|logger)\b", override)]
    parsed = OverridesParser.create().parse_overrides(named)
    text = " ".join(override.input_line for override in sorted(parsed, key=lambda o: not o.is_sweep_override()))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    safe = re.sub(r"[^\w.,=+-]+", "_", text)[:_SWEEP_NAME_LENGTH]
    return f"{safe}-{digest}".lstrip("-.")


# For the folder of a sweep, hydra.sweep.dir.
OmegaConf.register_new_resolver("sweep_name", lambda overrides: sweep_name(list(overrides)), replace=True)
