"""What a W&B run holds, read back from the file that an offline training writes; nothing asks, nothing fails."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, folder_of
from PIL import Image
from torchvision.transforms.v2.functional import center_crop
from wandb_files import read_back, rows, run_without_key

from codec.checkpoint import load_codec
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from experiments.dashboard import Panel, describe, sections

TRAIN = ROOT / "train.py"
SMALL = (
    "strategy=cpu",
    "logger=wandb",
    "data.num_workers=0",
    "data.crop_size=64",
    "data.batch_size=4",
    "data.crops_per_image=2",
    "data.eval_crop=192",
    "trainer.log_every_n_steps=1",
    "model.widths=[8,8]",
    "model.latent_channels=4",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two epochs with the W&B logger, `process`, `run` (the folder) and `wandb` (what was written)."""
    folder = tmp_path_factory.mktemp("wandb runs")  # with a space, as home folders have
    tags = ("logger.wandb.tags=[first look]", "logger.wandb.group=sweeps", "logger.wandb.project=mine")
    limits = ("data.limit=12", "data.val_fraction=0.2", "epochs=2", "name=small")
    process = run_without_key(TRAIN, *SMALL, *tags, *limits, cwd=folder)
    assert process.returncode == 0, process.stderr[-6000:]
    run = folder_of(folder / "runs", "small")
    return SimpleNamespace(process=process, run=run, wandb=read_back(run))


def test_without_a_key_the_run_is_offline_and_says_how_to_upload_it(trained: SimpleNamespace) -> None:
    (line,) = [line for line in trained.process.stdout.splitlines() if line.startswith("W&B:")]
    assert line == f"W&B: offline; to upload it: wandb sync {trained.run.relative_to(trained.run.parents[1])}/wandb"
    for text in (trained.process.stdout, trained.process.stderr):
        assert "wandb: " not in text
        assert "API key" not in text
        assert "step" not in " ".join(line for line in text.splitlines() if "warn" in line.lower())


def test_the_run_is_named_tagged_and_grouped(trained: SimpleNamespace) -> None:
    run = trained.wandb.run
    assert run.run_id == trained.run.name
    assert run.display_name == "small"
    assert list(run.tags) == ["conv_baseline", "samples", "6bit", "mse", "first look"]
    assert (run.project, run.run_group, run.job_type) == ("mine", "sweeps", "train")


def test_the_config_is_whole_and_resolved(trained: SimpleNamespace) -> None:
    config = trained.wandb.config
    assert config["model"]["widths"] == [8, 8]
    assert config["model"]["bottleneck"]["bits"] == config["quantization"]["bits"] == 6
    assert config["data"]["crop_size"] == 64
    assert config["optimizer"]["lr"] == 1e-3
    assert config["loss"]["_target_"] == "codec.losses.RateDistortionLoss"
    assert config["folder"] == f"runs/{trained.run.name}"
    assert {"prior", "scheduler", "strategy", "trainer", "callbacks", "seed", "epochs"} <= config.keys()
    assert "${" not in json.dumps(config)
    chosen = {"model": "conv_baseline", "data": "samples", "quantization": "6bit", "loss": "mse"}
    assert config["choices"] == chosen


def test_the_config_holds_the_model_summary(trained: SimpleNamespace) -> None:
    config = trained.wandb.config
    codec = load_codec(trained.run)
    assert config["parameters"] == sum(parameter.numel() for parameter in codec.parameters())
    for part in ("encoder", "bottleneck", "decoder", "Conv2d", "Total params"):
        assert part in config["model_summary"]


def test_the_curves_are_those_of_the_design(trained: SimpleNamespace) -> None:
    history = trained.wandb.history
    names = set().union(*history)
    assert {f"train/{name}" for name in ("loss", "distortion", "bpp")} <= names
    assert {f"val/{name}" for name in ("loss", "psnr", "ssim", "ms_ssim", "bpp")} <= names
    assert {
        f"test/{name}" for name in ("bpp", "psnr", "ssim", "ms_ssim", "ratio", "encode_ms", "decode_ms")
    } <= names
    assert len([row for row in history if "val/psnr" in row]) == 2
    assert len([row for row in history if "test/bpp" in row]) == 1


def test_no_step_goes_backwards(trained: SimpleNamespace) -> None:
    history = trained.wandb.history
    assert [row["_step"] for row in history] == list(range(len(history)))
    for name in ("train/loss", "val/psnr"):
        steps = [row["trainer/global_step"] for row in history if name in row]
        assert steps == sorted(set(steps))


def test_the_summary_ends_with_what_results_json_holds(trained: SimpleNamespace) -> None:
    results = json.loads((trained.run / "results.json").read_text())
    for name in ("psnr", "bpp", "ssim", "ms_ssim", "ratio"):
        assert trained.wandb.summary[f"test/{name}"] == pytest.approx(results[name], rel=1e-6)


def test_the_x_axes_are_ours_and_the_summary_holds_the_lowest_val_loss(trained: SimpleNamespace) -> None:
    metrics = trained.wandb.metrics
    for names in ("train/*", "val/*", "test/*", "val/loss"):
        assert metrics[names].step_metric == "trainer/global_step"
    losses = [row["val/loss"] for row in trained.wandb.history if "val/loss" in row]
    assert len(losses) == 2
    assert trained.wandb.summary["val/loss"] == {"min": min(losses)}


