"""`python -m codec.sweeps.status`: what became of every job, from the files that runs and launchers leave."""

import json
import os
import platform
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import composed
from filelock import FileLock
from omegaconf import OmegaConf

from codec.sweeps.record import Sweep
from codec.sweeps.status import main
from codec.training.run_folder import RunFolder
from codec.training.run_state import LOCK, RunState

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
COLUMNS = "epoch,step,train/loss,val/loss"


def run_folder(name: str, state: str | None, *starts: list[str], error: str | None = None) -> Path:
    """The folder in ./runs of a training without a test, with the CSV rows of its `starts`; the last took 90 s."""
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("epochs: 20\ntest: false\n")
    for number, rows in enumerate(starts):
        file = folder / f"metrics/version_{number}/metrics.csv"
        file.parent.mkdir(parents=True)
        file.write_text("\n".join([COLUMNS, *rows, ""]))
    if state is not None:
        write_state(folder, state, error)
    return folder


def write_state(folder: Path, state: str, error: str | None = None) -> None:
    updated = BEGAN + timedelta(seconds=0 if state == "running" else 90)
    times = (BEGAN.isoformat(), updated.isoformat())
    RunState(state, error, platform.node(), os.getpid(), None, *times, devices=1).write(folder)


def sweep_of(name: str, *jobs: tuple[Path | None, str | None], command: str = "", launcher: str = "local") -> Sweep:
    """A sweep's record over `seed`, whose jobs have these folders and errors of the launcher."""
    sweep = Sweep(
        Path("runs/sweeps", name), command or "python train.py -m epochs=20 seed=1,2,3", "train.py", launcher
    )
    for number, (folder, error) in enumerate(jobs):
        job = sweep.add(number, ["epochs=20", f"seed={number}"], folder)
        job.error = error
        Path(job.log).touch()
    sweep.write()
    return sweep


def shown(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines, blanks joined."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return exit_.value.code, [
        " ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()
    ]


def states_of(lines: list[str]) -> dict[str, str]:
    """What the table says of every job of `sweep_of`: {"0": "done", "1": "cut off"}."""
    told = (line.split()[:4] for line in lines if " seed=" in line)
    return {job: f"{state} {more}" if state == "cut" else state for job, _, state, more in told}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def patience() -> Iterator[None]:
    """Ends a test whose --watch does not end."""

    def lost(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, lost)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_every_state_a_job_can_be_in_is_shown_and_counted(capsys: pytest.CaptureFixture) -> None:
    done = run_folder("done-0", "done", ["19,199,0.1,", "19,199,,0.25"])
    (done / "results.json").write_text(json.dumps({"val_loss": 0.125, "epochs": 20, "images": 3}))
    running = run_folder("running-0", "running", ["0,9,0.5,", "0,9,,0.4", "1,14,0.3,"])
    sweep_of(
        "states",
        (done, None),
        (running, None),
        (run_folder("failed-0", "failed", ["0,9,0.5,"], error="RuntimeError: out of memory"), "RuntimeError"),
        (run_folder("stopped-0", "cut off", ["0,9,0.5,"]), "interrupted"),
        (run_folder("killed-0", "running"), None),
        (run_folder("shot-0", "running"), "killed by SIGKILL"),
        (Path("runs/waiting-0"), None),
        (None, "epochs=x: allowed are the integers from 1"),
    )
    with FileLock(running / LOCK):
        status, lines = shown(capsys)
    assert status == 1
    assert lines[0] == "job what differs state progress best val/loss minutes log"
    assert lines[1] == "0 seed=0 done epoch 20/20, step 200 0.125 1.5 0.log"
    assert lines[2].startswith("1 seed=1 running epoch 2/20, step 15 0.4 ")
    assert lines[3] == "2 seed=2 failed epoch 1/20, step 10 1.5 2.log"
    assert lines[4] == "3 seed=3 cut off epoch 1/20, step 10 1.5 3.log"
    assert [line.split()[2] for line in lines[5:9]] == ["cut", "failed", "waiting", "failed"]
    assert lines[9:] == [
        "job 2 failed: RuntimeError: out of memory",
        "job 5 failed: killed by SIGKILL",
        "job 7 failed: epochs=x: allowed are the integers from 1",
        "logs: runs/sweeps/states/",
        "8 jobs: 1 done, 1 running, 3 failed, 2 cut off, 1 waiting",
    ]


