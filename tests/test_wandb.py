"""What a W&B run holds, read back from the file that an offline training writes; nothing asks, nothing fails."""

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import wandb
from conftest import ROOT
from PIL import Image
from torchvision.transforms.v2.functional import center_crop
from wandb.proto.wandb_internal_pb2 import Record

from codec.checkpoint import load_codec
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.loggers import wandb_logger, where_to_look

TRAIN, EVALUATE = ROOT / "train.py", ROOT / "evaluate.py"
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


def run_without_key(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A Python process that finds no W&B key, no W&B settings and no keyboard."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")  # torchac is compiled there already
    places = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "NETRC": str(home / "netrc")}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**kept, **places, "XDG_CACHE_HOME": cache, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def records(path: Path) -> Iterator[Record]:
    """The records of a `.wandb` file: LevelDB's log format after a header of seven bytes, blocks of 32 KiB."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + 7 : position + 7 + length]
        assert checksum == zlib.crc32(part, zlib.crc32(bytes([kind])))
        position += 7 + length
        parts = parts + part if kind in (3, 4) else part  # 1 whole, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            yield Record.FromString(parts)


def values(items: Iterator) -> dict:
    """Keys, nested ones joined by a dot, and values of the items of a config, history or summary record."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_back(run: Path) -> SimpleNamespace:
    """What the W&B file below a run's folder says, by kind of record."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    found = SimpleNamespace(folder=file.parent, config={}, history=[], summary={}, texts="", exit=None, run=None)
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
        elif kind == "config":
            found.config |= values(record.config.update)
        elif kind == "history":
            found.history.append(values(record.history.item))
        elif kind == "summary":
            found.summary |= values(record.summary.update)
        elif kind == "output_raw":
            found.texts += record.output_raw.line
        elif kind == "exit":
            found.exit = record.exit
    return found


def folder_of(runs: Path, name: str) -> Path:
    (found,) = (path for path in runs.glob(f"{name}-*"))
    return found


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
    assert (
        line == f"W&B: offline; to upload it: wandb sync {trained.wandb.folder.relative_to(trained.run.parents[1])}"
    )
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


def test_the_config_holds_the_model_summary(trained: SimpleNamespace) -> None:
    config = trained.wandb.config
    codec = load_codec(trained.run)
    assert config["parameters"] == sum(parameter.numel() for parameter in codec.parameters())
    for part in ("g_a", "bottleneck", "g_s", "Conv2d", "Total params"):
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


def test_evaluate_writes_a_run_of_its_own_kind(tmp_path: Path) -> None:
    overrides = ("model=jpeg", "model.quality=50", "data=samples", "data.limit=1", "logger=wandb", "device=cpu")
    process = run_without_key(EVALUATE, *overrides, cwd=tmp_path)
    assert process.returncode == 0, process.stderr[-6000:]
    folder = folder_of(tmp_path / "runs", "jpeg_samples")
    written = read_back(folder)
    assert (written.run.display_name, written.run.job_type) == ("jpeg_samples", "eval")
    assert list(written.run.tags) == ["jpeg", "samples"]
    results = json.loads((folder / "results.json").read_text())
    assert written.summary["test/psnr"] == pytest.approx(results["psnr"], rel=1e-6)
    assert written.config["model"]["quality"] == 50
    assert written.exit is not None


def test_disabled_trains_and_writes_no_wandb_run(tmp_path: Path) -> None:
    process = run_without_key(TRAIN, "debug=one_step", *SMALL, "data.limit=4", cwd=tmp_path, WANDB_MODE="disabled")
    assert process.returncode == 0, process.stderr[-6000:]
    assert "wandb" not in process.stdout + process.stderr
    assert not list(tmp_path.rglob("*.wandb"))
    assert list(tmp_path.glob("runs/debug_one_step-*/results.json"))


# ---- which mode, and with what arguments; no server is spoken to


@pytest.fixture
def initialised(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The arguments of the last `wandb.init`, which is replaced."""
    arguments: dict = {}

    def init(**given: object) -> SimpleNamespace:
        arguments.update(given)
        settings = SimpleNamespace(mode=given["mode"])
        return SimpleNamespace(
            settings=settings, url="https://wandb.example/r", dir=f"{given['dir']}/wandb/x/files"
        )

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", init)
    return arguments


def login(monkeypatch: pytest.MonkeyPatch, answer: bool | Exception) -> None:
    def replaced(prompt: bool = True) -> bool:
        assert not prompt
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(wandb, "login", replaced)


def test_with_a_key_the_run_is_online_and_a_resumed_one_continues_it(
    initialised: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch, True)
    logger = wandb_logger("runs/small-0123abcd", "quintet", entity="us", group="g", tags=["a", "b", "a"])
    assert where_to_look([logger]) == "W&B: https://wandb.example/r"
    assert initialised["mode"] == "online"
    assert (initialised["id"], initialised["resume"]) == ("small-0123abcd", "allow")
    assert (initialised["name"], initialised["dir"]) == ("small", "runs/small-0123abcd")
    assert (initialised["project"], initialised["entity"], initialised["group"]) == ("quintet", "us", "g")
    assert (initialised["tags"], initialised["job_type"]) == (["a", "b"], "train")


def test_without_a_key_it_is_offline_and_silent(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    login(monkeypatch, False)
    assert wandb_logger("runs/small-0123abcd", "quintet").experiment is not None
    assert (initialised["mode"], initialised["resume"]) == ("offline", None)
    assert capfd.readouterr() == ("", "")


def test_with_a_key_and_no_way_to_the_server_it_is_offline_and_says_so_in_one_line(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    login(monkeypatch, wandb.errors.AuthenticationError("cannot reach the server\nat all"))
    assert wandb_logger("runs/small-0123abcd", "quintet").experiment is not None
    assert initialised["mode"] == "offline"
    assert capfd.readouterr().err == "W&B: offline, since cannot reach the server\n"


@pytest.mark.parametrize(
    ("mode", "answer", "message"),
    [
        ("online", False, "WANDB_MODE=online: no API key"),
        ("online", wandb.errors.AuthenticationError("the key is wrong"), "WANDB_MODE=online: the key is wrong"),
        ("ofline", True, "WANDB_MODE=ofline: allowed are online, offline"),
    ],
)
def test_a_mode_that_cannot_be_had_is_refused(
    mode: str, answer: bool | Exception, message: str, initialised: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch, answer)
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ValueError, match=message):
        wandb_logger("runs/small-0123abcd", "quintet")
    assert not initialised


def test_every_start_of_an_offline_run_is_named_for_the_upload(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login(monkeypatch, False)
    run = tmp_path / "my run-0123abcd"
    for start in ("offline-run-2", "offline-run-1"):
        (run / "wandb" / start).mkdir(parents=True)
    line = where_to_look([wandb_logger(str(run), "quintet")])
    assert line.endswith(f"wandb sync '{run}/wandb/offline-run-1' '{run}/wandb/offline-run-2'")
