"""The launcher `local`: which processes it starts, with which GPUs, and what it says of them."""

import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_python
from omegaconf import OmegaConf
from sweeping import TRAIN, left_over

from codec.sweeps.local import LocalQueue, visible_gpus
from codec.sweeps.plan import Job
from codec.sweeps.record import Sweep
from codec.training.faults import JobFailedError, sigterm_interrupts
from codec.training.run_folder import RunFolder
from codec.training.run_state import lock
from hydra_plugins.quintet_launchers import LocalLauncher, Returned

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")


# ---- the queue, with processes of a moment in place of trainings


class Queue:
    """A queue whose jobs are Python programs; each has a folder to leave `results.json` in."""

    def __init__(self, folder: Path, gpus: list[str], n_jobs: int | None = None, fail_fast: bool = False) -> None:
        self.folder = folder
        self.sweep = Sweep(folder / "sweeps/a", "train.py -m seed=0,1,2 epochs=1", "train.py", "local")
        self.jobs: list[Job] = []
        self.options = (gpus, n_jobs, fail_fast)

    def add(self, program: str, gpus: int = 0) -> Job:
        number = len(self.jobs)
        run = RunFolder(self.folder / f"job-{number}")
        record = self.sweep.add(number, [f"seed={number}", "epochs=1"], run.path)
        program = f"import pathlib, os, sys, time\nfolder = pathlib.Path({str(run.path)!r})\n{program}"
        devices = {"accelerator": "gpu" if gpus else "cpu", "devices": gpus}
        config = OmegaConf.create({"trainer": devices, "strategy": devices})
        self.jobs.append(Job(record, config, run, [sys.executable, "-c", program]))
        return self.jobs[-1]

    def run(self) -> None:
        LocalQueue(self.sweep, self.jobs, *self.options).run()


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
        queue.add(DONE + SEES + MEETS.replace("MINE", str(number)), gpus=1)
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
    assert [job.record.error for job in queue.jobs] == ["interrupted", "exit status 1", None]
    assert str(queue.jobs[2].failure) == "job 2 was not started, since another one failed"
    assert not queue.jobs[2].run.path.exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("sweep: 1 failed, 1 interrupted, 1 not started;")


def test_what_needs_no_run_is_told_first_and_gives_its_value(tmp_path: Path, capsys) -> None:
    queue = Queue(tmp_path, [])
    queue.add(DONE)
    queue.add("raise AssertionError").same_as = queue.jobs[0]
    done = queue.add("raise AssertionError")
    done.done, done.value = True, 0.25
    queue.run()
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "job 1 skipped: it is job 0, the same folder",
        f"job 2 skipped: {done.run.path} is done",
        "job 0 started: seed=0",
    ]
    assert [Returned.of(job).return_value for job in queue.jobs] == [0.5, 0.5, 0.25]


def test_a_job_that_wants_more_gpus_than_there_are_has_failed_unless_it_is_done(tmp_path: Path, capsys) -> None:
    queue = Queue(tmp_path, ["0"])
    wants = queue.add("raise AssertionError", gpus=2)
    queue.add("raise AssertionError", gpus=2).done = True
    queue.run()
    assert wants.record.error == "strategy.devices=2: this job wants 2 GPUs, and there are 1"
    assert capsys.readouterr().out.splitlines()[-1].startswith("sweep: 1 skipped, 1 failed; ")


def test_a_job_in_the_folder_of_a_failed_one_has_failed_too(tmp_path: Path) -> None:
    queue = Queue(tmp_path, [])
    queue.add("sys.exit(1)")
    queue.add("raise AssertionError").same_as = queue.jobs[0]
    queue.run()
    with pytest.raises(JobFailedError, match="job 0 failed: exit status 1"):
        _ = Returned.of(queue.jobs[1]).return_value


def test_a_job_whose_results_cannot_be_read_has_failed_and_the_others_go_on(tmp_path: Path) -> None:
    queue = Queue(tmp_path, [])
    queue.add("folder.mkdir(); (folder / 'results.json').write_text('{')")
    queue.add("pass")
    queue.add(DONE)
    queue.run()
    damaged, missing, sound = queue.jobs
    assert damaged.record.error.startswith(f"{damaged.run.path}/results.json is damaged: ")
    assert missing.record.error.startswith(f"no checkpoint at {missing.run.path}: ")
    assert sound.value == 0.5