def test_where_nothing_failed_the_exit_status_is_0(capsys: pytest.CaptureFixture) -> None:
    sweep_of("fine", (run_folder("a-0", "done"), None), (run_folder("b-0", "cut off"), "interrupted"))
    status, lines = shown(capsys)
    assert (status, lines[-1]) == (0, "2 jobs: 1 done, 1 cut off")


def test_a_resumed_run_shows_what_it_has_reached_in_all_of_its_starts(capsys: pytest.CaptureFixture) -> None:
    starts = ["0,9,0.5,", "0,9,,0.2", "1,14,0.4,"], ["1,14,0.4,", "1,19,0.3,", "1,19,,0.3"]
    sweep_of("resumed", (run_folder("a-0", "cut off", *starts), None))
    assert "epoch 2/20, step 20 0.2 1.5" in shown(capsys)[1][1]


def test_a_sweep_is_found_by_its_folder_its_name_and_as_the_newest(capsys: pytest.CaptureFixture) -> None:
    for seconds, name in enumerate(("older", "newest")):
        sweep = sweep_of(name, (Path(f"runs/{name}-0"), None))
        os.utime(sweep.folder / "sweep.json", (seconds, seconds))
    assert "logs: runs/sweeps/newest/" in shown(capsys)[1]
    for named in (("older",), ("runs/sweeps/older",), ("older", "--runs", "runs")):
        assert "logs: runs/sweeps/older/" in shown(capsys, *named)[1]


def test_without_a_sweep_the_runs_of_the_folder_are_shown(capsys: pytest.CaptureFixture) -> None:
    evaluated = run_folder("jpeg-0", None)
    (evaluated / "results.json").write_text(json.dumps({"images": 24}))
    run_folder("mine-0", "failed", error="RuntimeError: no")
    status, lines = shown(capsys)
    assert status == 1
    assert lines[0] == "run state progress best val/loss minutes"
    assert lines[1:3] == ["jpeg-0 done 24 images", "mine-0 failed 1.5"]
    assert lines[3:] == ["run mine-0 failed: RuntimeError: no", "2 runs: 1 done, 1 failed"]


def test_what_is_neither_a_sweep_nor_a_folder_of_runs_is_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["nothing"])
    assert exit_.value.code == 2
    assert "nothing is neither a sweep in runs/sweeps nor a folder of runs" in capsys.readouterr().err


@pytest.mark.parametrize("test", [True, False])
def test_it_says_done_of_the_runs_that_the_same_command_skips(test: bool, capsys: pytest.CaptureFixture) -> None:
    done, composed_once = set(), composed("train", [f"test={test}"])
    for state in (None, "done", "failed", "cut off", "running"):
        for results in (True, False):
            config = composed_once.copy()
            config.name = f"{state}-{results}".replace(" ", "_")
            run = RunFolder.of(config)
            run.path.mkdir(parents=True)
            OmegaConf.save(config, run.path / "config.yaml")
            if results:
                (run.path / "results.json").write_text(json.dumps({"val_loss": 0.5, "images": 1}))
            if state is not None:
                write_state(run.path, state)
            if run.is_done(config):
                done.add(run.path.name)
    assert len(done) == (5 if test else 6)
    rows = [line.split() for line in shown(capsys)[1]]
    assert {row[0] for row in rows if row[1] == "done"} == done


