"""Every model in codec/pretrained/ is what its files say, and repeats what was measured of it."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from codec import pretrained
from codec.checkpoint import load_pretrained
from codec.checkpoint_files import find_checkpoint
from codec.data.download import file_sha256
from codec.data.image_file import read_image
from codec.errors import CheckpointError
from codec.learned_codec import LearnedCodec
from codec.measure import measure
from codec.pretrained import PretrainedModel, Weights
from experiments.release.complexity import complexity
from experiments.release.export import CROP, GOLDEN, MAX_BYTES, MAX_TOTAL_BYTES, images_of, write_golden
from experiments.release.model_card import card

MODELS = pretrained.pretrained_models()
WEIGHTS = [weights for model in MODELS for weights in model.weights]


@pytest.fixture(scope="module", params=WEIGHTS, ids=lambda weights: weights.stem)
def weights(request: pytest.FixtureRequest) -> Weights:
    return request.param


@pytest.fixture(scope="module")
def codec(weights: Weights) -> LearnedCodec:
    return load_pretrained(weights)


def test_some_models_come_with_the_package() -> None:
    assert WEIGHTS
    assert sum(weights.path.stat().st_size for weights in WEIGHTS) <= MAX_TOTAL_BYTES
    assert len({weights.fingerprint for weights in WEIGHTS}) == len(WEIGHTS)


def test_weights_of_the_package_are_found_by_name_where_no_run_of_yours_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for model in MODELS:
        assert find_checkpoint(model.name) == model.at().path
        assert [find_checkpoint(weights.stem) for weights in model.weights] == [w.path for w in model.weights]
    own = tmp_path / f"{MODELS[0].name}-1a2b3c4d/checkpoints/best.ckpt"
    own.parent.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        find_checkpoint(MODELS[0].name)
    own.touch()
    assert find_checkpoint(MODELS[0].name) == own.relative_to(tmp_path)


def test_every_file_there_is_one_of_a_model() -> None:
    files = {path.name for path in pretrained.FOLDER.iterdir() if path.is_file()}
    parts = {f"{weights.stem}{suffix}" for weights in WEIGHTS for suffix in (".safetensors", ".json", ".yaml")}
    assert files == {"__init__.py", *parts, *(f"{model.name}.md" for model in MODELS)}
    golden = {f"{weights.stem}{suffix}" for weights in WEIGHTS for suffix in (".qnt", ".png")}
    assert {path.name for path in GOLDEN.iterdir()} == golden


def test_the_weights_are_those_of_their_description(weights: Weights, codec: LearnedCodec) -> None:
    assert file_sha256(weights.path) == weights.sha256
    assert weights.path.stat().st_size == weights.size <= MAX_BYTES
    assert codec.fingerprint().hex() == weights.fingerprint
    assert (codec.image_channels, codec.lossless) == (weights.image_channels, weights.lossless)
    assert (codec.efforts is not None) == codec.shown_in_part == weights.levels_alone
    grid = codec.quality_grid or (0, 1)
    assert (grid[0] > grid[-1]) == weights.quality_is_ratio
    assert codec.model_config["_target_"].startswith(f"codec.schemes.{weights.scheme}.")
    assert pretrained.written_by(codec.fingerprint()) == weights


def test_parameters_take_two_bytes(weights: Weights, codec: LearnedCodec) -> None:
    everything = sum(t.numel() * t.element_size() for t in codec.state_dict().values())
    saved = everything - 2 * sum(parameter.numel() for parameter in codec.parameters())
    assert saved < weights.size < saved + 100_000  # names and shapes take the rest


def test_its_multiplications_are_those_of_its_description(weights: Weights, codec: LearnedCodec) -> None:
    (first, *_) = images_of("samples", weights.image_channels, CROP).test_dataloader()
    found = complexity(codec, first.image)
    assert found.parameters == weights.parameters
    # Networks that look beyond the image's edges, and z, are of a few more positions.
    assert weights.decode_macs * 0.998 <= found.decode_macs <= weights.decode_macs * 1.03
    if codec.efforts is None:
        assert found.encode_macs == pytest.approx(weights.encode_macs, rel=0.002)
    else:  # the encoder's look through the decoder costs the same, divided by fewer pixels
        assert found.encode_macs >= weights.encode_macs > 0


def test_two_photographs_repeat_their_figures(weights: Weights, codec: LearnedCodec) -> None:
    images = list(images_of("samples", weights.image_channels, CROP).test_dataloader())[:2]
    assert len(images) == 2
    for image in images:
        row, recorded = measure(codec, image).row, weights.per_image[f"samples_{CROP}"][image.name]
        # Another processor adds floats in another order, or analyses in bfloat16 where this one does not, which may
        # round a latent or a decoded pixel differently.
        assert row["bytes"] == pytest.approx(recorded["bytes"], rel=0.002)
        assert row["psnr"] == pytest.approx(float(recorded["psnr"]), abs=0.03)
        assert (row["psnr"] == float("inf")) == weights.lossless


def test_a_golden_file_decodes_to_its_image(weights: Weights, codec: LearnedCodec) -> None:
    if os.environ.get("QUINTET_WRITE_GOLDEN") == "1":
        write_golden(codec, weights, GOLDEN)
    decoded = codec.decode((GOLDEN / f"{weights.stem}.qnt").read_bytes())
    expected = read_image(GOLDEN / f"{weights.stem}.png")
    assert decoded.shape == expected.shape
    assert int((decoded.int() - expected.int()).abs().max()) <= (0 if weights.lossless else 1)
    assert expected.float().std() > 10


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_card_is_made_of_what_is_recorded(model: PretrainedModel) -> None:
    text = (pretrained.FOLDER / f"{model.name}.md").read_text(encoding="utf-8")
    assert text == card(model)
    for weights in model.weights:
        assert all(len(points) >= 1 for points in weights.measured.values())
        assert weights.sha256 in text
        assert weights.training["command"] in text
        assert weights.training["time"] in text


def test_every_model_is_described_by_words_of_its_own() -> None:
    assert len({model.weights[0].description for model in MODELS}) == len(MODELS)


def test_every_card_has_the_times_it_speaks_of() -> None:
    for model in MODELS:
        assert "times are by the wall clock" in card(model)
        assert "| encode ms/MP | decode ms/MP |" in card(model)


@pytest.mark.parametrize("path", sorted(pretrained.FOLDER.glob("*.*[nld]")), ids=lambda path: path.name)
def test_no_file_names_a_folder_of_the_machine_it_was_made_on(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w:/.$}<])/\w[^\s]*", text)


def test_evaluate_repeats_the_recorded_figures_of_whole_images(tmp_path: Path) -> None:
    weights = pretrained.choose()
    channels = f"data.channels={weights.image_channels}"
    options = [f"pretrained={weights.name}", "data=samples", "data.limit=2", channels, "device=cpu"]
    run_python(ROOT / "evaluate.py", *options, cwd=tmp_path)
    (folder,) = (tmp_path / "runs").glob(f"{weights.name}_on_samples-*")
    results = json.loads((folder / "results.json").read_text())
    recorded = list(weights.per_image["samples"].values())[:2]
    assert results["images"] == 2
    assert results["bytes"] == pytest.approx(sum(image["bytes"] for image in recorded) / 2, rel=0.002)
    psnr = sum(float(image["psnr"]) for image in recorded) / 2
    assert float(results["psnr"]) == pytest.approx(psnr, abs=0.01)


# ---- the registry


def test_a_damaged_file_is_refused(weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(weights.path.read_bytes())
    data[-1] ^= 1
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    for write in (lambda: None, lambda: weights.path.write_bytes(data)):
        write()
        with pytest.raises(CheckpointError, match="is missing or is not the file it was: install the package"):
            load_pretrained(weights)


def test_an_unknown_name_is_told_what_there_is() -> None:
    with pytest.raises(
        CheckpointError, match=rf"no pretrained model is called best: there are .*{MODELS[-1].name}$"
    ):
        load_pretrained("best")


def test_rates_are_qualities_from_small_to_large_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    single = replace(WEIGHTS[0], name="several", accepts=None)
    model = PretrainedModel("several", tuple(replace(single, quality=n) for n in (1, 2, 3)))
    assert model.ends == (1, 3)
    assert [model.at(n).quality for n in (None, 1, 2, 3)] == [2, 1, 2, 3]
    assert model.at(3).path.name == "several-q3.safetensors"
    with pytest.raises(CheckpointError, match="quality 4: the model several has 1 to 3"):
        model.at(4)
    ranged = PretrainedModel("ranged", (replace(single, quality=None, accepts=[3, 60]),))
    assert ranged.ends == (3, 60)
    assert ranged.at(60) is ranged.at(30.5) is ranged.at() is ranged.weights[0]
    with pytest.raises(CheckpointError, match="quality 2: the model ranged has 3 to 60"):
        ranged.at(2)
    fixed = PretrainedModel("fixed", (replace(single, quality=None),))
    assert fixed.ends is None
    with pytest.raises(CheckpointError, match="quality 1: the model fixed has one quality only"):
        fixed.at(1)


def test_no_models_are_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert pretrained.pretrained_models() == []
    assert pretrained.written_by(bytes(4)) is None
    with pytest.raises(CheckpointError, match="no pretrained models: name a checkpoint"):
        load_pretrained()
