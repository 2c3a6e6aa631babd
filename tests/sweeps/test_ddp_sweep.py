"""Sweeps of trainings of two processes: every job is a process tree of its own, whatever happens in another."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import run_python
from sweeping import PATHS, TINY, TRAIN, left_over, sweep

from codec.training.run_state import RunState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")

DDP = (*TINY, "strategy=ddp", "+callbacks.witness._target_=faults.Witness")
TASK = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}  # as srun sets them
FAULTS = ("before_fit-1", "in_training-0", "in_training-1", "nowhere")


def trained_by(folder: Path) -> dict[str, list[tuple[int, int]]]:
    """`{run folder: [(rank, world size) of every process that trained in it]}`"""
    found: dict[str, list[tuple[int, int]]] = {}
    for line in (folder / "witness.txt").read_text().splitlines():
        run, rank, size = line.split(" ")
        found.setdefault(str(folder / run), []).append((int(rank), int(size)))
    return {run: sorted(processes) for run, processes in found.items()}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A sweep whose jobs raise in one process of two, before the fit or in it; the last is sound.

    It is itself the one task of a SLURM job.
    """
    folder = tmp_path_factory.mktemp("faulty")
    fault = ("+callbacks.fault._target_=faults.Fault", f"+callbacks.fault.at={','.join(FAULTS)}")
    done, record = sweep(TRAIN, *DDP, "strategy.devices=2", *fault, cwd=folder, **TASK)
    return SimpleNamespace(folder=folder, done=done, jobs=dict(zip(FAULTS, record.jobs, strict=True)))


def test_a_sweep_with_failed_jobs_exits_with_a_status_that_says_so(faulty: SimpleNamespace) -> None:
    assert faulty.done.returncode == 1
    assert faulty.done.stdout.splitlines()[-1].startswith("sweep: 1 finished, 3 failed; ")


@pytest.mark.parametrize("at", FAULTS[:-1])
def test_a_job_that_raises_in_any_process_fails_at_once_with_its_reason_and_log(
    at: str, faulty: SimpleNamespace
) -> None:
    job = faulty.jobs[at]
    when, rank = at.split("-")
    reason = f"RuntimeError: a fault {when} of rank {rank}"
    lines = faulty.done.stdout.splitlines()
    failed = lines.index(f"job {job.number} failed: {reason}; log: {Path(job.log).relative_to(faulty.folder)}")
    assert failed < next(n for n, line in enumerate(lines) if line.startswith(f"job {job.number + 1} started"))
    assert job.error == reason
    state = RunState.read(job.folder)
    assert (state.state, state.error) == ("failed", reason)
    assert f"{reason}\n" in Path(job.log).read_text()


def test_the_job_after_the_failed_ones_is_trained_by_its_own_two_processes(faulty: SimpleNamespace) -> None:
    sound = faulty.jobs["nowhere"]
    state = RunState.read(sound.folder)
    assert (state.state, state.devices) == ("done", 2)
    trained = trained_by(faulty.folder)
    assert trained[sound.folder] == [(0, 2), (1, 2)]
    for at in ("in_training-0", "in_training-1"):
        assert trained[faulty.jobs[at].folder] == [(0, 2), (1, 2)]
    assert len(trained) == 3


def test_failed_jobs_leave_no_process_behind(faulty: SimpleNamespace) -> None:
    assert left_over(faulty.folder) == []


def test_a_training_that_cannot_have_its_processes_is_refused(tmp_path: Path) -> None:
    done = run_python(TRAIN, *DDP, "strategy.devices=2", cwd=tmp_path, check=False, PYTHONPATH=PATHS, **TASK)
    assert done.returncode == 2
    assert "error: strategy.devices=2: 2 processes are to train, and there is 1: in SLURM start" in done.stderr


def test_a_launcher_without_processes_of_its_own_refuses_several_devices(tmp_path: Path) -> None:
    command = (TRAIN, "-m", *TINY, "seed=0,1", "strategy.devices=2", "hydra/launcher=basic")
    done = run_python(*command, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert re.search(r"^error: strategy\.devices=2 with hydra/launcher=basic: .*=local$", done.stderr, re.MULTILINE)
