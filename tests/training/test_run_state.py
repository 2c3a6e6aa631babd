"""state.json: what the last start of a run came to, as it says itself and as others can see."""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, composed
from full_disk import fill, small_disk

from codec.training.config import ConfigError
from codec.training.run_folder import RunFolder
from codec.training.run_state import Recorder, RunState, first_line, is_locked

WORK = """
import pathlib, sys, time
from filelock import FileLock
from codec.training.run_state import LOCK, Recorder
folder = pathlib.Path(sys.argv[1])
lock = FileLock(folder / LOCK)
lock.acquire()
Recorder(folder).begin()
print("begun", flush=True)
time.sleep(600)
"""
RUNNING = RunState("running", None, platform.node(), 1, None, "2026-01-01T00:00:00+00:00", "", 1)


@contextmanager
def working(folder: Path) -> Iterator[subprocess.Popen]:
    """A process that has the folder's lock and says that it runs, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", WORK, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def left_by(folder: Path, error: BaseException | None, rank: int = 0, begin: bool = True) -> RunState | None:
    """The state after a block that raised `error`."""
    folder.mkdir(exist_ok=True)
    try:
        with Recorder(folder, rank) as record:
            if begin:
                record.begin(devices=2)
            if error is not None:
                raise error
    except type(error):
        pass
    return RunState.read(folder)


@pytest.mark.parametrize(
    ("error", "state", "line"),
    [
        (None, "done", None),
        (KeyboardInterrupt(), "cut off", None),
        (ConfigError("seed=x: no integer\nepochs=0: none"), "failed", "seed=x: no integer"),
        (RuntimeError("first\nsecond"), "failed", "RuntimeError: first"),
        (AssertionError(), "failed", "AssertionError"),
        (SystemExit(3), "failed", "SystemExit: 3"),
    ],
    ids=repr,
)
def test_the_end_of_a_run_is_written_down(error, state: str, line: str | None, tmp_path: Path) -> None:
    written = left_by(tmp_path, error)
    assert (written.state, written.error) == (state, line)
    assert (written.host, written.pid, written.devices) == (platform.node(), os.getpid(), 2)
    assert written.started <= written.updated
    assert written.started.endswith("+00:00")


def test_no_start_is_no_state(tmp_path: Path) -> None:
    assert RunState.read(tmp_path) is None


def test_the_first_of_several_processes_to_fail_is_kept(tmp_path: Path) -> None:
    RUNNING.write(tmp_path)
    assert left_by(tmp_path, RuntimeError("the cause"), rank=1, begin=False).error == "RuntimeError: the cause"
    state = left_by(tmp_path, RuntimeError("connection lost"), rank=2, begin=False)
    assert (state.state, state.error) == ("failed", "RuntimeError: the cause")


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=repr)
def test_a_further_process_says_only_that_it_failed(error, tmp_path: Path) -> None:
    RUNNING.write(tmp_path)
    before = (tmp_path / "state.json").read_bytes()
    left_by(tmp_path, error, rank=1, begin=False)
    assert (tmp_path / "state.json").read_bytes() == before


def test_a_run_that_fails_before_it_begins_says_so_where_it_has_a_folder_or_a_launcher_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUINTET_JOB_GROUP", raising=False)

    def fails(folder: Path) -> None:
        with pytest.raises(ConfigError), Recorder(folder):
            raise ConfigError("data: nothing here")

    fails(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("QUINTET_JOB_GROUP", "a")
    fails(tmp_path / "new")
    assert RunState.read(tmp_path / "new").error == "data: nothing here"
    monkeypatch.delenv("QUINTET_JOB_GROUP")
    fails(tmp_path)
    assert RunState.read(tmp_path).state == "failed"


def test_a_process_that_is_refused_the_folder_leaves_its_state_alone(tmp_path: Path) -> None:
    with working(tmp_path) as process:
        before = RunState.read(tmp_path)
        config = composed("train", [f"runs={tmp_path.parent}"])
        with pytest.raises(ConfigError, match="is being worked on"), Recorder(tmp_path):
            RunFolder(tmp_path).begin(config)
        assert RunState.read(tmp_path) == before
        assert before.pid == process.pid


def test_a_run_is_running_while_its_process_lives_and_killed_when_that_was_killed(tmp_path: Path) -> None:
    with working(tmp_path) as process:
        assert is_locked(tmp_path)
        assert RunState.read(tmp_path).state == "running"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_locked(tmp_path)
        assert RunState.read(tmp_path).state == "killed"
    assert json.loads((tmp_path / "state.json").read_text())["state"] == "running"


def test_what_runs_on_another_machine_is_believed(tmp_path: Path) -> None:
    replace(RUNNING, host="elsewhere").write(tmp_path)
    assert RunState.read(tmp_path).state == "running"


@pytest.mark.parametrize(
    ("squeue", "state"),
    [
        ("echo 7", "running"),
        ("exit 0", "killed"),
        ("printf '8\\n9\\n'", "killed"),  # others of its array
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", "killed"),
        ("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1", "running"),
    ],
)
def test_a_slurm_job_elsewhere_is_asked_about(
    squeue: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text(f'#!/bin/sh\n[ "$3" = 7 ] || exit 0\n{squeue}\n')
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    replace(RUNNING, host="elsewhere", slurm_job_id="7").write(tmp_path)
    assert RunState.read(tmp_path).state == state


def test_an_error_that_has_no_text_is_named_by_its_type() -> None:
    assert first_line(ValueError()) == "ValueError"
    assert first_line(OSError(28, "No space left on device")) == "[Errno 28] No space left on device"


def test_a_torn_record_is_none(tmp_path: Path) -> None:
    for torn in ("", "{", '{"state": "done"}', "\0" * 100):
        (tmp_path / "state.json").write_text(torn)
        assert RunState.read(tmp_path) is None


def test_on_a_full_disk_the_run_fails_of_what_met_it_first(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "1m") as run,
        pytest.raises(ConfigError, match="the first"),
        Recorder(run) as record,
    ):
        record.begin()
        fill(run)
        raise ConfigError("the first")
