"""A fault of W&B costs one line; a fault of ours is raised; CSV and results go on."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from conftest import ROOT, folder_of
from wandb_files import environment_without_key, read_back, run_without_key

from codec.training.loggers import shut_down, where_to_look
from codec.training.wandb_faults import tolerates_wandb_faults
from codec.training.wandb_logger import CodecWandbLogger, wandb_logger
from codec.training.wandb_offline import remove_staging

SMALL = ("model=jpeg", "data=samples", "data.limit=2", "device=cpu", "data.num_workers=0", "logger=wandb")

# W&B's own processes are killed when the first image is measured.
KILLS = """
import os, signal, subprocess, sys
import codec.measure
def below(process):
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True).stdout.split()
    return [*map(int, found), *(other for child in found for other in below(child))]
plain = codec.measure.measure
def measure(*arguments):
    for process in below(os.getpid()):
        os.kill(process, signal.SIGKILL)
    return plain(*arguments)
codec.measure.measure = measure
sys.argv = sys.argv[1:]
import runpy
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CodecWandbLogger:
    monkeypatch.setenv("WANDB_MODE", "offline")
    return wandb_logger(str(tmp_path / "a-01234567"), "quintet")


def test_a_fault_at_the_beginning_is_one_line_and_nothing_else_happens(
    offline: CodecWandbLogger, capsys: pytest.CaptureFixture
) -> None:
    offline._wandb_init["project"] = "a/b"  # which the logger would have changed
    offline.log_metrics({"val/loss": 1.0}, 0)
    offline.log_hyperparams({"a": 1})
    offline.log_image("val/x", [])
    offline.log_tables([{"name": "a"}], {}, {}, 0)
    offline.finish()
    assert where_to_look([offline]) is None
    shut_down([offline], 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W&B: left out from here on, UsageError: Invalid project name 'a/b': ")
    assert line.endswith("; CSV and results go on")


def test_a_fault_of_ours_is_raised() -> None:
    class Ours:
        fault = None

        @tolerates_wandb_faults
        def fail(self) -> None:
            raise KeyError("ours")

        @tolerates_wandb_faults
        def of_wandb(self) -> None:
            wandb.Settings(run_tags=[""])

    ours = Ours()
    with pytest.raises(KeyError, match="ours"):
        ours.fail()
    assert ours.fault is None
    ours.of_wandb()
    assert ours.fault is not None


def test_an_evaluation_outlives_w_and_b(tmp_path: Path) -> None:
    (tmp_path / "kills.py").write_text(KILLS)
    process = run_without_key(
        tmp_path / "kills.py", ROOT / "evaluate.py", *SMALL, cwd=tmp_path, PYTHONPATH=str(ROOT)
    )
    assert process.returncode == 0, process.stderr[-3000:]
    said = [line for line in process.stderr.splitlines() if "W&B" in line]
    assert said == ["W&B: left out from here on, ConnectionResetError: Connection lost; CSV and results go on"]
    assert "Traceback" not in process.stderr
    run = folder_of(tmp_path / "runs", "jpeg-q50_on_samples")
    assert json.loads((run / "results.json").read_text())["images"] == 2
    with (run / "metrics/version_0/metrics.csv").open() as file:
        assert float(next(csv.DictReader(file))["test/psnr"]) > 20


@pytest.fixture(scope="module")
def named() -> Iterator[subprocess.CompletedProcess]:
    """An evaluation whose names W&B would refuse, by a user without a home."""
    names = ('name="a,b"', "logger.wandb.project=a/b", f"logger.wandb.tags=[{'t' * 79}]")
    command = [sys.executable, str(ROOT / "evaluate.py"), *SMALL, *names]
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        environment = environment_without_key(folder)
        del environment["HOME"]
        if os.getuid() == 0 and shutil.which("setpriv"):
            folder.chmod(0o777)
            command = ["setpriv", "--reuid", "54321", "--clear-groups", *command]  # who is in no list of users
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        process.cwd = folder
        yield process


def test_names_that_w_and_b_refuses_and_no_home_stop_nothing(named: subprocess.CompletedProcess) -> None:
    assert named.returncode == 0, named.stderr[-3000:]
    run = folder_of(named.cwd / "runs", "a,b")
    written = read_back(run)
    assert written.run.project == "a-b"
    assert written.run.run_id.startswith("a-b-")
    assert written.tables.keys() == {"test/images", "test/rate_distortion"}
    assert json.loads((run / "results.json").read_text())["images"] == 2


def test_staged_copies_that_no_upload_needs_are_gone(named: subprocess.CompletedProcess) -> None:
    run = folder_of(named.cwd / "runs", "a,b")
    written = read_back(run)
    staged = set((run / "wandb/artifacts/staging").iterdir())
    assert set(written.pictures.values()) < staged
    assert len(staged) == len(written.pictures) + len(written.tables)
    (written.folder / f"run-{written.run.run_id}.wandb.synced").touch()
    remove_staging(run)
    assert not (run / "wandb/artifacts").exists()
