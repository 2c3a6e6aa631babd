"""Sweeps on a real SLURM, a private one of one node: `make test-slurm` installs it and runs these."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, wait_for
from sweeping import TINY, TRAIN

sys.path.insert(0, str(ROOT / "tests/slurm"))
from cluster import missing, private_slurm

from codec.sweeps.record import Sweep
from codec.training.run_state import RunState

pytest.importorskip("submitit", reason="pip install 'quintet-codec[slurm]'")
pytestmark = pytest.mark.skipif(
    "QUINTET_SLURM" not in os.environ or missing() is not None,
    reason=missing() or "starts a SLURM: make test-slurm",
)

SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.poll_s=0.5")
TRAINING = (*TINY, "epochs=3", "+callbacks.hold._target_=hold.Hold")
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("tests/slurm", "tests", ""))
PATIENCE = 600  # seconds


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with private_slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**os.environ, **environment, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}


def start(*overrides: str, cwd: Path, environment: dict[str, str]) -> subprocess.Popen:
    """`python train.py OVERRIDES` in `cwd`, shown as it is typed."""
    print(f"$ {shlex.join(['python', 'train.py', *overrides])}")
    return subprocess.Popen(
        [sys.executable, TRAIN, *overrides],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and output; a process that does not end is killed, and fails the test."""
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"did not end:\n{process.communicate()[0][-3000:]}")
    print(output)
    return process.returncode, output


def slurm(*command: str, environment: dict[str, str]) -> None:
    """A command of SLURM's, shown as it is typed."""
    print(f"$ {shlex.join(command)}")
    subprocess.run(command, env=environment, check=True)


def record(cwd: Path) -> Sweep:
    (folder,) = (cwd / "runs/sweeps").iterdir()
    return Sweep.read(folder)


def epochs(cwd: Path) -> list[list[tuple[int, ...]]]:
    """What every SLURM job trained: (epoch, rank, world size) in order."""
    return [
        [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
        for file in sorted(cwd.glob("trained-*.txt"), key=lambda file: int(file.stem.removeprefix("trained-")))
    ]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def test_a_requeued_and_a_preempted_job_resume_to_the_weights_of_uninterrupted_ones(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    """So they do with `resume=false`, which is about what was there before the sweep."""
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    cut.mkdir()
    whole.mkdir()
    (cut / "hold").touch()
    sweep = start("-m", *SLURM, *TRAINING, "seed=0,1", "resume=false", cwd=cut, environment=cluster)
    wait_for(lambda: [e[-1][0] for e in epochs(cut) if e] == [1, 1], sweep)  # both in their second epoch
    queue = ["squeue", "--noheader", "--array", "--format", "%i"]
    first, second = sorted(subprocess.check_output(queue, env=cluster, text=True).split())
    slurm("scontrol", "requeue", first, environment=cluster)
    slurm("scancel", "--signal=USR2", second, environment=cluster)
    wait_for(lambda: [len(e) for e in epochs(cut)] == [3, 3], sweep)  # both there again
    jobs = record(cut).jobs
    assert all("interrupted: " in Path(job.log).read_text() for job in jobs)
    (cut / "hold").unlink()
    status, output = finish(sweep)
    assert status == 0, output
    assert output.splitlines()[-1] == "sweep: 2 finished"
    assert epochs(cut) == [[(0, 0, 1), (1, 0, 1), (1, 0, 1), (2, 0, 1)]] * 2  # the second again, from its beginning
    for seed, folder in enumerate(Path(job.folder) for job in jobs):
        status, output = finish(start(*TRAINING, f"seed={seed}", cwd=whole, environment=cluster))
        assert status == 0, output
        resumed, uninterrupted = weights(folder), weights(whole / folder.relative_to(cut))
        assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)
    _, output = finish(start("-m", *SLURM, *TRAINING, "seed=0,1", cwd=cut, environment=cluster))
    assert output.splitlines()[-1] == "sweep: 2 skipped"


def test_the_tasks_of_a_job_are_the_ranks_of_one_training_which_is_preempted_or_fails_as_one(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    faults = ("+callbacks.fault._target_=faults.Fault", "+callbacks.fault.at=in_training-1,nowhere")
    training = ["logger=wandb" if override == "logger=csv" else override for override in TRAINING]
    ddp = ("strategy=ddp", "strategy.devices=2", "data.crops_per_image=4")  # two steps an epoch for either
    (tmp_path / "hold").touch()
    sweep = start("-m", *SLURM, *training, *ddp, *faults, cwd=tmp_path, environment=cluster)
    wait_for(lambda: any(len(e) == 4 for e in epochs(tmp_path)), sweep)  # two processes in their second epoch
    failed, trained = record(tmp_path).jobs
    submitted = json.loads((record(tmp_path).folder / "slurm/submitted.json").read_text())
    run = Path(trained.folder)
    slurm("scancel", "--signal=USR2", submitted[run.name], environment=cluster)
    wait_for(lambda: RunState.read(run).state == "cut off", sweep)
    (tmp_path / "hold").unlink()
    status, output = finish(sweep)
    assert status == 1, output
    assert (
        f"job 0 failed: RuntimeError: a fault in_training of rank 1; log: {os.path.relpath(failed.log, tmp_path)}\n"
        in output
    )
    assert output.splitlines()[-1].startswith("sweep: 1 finished, 1 failed; ")
    whole = max(epochs(tmp_path), key=len)
    assert sorted(whole) == sorted((epoch, rank, 2) for epoch in (0, 1, 1, 2) for rank in (0, 1))
    assert len(list(run.glob("wandb/offline-run-*"))) == 2  # one a start, not one a rank
    assert (RunState.read(run).state, RunState.read(run).devices) == ("done", 2)
    command = (run / "provenance/commands.txt").read_text()
    assert "train.py " in command
    assert " -m " not in command
    assert "strategy.devices=2" in command


def test_a_sweep_that_was_stopped_waits_again_for_its_jobs_and_says_which_was_cancelled(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    command = ("-m", *SLURM, *TRAINING, "seed=2")
    sweep = start(*command, cwd=tmp_path, environment=cluster)
    wait_for(lambda: [e[-1][0] for e in epochs(tmp_path) if e] == [1], sweep)
    sweep.terminate()
    status, output = finish(sweep)
    number = re.search(r"job 0 submitted as SLURM job (\d+): ", output)[1]
    assert status == 130
    assert f"1 stay in SLURM's queue: the same command waits for them again, scancel {number} stops them" in output
    sweep = start(*command, cwd=tmp_path, environment=cluster)
    assert sweep.stdout.readline().startswith("sweep of 1 job in SLURM's queue; logs: ")
    assert sweep.stdout.readline().startswith(f"job 0 is still SLURM job {number}: ")
    slurm("scancel", number, environment=cluster)
    status, output = finish(sweep)
    assert status == 1
    assert f"job 0 failed: SLURM ended job {number}: CANCELLED; " in output
    (tmp_path / "hold").unlink()
    status, output = finish(start(*command, cwd=tmp_path, environment=cluster))
    assert status == 0
    assert output.splitlines()[-1] == "sweep: 1 finished"
    assert [epoch for job in epochs(tmp_path) for epoch in job] == [(0, 0, 1), (1, 0, 1), (1, 0, 1), (2, 0, 1)]
