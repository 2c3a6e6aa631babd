"""A training that is interrupted, killed, or begun twice: what it says, and that it goes on to the same end."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from conftest import folder_of, run_python, start_script, wait_for
from small_training import NARROW, SMALL, TRAIN

KILLED = [*SMALL, *NARROW, "epochs=4", "name=killed", "test=false"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The last checkpoint of the training that others are compared with."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run_python(TRAIN, *KILLED, cwd=folder)
    return last_checkpoint(folder)


def last_checkpoint(folder: Path) -> dict:
    return torch.load(folder_of(folder / "runs", "killed") / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_training_resumes_to_the_same_weights(torn: bool, uninterrupted: dict, tmp_path: Path) -> None:
    """SIGKILL after the first epoch's checkpoint; then the same command, to bitwise the same result."""
    log = tmp_path / "log"
    process = start_script(TRAIN, *KILLED, cwd=tmp_path, log=log)
    (last,) = wait_for(lambda: list(tmp_path.glob("runs/killed-*/checkpoints/last.ckpt")), process, log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if torn:
        os.truncate(last, 20000)
    resumed = run_python(TRAIN, *KILLED, cwd=tmp_path)
    assert "resuming in" in resumed.stdout
    assert (f"{last} is torn: going on from best.ckpt" in resumed.stderr) == torn
    again = last_checkpoint(tmp_path)
    assert uninterrupted["global_step"] == again["global_step"]
    assert uninterrupted["state_dict"].keys() == again["state_dict"].keys()
    assert all(
        torch.equal(tensor, again["state_dict"][name]) for name, tensor in uninterrupted["state_dict"].items()
    )


@pytest.mark.parametrize("cut", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_so_and_is_not_done(cut: signal.Signals, tmp_path: Path) -> None:
    command = (TRAIN, *SMALL, *NARROW, "epochs=100000", "name=cut")
    process = start_script(*command, cwd=tmp_path, log=tmp_path / "log")
    wait_for(lambda: list(tmp_path.glob("runs/cut-*/checkpoints/last.ckpt")), process, tmp_path / "log")
    process.send_signal(cut)
    assert process.wait() == 130
    assert (tmp_path / "log").read_text().count("interrupted: the same command goes on") == 1
    assert not list(tmp_path.glob("runs/cut-*/results.json"))


def test_a_signal_to_all_processes_of_a_training_interrupts_it_too(tmp_path: Path) -> None:
    # As timeout and SLURM send it: DataLoader's workers end by it, which torch reports as a RuntimeError.
    command = [sys.executable, TRAIN, *SMALL, *NARROW, "epochs=100000", "name=cut", "data.num_workers=2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: list(tmp_path.glob("runs/cut-*/checkpoints/last.ckpt")), process, tmp_path / "log")
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=300) == 130
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    said = (tmp_path / "log").read_text()
    assert said.count("interrupted: the same command goes on") == 1
    assert "Traceback" not in said


def test_processes_that_end_after_an_interruption_say_no_more(tmp_path: Path) -> None:
    ending = (
        "import atexit, signal, subprocess\n"
        "from codec.training.faults import user_errors\n"
        "def tell(*_): raise RuntimeError('a worker is killed')\n"  # as torch does of a DataLoader's
        "signal.signal(signal.SIGCHLD, tell)\n"
        "atexit.register(lambda: subprocess.run(['true']))\n"
        "with user_errors(): raise KeyboardInterrupt\n"
    )
    interrupted = run_python("-c", ending, cwd=tmp_path, check=False)
    assert interrupted.returncode == 130
    assert "interrupted: the same command goes on" in interrupted.stderr
    assert "RuntimeError" not in interrupted.stderr


def test_a_folder_that_another_process_works_on_is_left_alone(tmp_path: Path) -> None:
    command = [TRAIN, *SMALL, *NARROW, "epochs=100000", "name=busy"]
    process = start_script(*command, cwd=tmp_path, log=tmp_path / "log")
    try:
        wait_for(lambda: list(tmp_path.glob("runs/busy-*/checkpoints/last.ckpt")), process, tmp_path / "log")
        second = run_python(*command, cwd=tmp_path, check=False)
    finally:
        process.kill()
        process.wait()
    assert second.returncode == 2
    assert "is being worked on by another process" in second.stderr
    assert "Traceback" not in second.stderr
