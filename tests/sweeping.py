"""What tests of sweeps share: a tiny training, a sweep as a user runs it, and a look at what it left."""

import os
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from conftest import ROOT, composed, run_python
from omegaconf import DictConfig

from codec.sweeps.plan import Job, plan
from codec.sweeps.record import Sweep

PATHS = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])  # where jobs find tests/faults.py
TRAIN, EVALUATE = ROOT / "train.py", ROOT / "evaluate.py"
TINY = (
    *("logger=csv", "test=false", "epochs=1", "~callbacks.progress", "~callbacks.panel"),
    *("data.num_workers=0", "data.crop_size=64", "data.batch_size=4", "data.crops_per_image=2", "data.limit=4"),
    *("data.eval_crop=64", "model.widths=[8,8]", "model.latent_channels=4", "strategy.accelerator=cpu"),
)


def planned(
    runs: Path, *overrides: str, script: Path = TRAIN, others: Sequence[Job] = (), **where: Path
) -> tuple[Job, DictConfig]:
    """The job of these overrides, after `others`, in a sweep whose runs are in `runs`; and its whole config."""
    overrides = (f"runs={runs}", *overrides)
    config = composed(script.stem, list(overrides), hydra=True, **where)
    sweep = Sweep(runs / "sweeps/a", f"{script} -m", str(script), "local", [job.record for job in others])
    return plan(sweep, len(others), overrides, config, others), config


def sweep(
    script: Path, *overrides: str, cwd: Path, **environment: str
) -> tuple[subprocess.CompletedProcess, Sweep]:
    """`python SCRIPT -m OVERRIDES` in `cwd`, whatever comes of it, and its record; both are shown."""
    environment = {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", **environment}
    done = run_python(script, "-m", *overrides, cwd=cwd, check=False, **environment)
    print(f"$ {shlex.join(['python', script.name, '-m', *overrides])}\n{done.stdout}{done.stderr}")
    (folder,) = (cwd / "runs/sweeps").iterdir()
    return done, Sweep.read(folder)


def left_over(cwd: Path) -> list[str]:
    """The processes that still work in `cwd` after a moment, as their command lines."""
    deadline = time.monotonic() + 10  # killed ones take a moment to go
    while True:
        found = [command for process in Path("/proc").glob("[0-9]*") if (command := _command_in(process, cwd))]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _command_in(process: Path, cwd: Path) -> str:
    try:
        if (process / "cwd").readlink() == cwd:
            return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:  # it has ended, or is somebody else's
        pass
    return ""