def test_what_a_living_launcher_has_not_ended_yet_is_waiting(capsys: pytest.CaptureFixture) -> None:
    error = "RuntimeError: in its last start"
    sweep = sweep_of(
        "again",
        (run_folder("done-0", "done"), None),
        (run_folder("failed-0", "failed", error=error), None),
        (run_folder("failed-1", "failed", error=error), error),
        (run_folder("cut-0", "cut off"), None),
        (run_folder("killed-0", "running"), None),
        (Path("runs/new-0"), None),
        (run_folder("early-0", None), "interrupted"),
    )
    over = {"0": "done", "2": "failed", "6": "cut off"}
    with FileLock(sweep.folder / LOCK):
        waiting = dict.fromkeys("1345", "waiting")
        assert states_of(shown(capsys)[1]) == over | waiting
    assert states_of(shown(capsys)[1]) == over | {"1": "failed", "3": "cut off", "4": "cut off", "5": "waiting"}


def squeue(says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a `squeue` on the PATH, a shell script."""
    program = Path("bin/squeue")
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent.resolve()), prepend=os.pathsep)


def slurm_sweep(*runs: Path) -> None:
    """A sweep whose jobs for the folders `runs` SLURM knows as 7_0, 7_1, …"""
    sweep = sweep_of("slurm", *((run, None) for run in runs), launcher="slurm")
    (sweep.folder / "slurm").mkdir()
    submitted = {run.name: f"7_{number}" for number, run in enumerate(runs)}
    (sweep.folder / "slurm/submitted.json").write_text(json.dumps(submitted))


def test_what_slurm_is_to_run_again_is_waiting_and_what_it_ended_is_as_its_run_says(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {
        "PENDING": run_folder("resubmitted-0", "failed", error="RuntimeError: no"),
        "REQUEUED": run_folder("preempted-0", "cut off"),
        "RUNNING": run_folder("importing-0", "cut off"),
        "COMPLETING": run_folder("done-0", "done"),
        "FAILED": run_folder("failed-0", "failed", error="RuntimeError: no"),
        "CANCELLED": run_folder("cancelled-0", "cut off"),
    }
    squeue("\n".join(f"echo 7_{number} {state}" for number, state in enumerate(there)), monkeypatch)
    slurm_sweep(*there.values())
    told = ["waiting", "waiting", "waiting", "done", "failed", "cut off"]
    assert list(states_of(shown(capsys)[1]).values()) == told


def test_watching_goes_on_while_slurm_has_a_job(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, patience: None
) -> None:
    squeue("[ -f asked ] && touch again; touch asked; [ -f again ] || echo 7_0 PENDING", monkeypatch)
    slurm_sweep(run_folder("cancelled-0", "cut off"))
    status, lines = shown(capsys, "--watch")
    assert (status, lines[-1]) == (0, "1 job: 1 cut off")
    assert Path("again").exists()


def test_watching_goes_on_while_the_launcher_lives_and_ends_with_what_it_wrote_last(
    capsys: pytest.CaptureFixture, patience: None
) -> None:
    sweep = sweep_of("going", (Path("runs/a-0"), None))
    lock = FileLock(sweep.folder / LOCK, thread_local=False)
    lock.acquire()

    def end() -> None:
        sweep.jobs[0].error = "killed by SIGKILL"
        sweep.write()
        lock.release()

    threading.Timer(1, end).start()
    status, lines = shown(capsys, "--watch")
    assert (status, lines[-1]) == (1, "1 job: 1 failed")
    assert "job 0 failed: killed by SIGKILL" in lines


def test_watching_ends_where_nobody_is_left_to_start_what_waits(
    capsys: pytest.CaptureFixture, patience: None
) -> None:
    sweep_of("over", (run_folder("a-0", "done"), None), (Path("runs/b-0"), None))
    status, lines = shown(capsys, "--watch")
    assert (status, lines[-1]) == (0, "2 jobs: 1 done, 1 waiting")


def test_a_job_of_a_sweep_without_variation_is_named_by_all_its_overrides(capsys: pytest.CaptureFixture) -> None:
    sweep_of("one", (Path("runs/a-0"), None), command="python train.py -m epochs=20 seed=0")
    assert shown(capsys)[1][1] == "0 epochs=20 seed=0 waiting 0.log"
