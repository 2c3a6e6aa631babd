"""train.py and evaluate.py as a user runs them: real processes, real files."""

import csv
import json
import re
import socket
from pathlib import Path

import pytest
import torch
from conftest import LEARNED, ROOT, folder_of, run_python, start_script
from small_training import NARROW, SMALL, TRAIN
from torchvision.transforms.v2.functional import center_crop

from codec.checkpoint import load_codec
from codec.data.image_file import NamedImage, read_image
from codec.data.samples import SamplesSource
from codec.measure import measure

EVALUATE = ROOT / "evaluate.py"
# Weights that only a network connection brings, and a hundred layers, are not what these tests are about.
OFFLINE = {"quantized_autoencoder": ("model.pretrained=false", "model.encoder=resnet18")}
OFFLINE |= dict.fromkeys(("lossless_unet", "lossless_unet_polyphase"), ("loss=rate",))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two epochs have been trained as `runs/small-…`."""
    folder = tmp_path_factory.mktemp("trained")
    run_python(TRAIN, *SMALL, *NARROW, "epochs=2", "name=small", "seed=1", cwd=folder)
    return folder


def test_a_run_folder_is_whole(trained: Path) -> None:
    run = folder_of(trained / "runs", "small")
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "results.json",
        "per_image.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "provenance/commands.txt",
        "provenance/commit.txt",
        "provenance/changes.diff",
        "provenance/packages.txt",
        "metrics/version_0/metrics.csv",
    } <= files
    assert "${" not in (run / "config.yaml").read_text()


def test_the_results_are_those_of_real_files(trained: Path) -> None:
    run = folder_of(trained / "runs", "small")
    results = json.loads((run / "results.json").read_text())
    with (run / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    codec = load_codec(run)
    assert results["images"] == len(rows) == 3
    for column in ("bpp", "psnr", "ssim", "ms_ssim", "mse", "ratio"):
        assert results[column] == pytest.approx(sum(float(row[column]) for row in rows) / len(rows))
    path = SamplesSource().images("test")[0]
    image = center_crop(read_image(path, channels=3), [192, 192])
    row = measure(codec, NamedImage(path.name, image)).row
    assert rows[0]["name"] == path.name
    assert int(rows[0]["bytes"]) == row["bytes"]
    assert float(rows[0]["psnr"]) == pytest.approx(row["psnr"], abs=0.01)


def test_the_curves_have_the_names_of_the_design(trained: Path) -> None:
    with (folder_of(trained / "runs", "small") / "metrics/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    filled = {name for row in rows for name, value in row.items() if value}
    wanted = {"train/loss", "train/distortion", "train/bpp"}
    wanted |= {f"val/{name}" for name in ("loss", "psnr", "ssim", "ms_ssim", "bpp")}
    wanted |= {f"test/{name}" for name in ("bpp", "psnr", "ssim", "ms_ssim", "ratio", "encode_ms", "decode_ms")}
    assert wanted <= filled


def test_the_global_step_is_the_number_of_batches(trained: Path) -> None:
    checkpoint = torch.load(folder_of(trained / "runs", "small") / "checkpoints/last.ckpt", weights_only=True)
    with (folder_of(trained / "runs", "small") / "metrics/version_0/metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert checkpoint["global_step"] == len(steps) == max(steps) + 1


def test_the_priors_learn_at_a_rate_of_their_own(trained: Path) -> None:
    run_python(TRAIN, *SMALL, *NARROW, "epochs=1", "name=fast", "prior_lr_factor=20", "test=false", cwd=trained)
    checkpoint = torch.load(folder_of(trained / "runs", "fast") / "checkpoints/last.ckpt", weights_only=True)
    networks, priors = checkpoint["optimizer_states"][0]["param_groups"]
    assert priors["lr"] == pytest.approx(20 * networks["lr"])
    codec = load_codec(folder_of(trained / "runs", "fast"))
    assert len(priors["params"]) == len(list(codec.bottleneck.prior.parameters()))
    assert len(networks["params"]) + len(priors["params"]) == len(list(codec.parameters()))


def test_training_starts_from_the_weights_it_is_given(trained: Path) -> None:
    start = f"start_from={folder_of(trained / 'runs', 'small')}"
    arguments = (*SMALL, *NARROW, "epochs=1", "test=false", "optimizer.lr=1e-12")
    done = run_python(TRAIN, *arguments, "name=tuned", start, cwd=trained)
    assert "weights fit" in done.stdout
    first, tuned = (load_codec(folder_of(trained / "runs", name)) for name in ("small", "tuned"))
    for one, other in zip(first.parameters(), tuned.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    again = run_python(TRAIN, *arguments, "name=wrong", "start_from=runs/nothing", cwd=trained, check=False)
    assert again.returncode == 2
    assert again.stderr.strip().splitlines() == [
        "error: start_from: no checkpoint at runs/nothing: give a .ckpt file or a run's folder (runs/NAME), "
        "or one of `codec models`"
    ]


def test_the_same_command_finds_the_run_done(trained: Path) -> None:
    run = folder_of(trained / "runs", "small")
    before = (run / "checkpoints/last.ckpt").stat().st_mtime_ns
    done = run_python(TRAIN, *SMALL, *NARROW, "epochs=2", "name=small", "seed=1", cwd=trained)
    assert "is done" in done.stdout
    assert (run / "checkpoints/last.ckpt").stat().st_mtime_ns == before


def test_what_was_measured_of_these_weights_is_not_measured_again(trained: Path) -> None:
    def measures(*overrides: str) -> bool:
        said = run_python(
            EVALUATE, "run=runs/small", "name=first", "data.limit=1", *overrides, cwd=trained, WANDB_MODE="offline"
        ).stdout
        assert ("is done; resume=false measures it again" in said) != ("results: runs/first-" in said)
        assert "| psnr" in said or "psnr " in said
        return "is done" not in said

    assert measures()
    assert not measures()
    assert measures("save_files=true")
    assert not measures("save_files=true")
    assert measures("resume=false")
    assert measures("logger=wandb")
    assert not measures("logger=wandb")
    assert not measures()
    assert measures("logger=wandb", "logger.wandb.group=baselines")
    (folder_of(trained / "runs", "small") / "checkpoints/best.ckpt").touch()
    assert measures()


def test_evaluate_gives_the_metrics_that_train_gave(trained: Path) -> None:
    run_python(EVALUATE, "run=runs/small", "save_files=true", cwd=trained)
    evaluation = folder_of(trained / "runs", "small_on_its_own_test_images")
    trained_results = json.loads((folder_of(trained / "runs", "small") / "results.json").read_text())
    results = json.loads((evaluation / "results.json").read_text())
    for column in ("bpp", "psnr", "ssim", "ms_ssim", "images"):
        assert results[column] == pytest.approx(trained_results[column], rel=1e-4)
    files = sorted(path.name for path in (evaluation / "files").iterdir())
    assert files == ["chelsea.png.qnt", "coffee.png.qnt", "rocket.jpg.qnt"]
    codec = load_codec(trained / "runs/small")
    decoded = codec.decode((evaluation / "files/coffee.png.qnt").read_bytes())
    assert torch.equal(decoded, read_image(evaluation / "decoded/coffee.png"))


def test_evaluate_measures_a_standard_codec(tmp_path: Path) -> None:
    run_python(EVALUATE, "model=jpeg", "model.quality=50", "data=samples", cwd=tmp_path)
    results = json.loads((folder_of(tmp_path / "runs", "jpeg-q50_on_samples") / "results.json").read_text())
    assert results["images"] == 3
    assert results["psnr"] > 25


DDP = (
    "strategy=ddp",
    "strategy.accelerator=cpu",
    "strategy.devices=2",
    "data.eval_crop=64",
    "name=ddp",
    *("name=ddp", "epochs=1"),
)


def test_training_starts_a_second_process_for_a_second_device(tmp_path: Path) -> None:
    run_python(TRAIN, *SMALL, *NARROW, *DDP, cwd=tmp_path)
    check_one_set_of_results(tmp_path / "runs")


@pytest.mark.parametrize("model", LEARNED)
def test_two_processes_train_one_run_with_one_set_of_results(model: str, tmp_path: Path) -> None:
    """Of every model, as a parameter that no loss reaches would stop them. A cluster has started both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        cluster = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "NODE_RANK": "0"}
    command = (TRAIN, *SMALL, f"model={model}", *OFFLINE.get(model, ()), *DDP)
    logs = [tmp_path / f"log_{rank}" for rank in range(2)]
    processes = [
        start_script(*command, cwd=tmp_path, log=log, LOCAL_RANK=str(rank), **cluster)
        for rank, log in enumerate(logs)
    ]
    assert [process.wait() for process in processes] == [0, 0], "\n".join(log.read_text()[-6000:] for log in logs)
    check_one_set_of_results(tmp_path / "runs")


