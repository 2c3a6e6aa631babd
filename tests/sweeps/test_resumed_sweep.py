"""Sweeps that are cut off: nothing of them is left running, and the same command does what is missing."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import run_python, wait_for
from sweeping import PATHS, TINY, TRAIN, left_over, sweep

from codec.training.run_state import RunState

EPOCHS, STEPS = 5, 2  # STEPS an epoch


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_the_same_sweep_skips_what_is_done_retries_what_failed_and_resumes_what_was_killed(tmp_path: Path) -> None:
    """SIGKILL at some step; the resumed weights are those of an uninterrupted training, to the last bit."""
    fault = ("+callbacks.fault._target_=faults.FaultWhile", "+callbacks.fault.file=fault-${name}")
    overrides = (*TINY, *fault, f"epochs={EPOCHS}", "name=whole,failed,killed")  # three times the same training
    (tmp_path / "fault-failed").touch()
    (tmp_path / "fault-killed").write_text(str(random.randrange(STEPS, EPOCHS * STEPS)))
    cut, record = sweep(TRAIN, *overrides, cwd=tmp_path)
    assert cut.returncode == 1
    whole, failed, killed = (Path(job.folder) for job in record.jobs)
    assert [RunState.read(run).state for run in (whole, failed, killed)] == ["done", "failed", "killed"]
    assert "job 2 failed: killed by SIGKILL; log: " in cut.stdout
    step = int((tmp_path / "fault-killed").read_text())
    assert checkpoint(killed)["global_step"] == step // STEPS * STEPS

    for file in tmp_path.glob("fault-*"):
        file.unlink()
    again, record = sweep(TRAIN, *overrides, cwd=tmp_path)
    assert again.returncode == 0
    assert [job.error for job in record.jobs] == [None] * 3
    assert f"job 0 skipped: {whole.relative_to(tmp_path)} is done" in again.stdout
    assert f"training in {failed.relative_to(tmp_path)}" in again.stdout
    assert f"resuming in {killed.relative_to(tmp_path)}" in again.stdout
    assert again.stdout.splitlines()[-1] == "sweep: 2 finished, 1 skipped"

    uninterrupted, resumed = (checkpoint(run)["state_dict"] for run in (whole, killed))
    assert uninterrupted.keys() == resumed.keys()
    different = [name for name, tensor in uninterrupted.items() if not torch.equal(tensor, resumed[name])]
    assert not different, f"killed after step {step} of {EPOCHS * STEPS}"


def begin_sweep(*overrides: str, cwd: Path) -> subprocess.Popen:
    """A sweep that goes on in the background, with interrupts heeded even where the tests ignore them."""
    environment = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    heed = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", heed, sys.executable, str(TRAIN), "-m", *overrides]
    with (cwd / "terminal").open("w") as out:
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=out)


def test_an_interrupt_that_python_drops_is_heeded_before_the_next_batch(tmp_path: Path) -> None:
    lost = ("+callbacks.lost._target_=faults.LostInterrupt", "epochs=100000")
    done = run_python(TRAIN, *TINY, *lost, cwd=tmp_path, check=False, PYTHONPATH=PATHS, OMP_NUM_THREADS="1")
    assert done.returncode == 130, done.stderr
    (run,) = tmp_path.glob("runs/*")
    assert RunState.read(run).state == "cut off"
    assert "Exception ignored in" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="looks for left processes in /proc")
@pytest.mark.parametrize("cut", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_cut_off_takes_all_its_processes_with_it(cut: signal.Signals, tmp_path: Path) -> None:
    two = ("strategy=ddp", "strategy.devices=2") if cut is signal.SIGKILL else ()
    process = begin_sweep(*TINY, *two, "epochs=100000", "seed=0,1", cwd=tmp_path)
    checkpoints = "runs/*/checkpoints/last.ckpt"
    (last,) = wait_for(lambda: list(tmp_path.glob(checkpoints)), process, tmp_path / "terminal")
    process.send_signal(cut)
    assert process.wait(120) == (-cut if cut is signal.SIGKILL else 130)
    assert left_over(tmp_path) == []
    assert RunState.read(last.parents[1]).state == "cut off"
    if cut is not signal.SIGKILL:
        said = (tmp_path / "terminal").read_text()
        assert "stopping 1 running; interrupt again to kill" in said
        assert "sweep: 1 interrupted, 1 not started; the same command does what is missing" in said