def test_a_table_holds_every_test_image_with_a_thumbnail_of_what_its_file_decodes_to(
    trained: SimpleNamespace,
) -> None:
    with (trained.run / "per_image.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = rows(trained.wandb.tables["test/images"])
    assert [row["name"] for row in found] == [row["name"] for row in expected]
    codec = load_codec(trained.run)
    originals = {path.name: path for path in SamplesSource().images("test")}
    for row, measured in zip(found, expected, strict=True):
        for column in ("bytes", "bpp", "psnr", "ssim", "ms_ssim", "encode_ms"):
            assert row[column] == pytest.approx(float(measured[column]))
        picture = trained.wandb.pictures[row["original | decoded"]["path"]]
        assert picture.is_relative_to(trained.run)  # not in the home folder, where others would not find it
        shown = read_image(picture, channels=3)
        original = center_crop(read_image(originals[row["name"]], channels=3), [192, 192])
        assert torch.equal(shown, torch.cat([original, codec.decode(codec.encode(original))], dim=2))


def test_a_table_holds_the_rate_distortion_point(trained: SimpleNamespace) -> None:
    results = json.loads((trained.run / "results.json").read_text())
    (point,) = rows(trained.wandb.tables["test/rate_distortion"])
    assert (point["codec"], point["dataset"]) == ("conv_baseline", "samples")
    assert "model.widths=[8,8]" in point["setting"]
    assert "logger" not in point["setting"]
    for column in ("images", "bpp", "psnr", "ssim", "ms_ssim"):
        assert point[column] == pytest.approx(results[column])


def test_the_panels_show_original_and_decoded_side_by_side(trained: SimpleNamespace) -> None:
    panels = [
        {key.rpartition(".")[2]: value for key, value in row.items() if key.startswith("val/reconstruction_")}
        for row in trained.wandb.history
        if any(key.startswith("val/reconstruction_") for key in row)
    ]
    assert len(panels) == 4  # two images in each of two epochs
    originals = {path.name: path for path in SamplesSource().images("train")}
    for panel in panels:
        (file,), (caption,) = panel["filenames"], panel["captions"]
        assert file.startswith("media/images/")
        name, _, described = caption.partition(": ")
        assert described.startswith("original | decoded, ")
        assert described.endswith(" dB")
        with Image.open(trained.wandb.folder / "files" / file) as image:
            assert image.size == (2 * 192, 192)
            assert image.mode in ("RGB", "L")
        shown = read_image(trained.wandb.folder / "files" / file, channels=3)
        original = read_image(originals[name], channels=3)
        assert torch.equal(shown[..., :192], center_crop(original, [192, 192]))
        assert not torch.equal(shown[..., 192:], shown[..., :192])


def test_the_csv_lies_beside_it(trained: SimpleNamespace) -> None:
    lines = (trained.run / "metrics/version_0/metrics.csv").read_text().splitlines()
    assert {"val/psnr", "train/loss", "test/bpp"} <= set(lines[0].split(","))


def test_a_finished_run_ends_with_an_exit_record(trained: SimpleNamespace) -> None:
    assert trained.wandb.exit is not None
    assert trained.wandb.exit.exit_code == 0


def test_a_failed_training_ends_its_run_too(tmp_path: Path) -> None:
    limits = ("data.limit=4", "optimizer.lr=1e30", "epochs=3", "name=nan")
    process = run_without_key(TRAIN, *SMALL, *limits, cwd=tmp_path)
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    written = read_back(folder_of(tmp_path / "runs", "nan"))
    assert written.exit.exit_code == 1
    assert any("train/loss" in row for row in written.history)


def test_disabled_trains_and_writes_no_wandb_run(tmp_path: Path) -> None:
    process = run_without_key(TRAIN, "debug=one_step", *SMALL, "data.limit=4", cwd=tmp_path, WANDB_MODE="disabled")
    assert process.returncode == 0, process.stderr[-6000:]
    assert "wandb" not in process.stdout + process.stderr
    assert not list(tmp_path.rglob("*.wandb"))
    assert list(tmp_path.glob("runs/debug_one_step-*/results.json"))


def test_the_dashboard_shows_what_runs_log(trained: SimpleNamespace) -> None:
    written = trained.wandb
    logged = {name for row in written.history for name in row} | set(written.tables)
    pictures = {name.rpartition(".")[0] for name in logged if name.startswith("val/reconstruction_")}
    shown = {metric for section in sections("me") for panel in section.panels for metric in metrics(panel)}
    assert {"test/psnr", "test/bpp", "test/bpsp", "val/loss", "val/reconstruction_0", "loss.rate_weight"} <= shown
    known = logged | pictures | set(leaves(written.config)) | set(written.tables["test/rate_distortion"]["columns"])
    assert shown - known == {"val/reconstruction_2", "val/reconstruction_3"}  # here are two validation images


def metrics(panel: Panel) -> set[str]:
    """The names of what a panel shows, which are all words of its description with a dot, a slash or a table."""
    words = set(re.findall(r"[\w./]+", describe(panel)))
    return {word for word in words if re.search(r"\w[./]\w", word)} | words & {"psnr", "ssim", "ms_ssim", "curve"}


def leaves(config: dict, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a nested config."""
    for key, value in config.items():
        yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
