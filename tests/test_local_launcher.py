"""The launcher `local`: which processes it starts, with which GPUs, and what it says of them."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, composed, run_python
from omegaconf import OmegaConf
from sweeping import EVALUATE, PATHS, TINY, TRAIN, left_over, sweep

from codec.job_queue import JobQueue, visible_gpus
from codec.run_state import RunState
from codec.runs import RunFolder
from codec.sweep import Sweep, sweep_name
from codec.sweep_jobs import Job, gpus_wanted

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")


# ---- the queue, with processes of a moment in place of trainings


class Queue:
    """A queue whose jobs are Python programs; `results.json` in the working folder's `job` is what they leave."""

    def __init__(self, folder: Path, gpus: list[str], n_jobs: int | None = None, fail_fast: bool = False) -> None:
        self.folder = folder
        self.sweep = Sweep(folder / "sweeps/a", "train.py -m", "train.py", "local")
        self.jobs: list[Job] = []
        self.options = (gpus, n_jobs, fail_fast)

    def add(self, program: str, gpus: int = 0) -> Job:
        number = len(self.jobs)
        run = RunFolder(self.folder / f"job-{number}")
        record = self.sweep.add(number, [f"seed={number}", "epochs=1"], run.path)
        program = f"import pathlib, os, sys, time\nfolder = pathlib.Path({str(run.path)!r})\n{program}"
        config = OmegaConf.create({"resume": True, "test": True})
        self.jobs.append(Job(record, config, run, [sys.executable, "-c", program], gpus))
        return self.jobs[-1]

    def run(self) -> None:
        JobQueue(self.sweep, self.jobs, *self.options).run()


DONE = "folder.mkdir(); (folder / 'results.json').write_text('{\"val_loss\": 0.5}')\n"
SEES = "(folder / 'seen').write_text(os.environ['CUDA_VISIBLE_DEVICES'])\n"
ALONE = """
busy = folder.with_name('busy')
busy.touch(exist_ok=False)
time.sleep(0.3)
busy.unlink()
"""
MEETS = """
here, there = (folder.with_name(f'here-{n}') for n in (MINE, 1 - MINE))
here.touch()
while not there.exists():
    time.sleep(0.01)
"""


def test_jobs_that_run_together_have_different_gpus_and_the_rest_waits(tmp_path: Path) -> None:
    queue = Queue(tmp_path, ["3", "GPU-5e", "7"])
    for number in range(2):  # each waits until the other runs
        queue.add(DONE + SEES + MEETS.replace("MINE", str(number)))
        queue.jobs[-1].gpus = 1
    queue.add(DONE + SEES, gpus=3)
    queue.add(DONE + SEES, gpus=0)
    queue.run()
    seen = [(job.run.path / "seen").read_text() for job in queue.jobs]
    assert seen[:2] == ["3", "GPU-5e"]
    assert sorted(seen[2].split(",")) == ["3", "7", "GPU-5e"]
    assert seen[3] == ""
    assert [job.value for job in queue.jobs] == [0.5] * 4


def test_without_gpus_one_job_runs_at_a_time_and_its_output_is_shown(tmp_path: Path, capsys) -> None:
    queue = Queue(tmp_path, [])
    for number in range(2):
        queue.add(DONE + ALONE + f"print('é half {number}', end='')")
    queue.run()
    assert capsys.readouterr().out.splitlines() == [
        f"sweep of 2 jobs, 1 at a time; logs: {tmp_path}/sweeps/a/",
        "job 0 started: seed=0",
        "é half 0",
        f"job 0 finished: {tmp_path}/job-0",
        "job 1 started: seed=1",
        "é half 1",
        f"job 1 finished: {tmp_path}/job-1",
        "sweep: 2 finished",
    ]


def test_several_at_a_time_print_into_their_logs_alone(tmp_path: Path, capsys) -> None:
    queue = Queue(tmp_path, [], n_jobs=2)
    for number in range(2):
        queue.add(DONE + MEETS.replace("MINE", str(number)) + "print('hello')")
    queue.run()
    assert "hello" not in capsys.readouterr().out
    for job in queue.jobs:
        command, output = Path(job.record.log).read_text().split("\nhello")
        assert command.startswith("$ ")
        assert output == "\n"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("sys.exit('error: seed=x: no integer')", "seed=x: no integer"),
        ("raise ValueError('first line\\nsecond')", "ValueError: first line"),
        ("sys.exit(7)", "exit status 7"),
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    ],
)
def test_a_failed_job_is_told_with_its_reason_and_the_others_go_on(
    program: str, reason: str, tmp_path: Path, capsys
) -> None:
    queue = Queue(tmp_path, [])
    queue.add(program)
    queue.add(DONE)
    queue.run()
    failed, sound = queue.jobs
    line = f"job 0 failed: {reason}; log: {failed.record.log}"
    assert str(failed.failure) == line
    assert line in capsys.readouterr().out.splitlines()
    assert Sweep.read(tmp_path / "sweeps/a").jobs[0].error == reason
    assert (sound.failure, sound.value) == (None, 0.5)


