"""experiments.release.export: a finished run becomes a pretrained model, or is refused in one line."""

import json
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_codec, run_python
from omegaconf import OmegaConf
from torch import Tensor

from codec import pretrained
from codec.checkpoint import load_codec, load_pretrained, round_to_half, save_weights
from codec.checkpoint_files import find_checkpoint
from codec.data.image_file import read_image
from codec.entropy.tables import CodingTables
from codec.errors import CheckpointError
from codec.pretrained import Weights
from experiments.release import export as exporting
from experiments.release.export import CROP, export, images_of
from experiments.release.provenance import description_and_source, training
from experiments.release.remeasure import remeasure

# A training of seconds, of a model that takes a quality, is grey, and holds no more than 20,000 weights.
TRAINING = (
    "model=comcnn_reccnn model.train_quality=[5,60] model.scale=1 model.layers=6 model.width=8 data=samples "
    "data.channels=1 data.num_workers=0 data.crop_size=64 data.batch_size=4 data.crops_per_image=2 data.limit=4 "
    "data.eval_crop=64 strategy=cpu logger=csv epochs=1 name=tiny"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder."""
    folder = tmp_path_factory.mktemp("trained")
    run_python(ROOT / "train.py", *shlex.split(TRAINING), f"runs={folder}", cwd=folder)
    return find_checkpoint(folder / "tiny").parents[1]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, run: Path):
    """A folder of pretrained models, `ranged` being the run's, that stands where the package's own is."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("package")
        patch.setattr(pretrained, "FOLDER", folder)
        options = {"data": ["samples"], "golden": folder / "golden", "trained": "a moment here"}
        export(run, "ranged", qualities=[5, 60], **options)
        yield folder


@pytest.fixture(scope="module")
def ranged(package: Path) -> Weights:
    return pretrained.choose("ranged")


def test_what_is_exported_is_what_is_loaded(package: Path, ranged: Weights, run: Path, photograph: Tensor) -> None:
    codec, trained = load_pretrained("ranged", 60), load_codec(run)
    assert ranged.fingerprint == codec.fingerprint().hex() != trained.fingerprint().hex()
    for (name, rounded), (_, exact) in zip(codec.named_parameters(), trained.named_parameters(), strict=True):
        assert torch.equal(rounded, exact.half().float()), name
    assert (codec.quality, load_pretrained("ranged").quality) == (60, trained.quality)
    grey = photograph[:1, :64, :64].contiguous()
    data = load_pretrained("ranged").encode(grey)
    assert torch.equal(codec.decode(data), load_pretrained(ranged).decode(data))
    golden = codec.decode((package / "golden/ranged.qnt").read_bytes())
    assert torch.equal(golden, read_image(package / "golden/ranged.png"))


def test_it_is_measured_at_every_quality_named(package: Path, ranged: Weights) -> None:
    assert (ranged.accepts, ranged.own_quality) == ([5, 60], 40)
    assert (ranged.image_channels, ranged.scheme) == (1, "comcnn_reccnn")
    low, high = ranged.measured["samples"]
    assert (low["quality"], high["quality"], low["images"], high["images"]) == (5, 60, 3, 3)
    assert low["bpp"] < high["bpp"]
    assert low["psnr"] < high["psnr"]
    assert low["encode_ms_per_megapixel"] > 0
    own = ranged.per_image[f"samples_{CROP}"]["chelsea.png"]
    assert set(own) == {"bytes", "psnr"}
    card = (package / "ranged.md").read_text()
    for text in (f"{high['bpp']:.4f}", f"{low['psnr']:.2f}", ranged.sha256):
        assert text in card
    count = sum(parameter.numel() for parameter in load_pretrained("ranged").parameters())
    macs = f"{ranged.encode_macs / 1e3:.1f} | {ranged.decode_macs / 1e3:.1f}"
    assert f"| `ranged.safetensors` | {count:,} | {macs} |" in card
    for text in ("Grey only", "a moment here", "in grey", "data.channels=1", "quality=N", "--quality 40"):
        assert text in card


def test_what_is_measured_anew_is_what_was_measured(package: Path, ranged: Weights) -> None:
    def without_times(weights: Weights) -> dict:
        points = weights.measured["samples"]
        plain = [{key: value for key, value in point.items() if "_ms_per" not in key} for point in points]
        return {**asdict(weights), "measured": plain}

    file = package / "ranged.json"
    wrong = json.loads(file.read_text())
    wrong["encode_macs"] = wrong["per_image"]["samples"]["chelsea.png"]["bytes"] = 1
    file.write_text(json.dumps(wrong))
    (package / "golden/ranged.qnt").unlink()
    remeasure("ranged", package / "golden")
    assert without_times(pretrained.choose("ranged")) == without_times(ranged)
    assert (package / "golden/ranged.qnt").is_file()
    with pytest.raises(CheckpointError, match="no pretrained model is called rangde: .*; did you mean ranged"):
        remeasure("rangde")


def test_nothing_names_the_folders_of_the_machine(package: Path, ranged: Weights, run: Path) -> None:
    texts = {path.name: path.read_text() for path in package.iterdir() if path.suffix in (".json", ".md", ".yaml")}
    assert set(texts) == {"ranged.json", "ranged.md", "ranged.yaml"}
    for name, text in texts.items():
        assert str(run.parent) not in text, name
        assert str(ROOT) not in text, name
    assert ranged.training["command"].startswith("python train.py model=comcnn_reccnn ")
    assert ranged.training["command"].endswith("epochs=1 name=tiny")
    config = OmegaConf.load(package / "ranged.yaml")
    assert (config.model.train_quality, config.data.crop_size, config.epochs) == ([5, 60], 64, 1)
    assert "runs" not in config


def copied(run: Path, folder: Path, *overrides: str) -> Path:
    """A copy of the run's folder, with the weights of a tiny `conv_baseline` instead of its own."""
    copy = Path(shutil.copytree(run, folder / "copy"))
    narrow = ("model.widths=[8,8]", "model.latent_channels=4")
    codec = make_codec("conv_baseline", channels=1, overrides=(*narrow, *overrides))
    checkpoint = {
        "model_config": codec.model_config,
        "state_dict": codec.state_dict(),
        "epoch": 0,
        "global_step": 2,
    }
    torch.save(checkpoint, copy / "checkpoints/best.ckpt")
    return copy


def test_rates_of_one_model_share_a_card(package: Path, run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path)
    for quality in (2, 1):
        export(copy, "several", quality, data=["samples"], golden=tmp_path, trained=f"rate {quality}")
    (model,) = (model for model in pretrained.pretrained_models() if model.name == "several")
    assert [weights.path.name for weights in model.weights] == ["several-q1.safetensors", "several-q2.safetensors"]
    card = (package / "several.md").read_text()
    assert card.index("rate 1") < card.index("rate 2")
    with pytest.raises(CheckpointError, match="--name several: there is several-q1, several-q2"):
        export(copy, "several", golden=tmp_path, trained="x")
    for path in package.glob("several*"):
        path.unlink()


def test_a_variable_rate_is_one_file_for_all_qualities(package: Path, run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path, "bottleneck.variable_rate=true")
    options = {"data": ["samples"], "golden": tmp_path, "trained": "a moment"}
    with pytest.raises(CheckpointError, match=r"--qualities 30\.3: allowed are 0 to 100 in steps of 0\.5"):
        export(copy, "variable", qualities=[10, 30.3], **options)
    with pytest.raises(CheckpointError, match="--quality 1: this codec takes qualities itself, 0 to 100"):
        export(copy, "variable", 1, **options)
    variable = export(copy, "variable", qualities=[10, 60.5], **options)
    assert (variable.quality, variable.accepts, variable.own_quality) == (None, [0, 100], 50)
    low, high = variable.measured["samples"]
    assert (low["quality"], high["quality"]) == (10, 60.5)
    assert low["bpp"] < high["bpp"]
    card = (package / "variable.md").read_text()
    for text in ("--model variable --quality 50\n", "| samples | 60.5 | 3 |", "quality=N", "Qualities 0 to 100."):
        assert text in card
    own, images = load_pretrained("variable"), images_of("samples", 1, CROP)
    for image in images.test_dataloader():
        recorded = variable.per_image[f"samples_{CROP}"][image.name]
        assert len(own.encode(image.image)) == recorded["bytes"]
    for path in package.glob("variable*"):
        path.unlink()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"name": "Best-1"}, "--name Best-1: allowed are small letters"),
        ({"quality": 0}, "--quality 0: rates are counted from 1"),
        ({"quality": 1}, "--quality 1: this codec takes qualities itself, 5 to 60"),
        ({"qualities": [4]}, "--qualities 4: allowed are 5 to 60 in steps of 1"),
        ({"run": "nowhere"}, "no checkpoint at nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(options: dict, line: str, run: Path, package: Path) -> None:
    with pytest.raises(CheckpointError, match=line):
        export(**{"run": run, "name": "other", "golden": package / "golden", "trained": "x", **options})
    assert not list(package.glob("other*"))


def test_weights_that_are_too_large_are_refused(run: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = (package / "ranged.safetensors").stat().st_size
    monkeypatch.setattr(exporting, "MAX_TOTAL_BYTES", there + 1000)
    with pytest.raises(CheckpointError, match="more than the 0 MB allowed in all"):
        export(run, "other", data=["samples"], golden=package / "golden", trained="x")
    monkeypatch.setattr(exporting, "MAX_BYTES", 1_000)
    with pytest.raises(CheckpointError, match="other: 0.0 MB in half precision, at most 0 are allowed"):
        export(run, "other", data=["samples"], golden=package / "golden", trained="x")
    assert not list(package.glob("other*"))


def test_what_a_run_does_not_know_has_to_be_said(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    checkpoint, results = copy / "checkpoints/best.ckpt", copy / "results.json"
    known = json.loads(results.read_text())
    results.write_text(json.dumps({**known, "train_minutes": 12.6, "hardware": "1 thread of 2, some CPU"}))
    assert training(checkpoint)["time"] == "13 minutes on 1 thread of 2, some CPU"
    saved = torch.load(checkpoint, weights_only=True)
    torch.save({**saved, "epoch": 6}, checkpoint)
    assert (training(checkpoint)["epoch"], training(checkpoint)["steps"]) == (7, saved["global_step"])
    results.write_text(json.dumps({key: value for key, value in known.items() if key != "train_minutes"}))
    with pytest.raises(CheckpointError, match="copy has not recorded its time: say it, --trained"):
        training(checkpoint)
    config = OmegaConf.load(copy / "config.yaml")
    config.data.train = {"_target_": "codec.data.folder.FolderSource", "root": "/home/me/photos"}
    OmegaConf.save(config, copy / "config.yaml")
    with pytest.raises(CheckpointError, match="trained on a FolderSource: say what was in it"):
        training(checkpoint, trained="x")
    data = training(checkpoint, photographs="my own (all mine)", trained="x")["data"]
    assert data == "my own (all mine), 10 % of them to validate on, in grey, crops of 64×64"
    results.unlink()
    with pytest.raises(CheckpointError, match="is not of a finished run"):
        training(checkpoint)


def test_paths_in_a_command_become_those_of_any_machine(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    monkeypatch.setenv("QUINTET_DATA", str(tmp_path))
    (copy / "provenance/commands.txt").write_text(
        f"python /home/me/train.py data.train.root={tmp_path}/photos data.test.root=/mnt/x/tests "
        "runs=/home/me/runs callbacks.progress.refresh_rate=0 start_from=runs/first 'name=a b'\n"
    )
    assert training(copy / "checkpoints/best.ckpt", trained="x")["command"] == (
        "python train.py data.train.root=data/photos data.test.root=tests start_from=runs/first 'name=a b'"
    )


# ---- half precision


def test_half_precision_keeps_the_fingerprint_and_the_files(tmp_path: Path, photograph: Tensor) -> None:
    codec = make_codec("conv_enhanced", overrides=("model.widths=[8,8,8]", "model.skip_channels=[1,1]"))
    before = codec.fingerprint()
    with pytest.raises(ValueError, match="is not in half precision: call round_to_half first"):
        save_weights(codec, tmp_path / "exact.safetensors", half=True)
    round_to_half(codec)
    assert codec.fingerprint() != before
    models = [module for module in codec.modules() if isinstance(module, CodingTables)]
    assert len(models) == 3
    assert all(model.tables_are_current() for model in models)
    save_weights(codec, tmp_path / "half.safetensors", half=True)
    save_weights(codec, tmp_path / "whole.safetensors")
    half, whole = load_codec(tmp_path / "half.safetensors"), load_codec(tmp_path / "whole.safetensors")
    assert half.fingerprint() == whole.fingerprint() == codec.fingerprint()
    image = photograph[:, :48, :48].contiguous()
    assert half.encode(image) == codec.encode(image)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[1] - sizes[0] == pytest.approx(2 * sum(p.numel() for p in codec.parameters()), rel=0.05)


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_weights_beyond_half_precision_are_refused(value: float) -> None:
    codec = make_codec("conv_baseline", overrides=("model.widths=[8,8]", "model.latent_channels=4"))
    next(codec.parameters()).data.view(-1)[0] = value
    with pytest.raises(ValueError, match="holds numbers that half precision, up to ±65504, does not have"):
        round_to_half(codec)


def test_a_scheme_that_is_told_in_one_line_is_described_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codec("conv_baseline")
    module = sys.modules[type(codec).__module__]
    monkeypatch.setattr(module, "__doc__", "tiny: one strided convolution there, one back.")
    monkeypatch.delattr(module, "ConvEnhanced")
    assert description_and_source(codec) == ("one strided convolution there, one back.", "")
