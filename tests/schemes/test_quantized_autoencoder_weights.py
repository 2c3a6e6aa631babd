"""The quantised autoencoder's weights: fetched for its encoder, taught in training, kept every 5 epochs."""

import csv
import hashlib
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, crop, make_codec, run_python, untaught
from quantized_codecs import DCT, quantized
from torch import nn
from torchvision.models import get_model

from codec.checkpoint import load_codec
from codec.networks import pretrained
from codec.schemes.quantized_autoencoder import ENCODERS

pytest_plugins = "weights_server"

# ---- pretrained weights


@pytest.fixture
def offline(hub, monkeypatch) -> list[str]:
    """What was asked for from a network that is not there."""
    asked_for: list[str] = []

    def fail(url: str, **_: object) -> None:
        asked_for.append(url)
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "load_state_dict_from_url", fail)
    return asked_for


def test_nothing_is_fetched_to_build_a_codec_and_nothing_ever_if_not_pretrained(offline, photograph):
    codec = quantized()
    assert codec.pretrained
    codec.decode(codec.encode(crop(photograph)))
    quantized("model.pretrained=false").load_starting_weights()
    assert offline == []


@pytest.mark.parametrize("encoder", ENCODERS)
def test_weights_that_cannot_be_fetched_are_one_line_that_says_what_to_do(encoder, offline):
    with torch.device("meta"):
        codec = make_codec("quantized_autoencoder", overrides=(f"model.encoder={encoder}",))
    with pytest.raises(ValueError, match=r"^pretrained=true: ") as raised:
        codec.load_starting_weights()
    (url,) = offline
    assert re.search(rf"/{encoder}-[0-9a-f]{{8}}\.pth$", url)
    said = str(raised.value)
    assert "\n" not in said
    for part in (encoder, url, "no network", "model.pretrained=false"):
        assert part in said


def test_pretrained_weights_are_the_encoders_and_leave_everything_else_as_it_was(hub):
    state = {name: value + 0.5 for name, value in get_model("resnet18").state_dict().items()}  # a classifier too
    hub.mkdir(parents=True)
    torch.save(state, hub / "weights")
    digest = hashlib.sha256((hub / "weights").read_bytes()).hexdigest()[:8]
    (hub / "weights").rename(hub / f"resnet18-{digest}.pth")
    codec = quantized(f"model.pretrained_url=https://example.invalid/resnet18-{digest}.pth")
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    codec.load_starting_weights()
    for name, value in codec.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(value.float(), state[name.removeprefix("encoder.")].to(value.dtype).float()), name
        else:
            assert torch.equal(value, before[name]), name


def test_an_address_without_a_hash_is_refused_before_anything_is_fetched(offline):
    codec = quantized("model.pretrained_url=https://example.invalid/resnet18.pth")
    with pytest.raises(ValueError, match="no hash"):
        codec.load_starting_weights()
    assert offline == []


# ---- training


@pytest.mark.parametrize("options", [(), (DCT,)])
def test_every_parameter_is_taught_in_training(options):
    codec = quantized(*options)
    assert untaught(codec, 64) == set()
    assert not isinstance(codec.encoder.fc, nn.Linear)


@pytest.fixture(scope="module")
def ten_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 10 epochs whose weights were kept every 5."""
    folder = tmp_path_factory.mktemp("ten_epochs")
    run_python(
        ROOT / "train.py",
        "model=conv_baseline",
        "model.widths=[8,8]",
        "model.latent_channels=4",
        "callbacks=every_5_epochs",
        "epochs=10",
        "name=ten",
        "test=false",
        "strategy=cpu",
        "logger=csv",
        "data=samples",
        "data.num_workers=0",
        "data.crop_size=32",
        "data.batch_size=4",
        "data.crops_per_image=1",
        "data.limit=4",
        "data.eval_crop=32",
        "trainer.log_every_n_steps=1",
        cwd=folder,
    )
    (run,) = (folder / "runs").iterdir()
    return run


def test_every_5_epochs_a_checkpoint_is_kept_and_each_can_be_used(ten_epochs, photograph):
    checkpoints = sorted((ten_epochs / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["best.ckpt", "epoch_004.ckpt", "epoch_009.ckpt", "last.ckpt"]
    codecs = {path.stem: load_codec(path) for path in checkpoints}
    for codec in codecs.values():
        assert codec.decode(codec.encode(crop(photograph))).shape == (3, 64, 64)
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in checkpoints}
    assert (epochs["epoch_004"], epochs["epoch_009"], epochs["last"]) == (4, 9, 9)
    assert codecs["epoch_009"].fingerprint() == codecs["last"].fingerprint() != codecs["epoch_004"].fingerprint()


def test_the_training_and_the_validation_losses_are_kept_for_every_epoch(ten_epochs):
    with (ten_epochs / "metrics/version_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "val/loss"):
        epochs = {int(row["epoch"]) for row in rows if row[name] and math.isfinite(float(row[name]))}
        assert epochs == set(range(10)), name
