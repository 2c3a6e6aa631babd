"""A training that is killed and resumed is one W&B run and one curve: online, offline, and on disk as CSV."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, folder_of, wait_for
from wandb_files import environment_without_key, records, run_without_key
from wandb_server import WandbServer, wandb_server

from codec.training.csv_metrics import read_logged
from codec.training.wandb_offline import cut_to_whole_records, files_of_starts, last_value, set_aside

EPOCHS, STEPS = 5, 20  # of an epoch
SMALL = (
    "strategy=cpu",
    "logger=wandb",
    "name=small",
    "test=false",
    f"epochs={EPOCHS}",
    "data.limit=12",
    "data.num_workers=0",
    "data.crop_size=64",
    "data.batch_size=4",
    "data.crops_per_image=8",
    "data.val_fraction=0.1",
    "data.eval_crop=192",
    "trainer.log_every_n_steps=1",
    "model.widths=[8,8]",
    "model.latent_channels=4",
)


@pytest.fixture(scope="module")
def server() -> Iterator[WandbServer]:
    with wandb_server() as started:
        yield started


def train_and_kill(folder: Path, **environment: str) -> None:
    """Starts a training and kills it, with all of its processes, in the third epoch."""
    command = [sys.executable, str(ROOT / "train.py"), *SMALL]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**environment_without_key(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        wait_for(lambda: any(int(row["step"]) > 2 * STEPS + 4 for row in logged(folder)), process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()


def logged(folder: Path) -> list[dict[str, str]]:
    return [row for run in folder.glob("runs/small-*") for row in read_logged(run)]


def resume(folder: Path, **environment: str) -> None:
    process = run_without_key(ROOT / "train.py", *SMALL, cwd=folder, **environment)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "resuming in" in process.stdout


def sync(folder: Path, server: WandbServer) -> subprocess.CompletedProcess:
    """What the last line of a training says: `wandb sync` of the run's folder of all starts."""
    run = folder_of(folder / "runs", "small")
    return run_without_key("-m", "wandb", "sync", run / "wandb", cwd=folder, **server.environment)


@pytest.fixture(scope="module", params=["offline", "online"])
def resumed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server: WandbServer
) -> SimpleNamespace:
    """A training that was killed in its third epoch and then resumed: its folder, and its run on the server."""
    folder = tmp_path_factory.mktemp(request.param)
    server.runs.clear()
    environment = server.environment if request.param == "online" else {"WANDB_MODE": "offline"}
    train_and_kill(folder, **environment)
    run = folder_of(folder / "runs", "small")
    (file,) = files_of_starts(run, run.name)
    os.truncate(file, file.stat().st_size - 5)  # as a machine leaves it that fails while it writes
    resume(folder, **environment)
    if request.param == "offline":
        assert not server.runs
        uploaded = sync(folder, server)
        assert "Finished syncing" in uploaded.stdout + uploaded.stderr
    ((name, run),) = server.runs.items()
    return SimpleNamespace(folder=folder_of(folder / "runs", "small"), name=name, run=run)


def test_the_server_has_one_run_with_the_whole_curve(resumed: SimpleNamespace) -> None:
    assert resumed.name == resumed.folder.name
    curve = resumed.run.curve("train/loss")
    assert [step for step, _ in sorted(set(curve))] == list(range(EPOCHS * STEPS))  # what was repeated: equal
    assert len(curve) < (EPOCHS + 1) * STEPS
    assert resumed.run.exits[-1] == 0


def test_wandbs_own_steps_never_go_back(resumed: SimpleNamespace) -> None:
    steps = [row["_step"] for row in resumed.run.history]
    assert steps == sorted(set(steps))


def test_the_csv_is_one_curve_in_which_repeated_steps_occur_once(resumed: SimpleNamespace) -> None:
    assert len(list(resumed.folder.glob("metrics/version_*"))) == 2
    rows = read_logged(resumed.folder)
    assert [int(row["step"]) for row in rows if "train/loss" in row] == list(range(EPOCHS * STEPS))
    ends = [(epoch + 1) * STEPS - 1 for epoch in range(EPOCHS)]
    assert [int(row["step"]) for row in rows if "val/loss" in row] == ends
    losses = {int(row["step"]): float(row["train/loss"]) for row in rows if "train/loss" in row}
    assert dict(resumed.run.curve("train/loss")) == pytest.approx(losses, rel=1e-6)


def test_a_file_cut_anywhere_is_cut_back_to_its_whole_records(resumed: SimpleNamespace, tmp_path: Path) -> None:
    whole = files_of_starts(resumed.folder, resumed.folder.name)[-1]
    data, all_records = whole.read_bytes(), list(records(whole))
    file, counts = tmp_path / "run-x.wandb", []
    for length in (7, 8, 1000, 32768, 32775, len(data) - 1, len(data)):
        file.write_bytes(data[:length])
        cut_to_whole_records(file)
        kept = list(records(file))
        assert kept == all_records[: len(kept)]
        left = file.read_bytes()
        cut_to_whole_records(file)
        assert file.read_bytes() == left == data[: len(left)]
        counts.append(len(kept))
    assert counts == sorted(counts)
    assert (counts[0], *counts[-2:]) == (0, len(all_records) - 1, len(all_records))
    assert last_value(file, "trainer/global_step") == EPOCHS * STEPS - 1
    assert last_value(file, "nothing of this name") is None


def test_starts_that_are_set_aside_are_kept_and_not_uploaded(tmp_path: Path) -> None:
    for start in ("offline-run-1-x", "run-2-x"):
        (tmp_path / "wandb" / start).mkdir(parents=True)
        (tmp_path / "wandb" / start / "run-x.wandb").touch()
    other = tmp_path / "wandb/run-3-y/run-y.wandb"  # of another run, where WANDB_DIR holds them all
    other.parent.mkdir()
    other.touch()
    set_aside(tmp_path, "x")
    assert files_of_starts(tmp_path, "x") == []
    assert files_of_starts(tmp_path, "y") == [other]
    other.unlink()
    assert len(list(tmp_path.rglob("run-x.wandb"))) == 2
    process = run_without_key("-m", "wandb", "sync", "--dry-run", tmp_path / "wandb", cwd=tmp_path)
    assert "No runs to sync" in process.stdout + process.stderr
