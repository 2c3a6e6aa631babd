"""What a sweep asks SLURM for, and what it makes of SLURM's answers; programs of a line stand in for SLURM's."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import run_python
from sweeping import EVALUATE, TRAIN, planned

from codec.sweeps import slurm as slurm_queue
from codec.sweeps.plan import Job
from codec.sweeps.record import Sweep
from codec.sweeps.slurm import SlurmQueue, requested
from codec.training.config import ConfigError

pytest.importorskip("submitit", reason="pip install 'quintet-codec[slurm]'")
from submitit.helpers import DelayedSubmission

GONE = "exit 0"  # squeue no longer knows the job


def asked(tmp_path: Path, *overrides: str, script: Path = TRAIN) -> tuple[Job, dict]:
    job, config = planned(tmp_path, "hydra/launcher=slurm", *overrides, script=script)
    return job, requested(job, config.hydra.launcher)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`programs(squeue="exit 0")` puts such programs first on the PATH, beside an sbatch that takes every job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def install(**lines: str) -> None:
        for name, line in {"sbatch": "echo Submitted batch job 12", "srun": "exit 1", **lines}.items():
            (folder / name).write_text(f"#!/bin/sh\n{line}\n")
            (folder / name).chmod(0o755)

    return install


# ---- what is asked for


def test_a_task_is_asked_for_every_device_with_a_gpu_each(tmp_path: Path) -> None:
    _, request = asked(tmp_path, "strategy=ddp", "strategy.devices=8", "strategy.num_nodes=2")
    assert {"nodes": 2, "ntasks_per_node": 8, "gpus_per_node": 8}.items() <= request.items()


@pytest.mark.parametrize(
    ("script", "overrides"), [(TRAIN, ["strategy=cpu"]), (EVALUATE, ["model=jpeg", "data=samples", "device=cpu"])]
)
def test_a_job_on_the_cpu_asks_for_one_task_and_no_gpu(script: Path, overrides: list[str], tmp_path: Path) -> None:
    _, request = asked(tmp_path, *overrides, script=script)
    assert {"nodes": 1, "ntasks_per_node": 1, "gpus_per_node": None}.items() <= request.items()


def test_further_options_of_sbatch_are_passed_on(tmp_path: Path) -> None:
    further = "+hydra.launcher.additional_parameters.reservation=night"
    _, request = asked(tmp_path, "hydra.launcher.mem_gb=64", further)
    assert request["mem"] == "64GB"
    assert request["additional_parameters"] == {"requeue": True, "reservation": "night"}


def test_devices_auto_is_no_number_of_tasks(tmp_path: Path) -> None:
    job, request = asked(tmp_path, "strategy=ddp")
    assert request == {}
    assert job.record.error.startswith("strategy.devices=auto: say how many in a SLURM job")


def submitted(script: Path, *overrides: str, cwd: Path) -> tuple[subprocess.CompletedProcess, dict[str, str], str]:
    """The ended sweep, and what it asked for: the options of sbatch, and the line that calls srun."""
    slurm = ("-m", "hydra/launcher=slurm", "hydra.launcher.poll_s=0.01")
    done = run_python(script, *slurm, *overrides, cwd=cwd, check=False)
    (file,) = cwd.glob("runs/sweeps/*/slurm/*_submission.sh")
    text = file.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
    return done, options, next(line for line in text.splitlines() if line.startswith("srun "))


def test_two_nodes_of_eight_gpus_are_asked_for_by_one_command(programs: Callable, tmp_path: Path) -> None:
    programs(squeue="[ -e asked ] && echo 12 CANCELLED; touch asked")
    sizes = ("strategy=ddp", "strategy.devices=8", "strategy.num_nodes=2")
    limits = ("hydra.launcher.partition=gpu", "hydra.launcher.cpus_per_task=6", "hydra.launcher.timeout_min=600")
    done, options, srun = submitted(TRAIN, "model=diffusion", *sizes, *limits, cwd=tmp_path)
    wanted = {"nodes": "2", "ntasks-per-node": "8", "gpus-per-node": "8", "cpus-per-task": "6", "partition": "gpu"}
    assert wanted.items() <= options.items()
    assert (options["time"], options["signal"], options["requeue"]) == ("600", "USR2@120", "")
    assert "array" not in options
    assert " --cpus-per-task=6 " in srun  # which srun does not take over from sbatch since SLURM 22.05
    assert " --kill-on-bad-exit=1 " in srun
    assert done.returncode == 1
    assert re.search(r"^job 0 failed: SLURM ended job 12: CANCELLED; see also \S+/slurm/; log: ", done.stdout, re.M)


def test_points_are_an_array_with_a_limit(programs: Callable, tmp_path: Path) -> None:
    programs(squeue="[ -e asked ] && printf '12_%d COMPLETED\\n' 0 1 2; touch asked")
    points = ("model=jpeg", "model.quality=20,50,80", "data=samples", "hydra.launcher.array_parallelism=2")
    (tmp_path / "runs").mkdir()
    done, options, _ = submitted(EVALUATE, *points, cwd=tmp_path)
    assert options["array"] == "0-2%2"
    assert done.stdout.splitlines()[1] == "job 0 submitted as SLURM job 12_0: model.quality=20"
    (file,) = tmp_path.glob("runs/sweeps/*/slurm/12_0_submitted.pkl")
    told = DelayedSubmission.load(file).function.environment
    assert told["QUINTET_JOB_NAME"] == "model.quality=20"
    assert told["QUINTET_JOB_GROUP"] == file.parents[1].name


# ---- what is made of the answers


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmQueue:
    """A queue of one training, whose job is given up at once if it leaves no result."""
    monkeypatch.setattr(slurm_queue, "_PATIENCE", 0.0)
    job, request = asked(tmp_path)
    return SlurmQueue(Sweep(tmp_path / "sweeps/a", "train.py -m", "train.py", "slurm"), [job], [request], 0.01)


def test_a_job_that_slurm_forgot_has_failed_unless_its_folder_says_that_it_is_done(
    queue: SlurmQueue, programs: Callable
) -> None:
    programs(squeue=GONE)
    (job,) = queue.jobs
    queue.run()
    assert job.record.error == f"SLURM ended job 12; see also {queue.folder}/"
    job.run.path.mkdir()
    (job.run.path / "results.json").write_text('{"val_loss": 0.25}')
    job.failure = None
    queue.run()
    assert (job.failure, job.value) == (None, 0.25)


@pytest.mark.parametrize(("state", "finished"), [("COMPLETED", True), ("NODE_FAIL", False), ("CANCELLED", False)])
def test_without_a_result_slurms_word_counts(
    state: str, finished: bool, queue: SlurmQueue, programs: Callable, tmp_path: Path
) -> None:
    programs(squeue=f"[ -e {tmp_path}/asked ] && echo 12 {state}; touch {tmp_path}/asked")
    (job,) = queue.jobs
    (job.run.path / "checkpoints").mkdir(parents=True)
    torch.save({"val_loss": 0.25}, job.run.path / "checkpoints/best.ckpt")
    queue.run()
    assert (job.failure is None) == finished


def test_a_slurm_that_does_not_answer_is_handed_nothing(
    queue: SlurmQueue, programs: Callable, tmp_path: Path
) -> None:
    programs(squeue="exit 1", sbatch=f"touch {tmp_path}/called")
    with pytest.raises(ConfigError, match="SLURM does not answer: nothing was submitted; squeue says why"):
        queue.run()
    assert not (tmp_path / "called").exists()


def test_a_further_rank_that_raised_first_tells_the_reason(queue: SlurmQueue, programs: Callable) -> None:
    programs(squeue=GONE)
    (job,) = queue.jobs
    log = Path(job.record.log)
    log.write_text("$ python train.py\nValueError: of an earlier start\n$ python train.py\n")
    log.with_suffix(".rank1.log").write_text("$ python train.py\n[rank1]: RuntimeError: no memory\n")
    queue.run()
    assert job.record.error == "RuntimeError: no memory"


def test_without_slurm_the_sweep_is_refused_in_a_line(queue: SlurmQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(ConfigError, match="^hydra/launcher=slurm: no SLURM here"):
        queue.run()