def check_one_set_of_results(runs: Path) -> None:
    (run,) = runs.iterdir()
    assert json.loads((run / "results.json").read_text())["images"] == 3
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    with (run / "metrics/version_0/metrics.csv").open() as file:
        steps = [row for row in csv.DictReader(file) if row["train/loss"]]
    assert checkpoint["global_step"] == len(steps)


def test_pretrained_weights_that_cannot_be_fetched_stop_a_run_before_its_data(tmp_path: Path) -> None:
    wrong = ("model=quantized_autoencoder", "model.pretrained_url=http://127.0.0.1:1/resnet101-63fe2227.pth")
    done = run_python(
        TRAIN, *SMALL, *wrong, "name=online", cwd=tmp_path, check=False, TORCH_HOME=str(tmp_path / "torch")
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "http://127.0.0.1:1/resnet101-63fe2227.pth" in line
    assert line.endswith("or set model.pretrained=false")
    assert not (tmp_path / "runs").exists()


def test_training_stops_at_max_time_and_counts_its_minutes(tmp_path: Path) -> None:
    limits = ("epochs=100000", "trainer.max_time='00:00:00:03'", "trainer.limit_test_batches=1")
    done = run_python(TRAIN, *SMALL, *NARROW, *limits, "name=short", cwd=tmp_path)
    results = json.loads((folder_of(tmp_path / "runs", "short") / "results.json").read_text())
    assert results["epochs"] < 100000
    assert results["train_minutes"] >= 0.05
    assert re.fullmatch(r"stopped by max_time after [\d,]+ of \d00,000 steps", results["stopped"])
    assert results["stopped"] in done.stdout
    assert "thread" in results["hardware"] or "NVIDIA" in results["hardware"]


@pytest.mark.parametrize(
    ("batches", "named"), [(1, r"val/loss is"), (8, r"train/(distortion|bpp) is")], ids=["last update", "earlier"]
)
def test_a_loss_that_is_no_number_stops_training_and_is_named(batches: int, named: str, tmp_path: Path) -> None:
    wild = ("optimizer.lr=1e30", "epochs=3", "name=nan", f"trainer.limit_train_batches={batches}")
    done = run_python(TRAIN, *SMALL, *NARROW, *wild, cwd=tmp_path, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert re.search(named, line)
    assert "optimizer.lr" in line
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/nan-*/results.json"))


def test_averaged_weights_are_what_is_saved_and_coded(tmp_path: Path) -> None:
    overrides = ("callbacks=ema", "callbacks.ema.decay=0.5", "epochs=2", "name=ema")
    run_python(TRAIN, *SMALL, *NARROW, *overrides, cwd=tmp_path)
    run = folder_of(tmp_path / "runs", "ema")
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    names = [name for name, tensor in checkpoint["state_dict"].items() if tensor.is_floating_point()]
    assert any(not torch.equal(checkpoint["state_dict"][n], checkpoint["current_model_state"][n]) for n in names)
    results = json.loads((run / "results.json").read_text())
    assert results["bpp"] == pytest.approx(results["estimated_bpp"], rel=0.05)


@pytest.mark.parametrize("option", ["one_step", "overfit", "profiler"])
def test_a_debug_option_runs(option: str, tmp_path: Path) -> None:
    few = ("epochs=2", "trainer.check_val_every_n_epoch=1") if option == "overfit" else ()
    done = run_python(TRAIN, f"debug={option}", "logger=csv", "data.num_workers=0", *NARROW, *few, cwd=tmp_path)
    assert "psnr" in done.stdout
    checkpoint = torch.load(next(tmp_path.glob("runs/*/checkpoints/last.ckpt")), weights_only=True)
    assert checkpoint["global_step"] == {"one_step": 1, "overfit": 2 * 3, "profiler": 20}[option]
    if option == "profiler":
        (report,) = tmp_path.glob("runs/debug_profiler-*/fit-profile.txt")
        assert "run_training_batch" in report.read_text()