def test_fail_fast_stops_what_runs_and_starts_nothing_more(tmp_path: Path, capsys) -> None:
    queue = Queue(tmp_path, [], n_jobs=2, fail_fast=True)
    queue.add("time.sleep(600)")
    queue.add("sys.exit(1)")
    queue.add(DONE)
    queue.run()
    assert all(job.failure for job in queue.jobs)
    assert not queue.jobs[2].run.path.exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("sweep: 2 failed, 1 not started; the same command")


def test_a_finished_job_is_skipped_and_gives_its_value(tmp_path: Path, capsys) -> None:
    queue = Queue(tmp_path, [])
    job = queue.add("raise AssertionError")
    job.run.path.mkdir()
    (job.run.path / "results.json").write_text('{"val_loss": 0.25}')
    queue.run()
    assert (job.failure, job.value) == (None, 0.25)
    assert f"job 0 skipped: {job.run.path} is done" in capsys.readouterr().out


@linux
def test_what_a_job_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    queue = Queue(tmp_path, [])
    queue.add(f"import subprocess; subprocess.Popen(['sleep', '600'], cwd={str(tmp_path)!r})\n{DONE}")
    queue.run()
    monkeypatch.chdir(ROOT)
    assert left_over(tmp_path) == []


# ---- what a job wants


@pytest.mark.parametrize(
    ("overrides", "present", "wanted"),
    [
        ([], 0, 0),
        ([], 2, 1),
        (["strategy=gpu"], 0, 1),
        (["strategy=gpu", "strategy.devices=2"], 1, 2),
        (["strategy=ddp"], 4, 4),
        (["strategy=ddp", "strategy.devices=-1"], 4, 4),
        (["strategy=ddp", "strategy.devices='2'"], 4, 2),
        (["strategy=ddp", "strategy.devices=[1,3]"], 4, 4),
        (["strategy=ddp", "strategy.devices=2", "strategy.accelerator=cpu"], 4, 0),
        (["strategy=cpu"], 4, 0),
    ],
)
def test_a_training_wants_the_gpus_that_lightning_would_take(overrides: list, present: int, wanted: int) -> None:
    assert gpus_wanted(composed("train", overrides), present) == wanted


@pytest.mark.parametrize(
    ("device", "present", "wanted"),
    [("auto", 0, 0), ("auto", 2, 1), ("cpu", 2, 0), ("cuda", 2, 1), ("cuda:1", 2, 2), ("mps", 0, 0)],
)
def test_an_evaluation_wants_a_gpu_where_it_measures_on_one(device: str, present: int, wanted: int) -> None:
    assert gpus_wanted(composed("evaluate", [f"device={device}"]), present) == wanted


def test_the_gpus_are_those_that_an_outer_variable_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [str(number) for number in range(torch.cuda.device_count())]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == there
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_the_same_overrides_are_the_same_sweep_wherever_it_is_put() -> None:
    name = sweep_name(["epochs=3", "model=a,b", "runs=here"])
    assert name.startswith("model=a,b_epochs=3-")
    assert name == sweep_name(["epochs=3", "model=a,b", "runs=/there", "logger=csv"])
    assert name != sweep_name(["epochs=4", "model=a,b"])
    long = sweep_name([f"data.train.root='/{'x y' * 200}'", "seed=0,1"])
    assert len(long) <= 100
    assert "/" not in long
    assert " " not in long


# ---- sweeps as a user runs them