@pytest.mark.parametrize("fail_fast", [False, True])
def test_an_interrupt_stops_what_runs_and_is_not_lost(fail_fast: bool, tmp_path: Path, capsys) -> None:
    """SIGTERM, also when `fail_fast` waits for the others to end: here it comes from one that is told to end."""
    queue = Queue(tmp_path, [], n_jobs=2, fail_fast=fail_fast)
    ends = "signal.signal(signal.SIGTERM, lambda *_: (os.kill(os.getppid(), signal.SIGTERM), sys.exit(1)))"
    queue.add(f"import signal\n{ends if fail_fast else ''}\n{MEETS.replace('MINE', '0')}time.sleep(600)")
    fails = "sys.exit(1)" if fail_fast else "import signal; os.kill(os.getppid(), signal.SIGTERM); time.sleep(600)"
    queue.add(f"{MEETS.replace('MINE', '1')}{fails}")
    queue.add(DONE)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        queue.run()
    lines = capsys.readouterr().out.splitlines()
    assert f"stopping {1 if fail_fast else 2} running; interrupt again to kill" in lines
    assert queue.jobs[0].record.error == "interrupted"
    ended = "1 failed, 1 interrupted" if fail_fast else "2 interrupted"
    assert lines[-1] == f"sweep: {ended}, 1 not started; the same command does what is missing"


def test_a_fault_of_the_queue_itself_stops_what_runs(tmp_path: Path) -> None:
    queue = Queue(tmp_path, [], n_jobs=2)
    queue.add("time.sleep(600)")
    queue.add("folder.mkdir(); (folder / 'results.json').write_text('[]')")
    with pytest.raises(AttributeError):
        queue.run()
    assert queue.jobs[0].record.error == "interrupted"


def test_in_an_allocation_of_slurms_a_job_is_not_taken_for_one_task_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    queue = Queue(tmp_path, [])
    queue.add(DONE + "(folder / 'seen').write_text(' '.join(os.environ))")
    queue.run()
    seen = (queue.jobs[0].run.path / "seen").read_text().split()
    assert "SLURM_JOB_ID" in seen
    assert not [name for name in seen if name.startswith("SLURM_NTASKS")]


@linux
def test_what_a_job_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    queue = Queue(tmp_path, [])
    queue.add(f"import subprocess; subprocess.Popen(['sleep', '600'], cwd={str(tmp_path)!r})\n{DONE}")
    queue.run()
    monkeypatch.chdir(ROOT)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("variable", "gpus"), [(None, ["0", "1"]), ("5,GPU-ab", ["5", "GPU-ab"]), ("5,6,7", ["5", "6"])]
)
def test_the_gpus_are_those_that_an_outer_variable_leaves(
    variable: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == gpus


# ---- sweeps as a user runs them


@pytest.mark.parametrize("n_jobs", [0, -1, "two"])
def test_a_wrong_number_of_jobs_is_refused(n_jobs: object) -> None:
    with pytest.raises(ValueError, match=f"hydra.launcher.n_jobs={n_jobs}: allowed are the integers from 1"):
        LocalLauncher(n_jobs, fail_fast=False)


def test_what_is_wrong_with_a_launcher_is_one_line(tmp_path: Path) -> None:
    done = run_python(TRAIN, "-m", "seed=0,1", "hydra.launcher.n_jobs=0", cwd=tmp_path, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "hydra.launcher.n_jobs=0: allowed are the integers from 1" in line


def test_a_sweep_that_runs_is_not_started_a_second_time(tmp_path: Path) -> None:
    (tmp_path / "runs/sweeps/a").mkdir(parents=True)
    with lock(tmp_path / "runs/sweeps/a"):
        again = run_python(TRAIN, "-m", "seed=0,1", "hydra.sweep.dir=runs/sweeps/a", cwd=tmp_path, check=False)
    assert again.returncode == 2
    assert "error: runs/sweeps/a is being worked on by another process: wait for it" in again.stderr
    assert not (tmp_path / "runs/sweeps/a/sweep.json").exists()
