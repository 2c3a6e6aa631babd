"""A sweep of evaluations as a user runs it: which jobs are run, and what W&B has of each."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from sweeping import EVALUATE
from wandb_files import read_back, rows, run_without_key

from codec.sweeps.record import Sweep
from codec.training.run_state import RunState


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """JPEG and PNG, each asked for on a GPU that is not there and on the CPU: the sweep, and W&B's file of each."""
    folder = tmp_path_factory.mktemp("sweep")
    points = ("model=jpeg,png", "device=cuda,cpu", "data=samples", "data.limit=2")
    wandb = ("logger=wandb", "logger.wandb.thumbnails=1")
    process = run_without_key(EVALUATE, "-m", *points, *wandb, cwd=folder, CUDA_VISIBLE_DEVICES="")
    (sweep,) = (folder / "runs/sweeps").iterdir()
    record = Sweep.read(sweep)
    runs = {"jpeg": Path(record.jobs[1].folder), "png": Path(record.jobs[3].folder)}
    written = {name: read_back(run) for name, run in runs.items()}
    return SimpleNamespace(folder=folder, process=process, record=record, **runs, wandb=written)


def test_the_jobs_that_cannot_have_their_device_fail_and_the_others_are_measured(swept: SimpleNamespace) -> None:
    assert swept.process.returncode == 1
    fault = "device=cuda: this job wants 1 GPU, and there are 0"
    assert [job.error for job in swept.record.jobs] == [fault, None, fault, None]
    log = Path(swept.record.jobs[2].log).relative_to(swept.folder)
    assert f"job 2 failed: {fault}; log: {log}" in swept.process.stdout.splitlines()
    for run, name in ((swept.jpeg, "jpeg-q50"), (swept.png, "png")):
        assert run.name.startswith(f"{name}_on_samples-")
        assert json.loads((run / "results.json").read_text())["images"] == 2
        assert RunState.read(run).state == "done"
    assert {path.name for path in swept.folder.iterdir()} == {"runs", "home"}  # neither multirun/ nor .hydra/


def test_evaluate_writes_a_run_of_its_own_kind(swept: SimpleNamespace) -> None:
    written = swept.wandb["jpeg"]
    assert (written.run.display_name, written.run.job_type) == ("model=jpeg device=cpu", "eval")
    assert list(written.run.tags) == ["jpeg", "samples"]
    results = json.loads((swept.jpeg / "results.json").read_text())
    for name in ("bpp", "psnr", "ssim", "ms_ssim", "ratio", "encode_ms", "decode_ms"):
        assert written.summary[f"test/{name}"] == pytest.approx(results[name], rel=1e-6)
    assert written.config["model"]["quality"] == 50
    assert written.exit is not None


def test_the_jobs_of_a_sweep_are_named_by_what_differs_and_share_its_name_as_group(swept: SimpleNamespace) -> None:
    names = {name: written.run.display_name for name, written in swept.wandb.items()}
    assert names == {"jpeg": "model=jpeg device=cpu", "png": "model=png device=cpu"}
    assert {written.run.run_group for written in swept.wandb.values()} == {swept.record.name}
    assert swept.record.name.startswith("model=jpeg,png_device=cuda,cpu_data=samples_data.limit=2-")


def test_a_lossless_codec_logs_no_infinite_psnr(swept: SimpleNamespace) -> None:
    written = swept.wandb["png"]
    assert written.summary["test/lossless"] == 2
    assert written.summary["test/bpsp"] > 1
    assert "test/psnr" not in written.summary
    assert [row["psnr"] for row in rows(written.tables["test/images"])] == [None, None]
    assert rows(written.tables["test/rate_distortion"])[0]["psnr"] is None
    assert "Infinity" not in json.dumps(written.history)


def test_only_so_many_thumbnails_are_kept_and_they_are_small(swept: SimpleNamespace) -> None:
    written = swept.wandb["jpeg"]
    shown = [row["original | decoded"] for row in rows(written.tables["test/images"])]
    assert shown[0] is not None
    assert shown[1:] == [None]
    with Image.open(written.pictures[shown[0]["path"]]) as image:
        assert image.size == (2 * 256, 170)  # of 451×300