@pytest.mark.parametrize("n_jobs", ["0", "-1", "two"])
def test_a_wrong_number_of_jobs_is_one_line(n_jobs: str, tmp_path: Path) -> None:
    command = [sys.executable, TRAIN, "-m", "seed=0,1", f"hydra.launcher.n_jobs={n_jobs}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"hydra.launcher.n_jobs={n_jobs}: allowed are the integers from 1" in line


def test_a_sweep_of_evaluations_goes_the_same_way(tmp_path: Path) -> None:
    overrides = ("model=jpeg,png", "data=samples", "data.limit=1", "device=cuda,cpu", "logger=none")
    if torch.cuda.is_available():
        pytest.skip("here cuda is no fault")
    done, record = sweep(EVALUATE, *overrides, cwd=tmp_path)
    assert done.returncode == 1
    fault = "device=cuda: this job wants 1 GPU, and there are 0"
    assert [job.error for job in record.jobs] == [fault, None, fault, None]
    assert f"job 2 failed: {fault}; log: {record.jobs[2].log}" in done.stdout.splitlines()
    for job, name in ((record.jobs[1], "jpeg"), (record.jobs[3], "png")):
        assert Path(job.folder).name.startswith(f"{name}_samples-")
        assert json.loads((tmp_path / job.folder / "results.json").read_text())["images"] == 1
        assert RunState.read(tmp_path / job.folder).state == "done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # neither multirun/ nor .hydra/


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def begin_sweep(*overrides: str, cwd: Path) -> subprocess.Popen:
    """A sweep that goes on in the background, with interrupts heeded even where the tests ignore them."""
    environment = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    heed = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", heed, sys.executable, str(TRAIN), "-m", *overrides]
    with (cwd / "terminal").open("w") as out:
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=out)


def wait_for(what: str, process: subprocess.Popen, cwd: Path) -> Path:
    deadline = time.monotonic() + 600
    while not (found := list(cwd.glob(what))):
        assert process.poll() is None, (cwd / "terminal").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


@linux
@pytest.mark.parametrize("cut", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_cut_off_takes_all_its_processes_with_it(cut: signal.Signals, tmp_path: Path) -> None:
    two = () if cut is signal.SIGTERM else ("strategy=ddp", "strategy.devices=2")
    process = begin_sweep(*TINY, *two, "epochs=100000", "seed=0,1", cwd=tmp_path)
    checkpoint = wait_for("runs/*/checkpoints/last.ckpt", process, tmp_path)
    process.send_signal(cut)
    assert process.wait(120) == (-cut if cut is signal.SIGKILL else 130)
    assert left_over(tmp_path) == []
    assert RunState.read(checkpoint.parents[1]).state == "cut off"
    if cut is not signal.SIGKILL:
        said = (tmp_path / "terminal").read_text()
        assert "stopping 1 running; interrupt again to kill" in said
        assert "sweep: 1 failed, 1 not started; the same command does what is missing" in said


@linux
def test_the_same_sweep_skips_what_is_done_retries_what_failed_and_resumes_what_was_killed(tmp_path: Path) -> None:
    """SIGKILL at some step; the resumed weights are those of an uninterrupted training, to the last bit."""
    fault = ("+callbacks.fault._target_=faults.FaultWhile", "+callbacks.fault.file=fault-${epochs}")
    overrides = (*TINY, *fault, "seed=3", "epochs=1,2,60")
    (tmp_path / "fault-2").touch()
    process = begin_sweep(*overrides, cwd=tmp_path)
    record = Sweep.read(wait_for("runs/sweeps/*/2.log", process, tmp_path).parent)
    done, failed, killed = (tmp_path / job.folder for job in record.jobs)
    wait_for(str((killed / "checkpoints/last.ckpt").relative_to(tmp_path)), process, tmp_path)
    time.sleep(random.uniform(0, 1))
    os.kill(RunState.read(killed).pid, signal.SIGKILL)
    assert process.wait(60) == 1
    assert [RunState.read(run).state for run in (done, failed, killed)] == ["done", "failed", "killed"]
    assert "job 2 failed: killed by SIGKILL; log: " in (tmp_path / "terminal").read_text()
    assert torch.load(killed / "checkpoints/last.ckpt", weights_only=True)["epoch"] < 59

    (tmp_path / "fault-2").unlink()
    again, record = sweep(TRAIN, *overrides, cwd=tmp_path)
    assert again.returncode == 0, again.stdout[-3000:]
    assert [job.error for job in record.jobs] == [None] * 3
    assert f"job 0 skipped: {done.relative_to(tmp_path)} is done" in again.stdout
    assert f"training in {failed.relative_to(tmp_path)}" in again.stdout
    assert f"resuming in {killed.relative_to(tmp_path)}" in again.stdout
    assert again.stdout.splitlines()[-1] == "sweep: 2 finished, 1 skipped"

    run_python(
        TRAIN, *overrides[:-1], "epochs=60", "runs=whole", cwd=tmp_path, PYTHONPATH=PATHS, OMP_NUM_THREADS="1"
    )
    whole, resumed = weights(tmp_path / "whole" / killed.name), weights(killed)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
