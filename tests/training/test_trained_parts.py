"""`trained=[…]`: some parts of a model learn, all others stay as they are, and so does what batch norms count."""

import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT, folder_of, images, run_python
from diffusion_codecs import ITERATIVE, WAVELET, diffusion

from codec.checkpoint import load_codec
from codec.errors import ArgumentError
from codec.losses import RateDistortionLoss

TINY = (
    "strategy=cpu",
    "logger=csv",
    "data.num_workers=0",
    "data.crop_size=64",
    "data.batch_size=2",
    "data.limit=2",
    "data.eval_crop=192",
    "model.widths=[8,8]",
    "model.latent_channels=4",
    "test=false",
)


def prepared(codec, trained):
    codec.train().prepare_training(
        RateDistortionLoss(rate_weight=0.01), lambda groups: torch.optim.Adam(groups, lr=1e-3), trained=trained
    )
    return codec


@pytest.mark.parametrize(
    ("options", "trained"),
    [((), ["decoder"]), ((), ["encoder.0", "bottleneck.prior"]), ((WAVELET,), ["decoder"])],
)
def test_only_the_parts_that_are_named_change(options, trained):
    codec = prepared(diffusion(*options), trained)
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    optimizer = codec.configure_optimizers()["optimizer"]
    torch.manual_seed(0)
    for seed in range(2):
        loss, _ = codec.trained_terms((255 * images(2, 3, 64, 64, seed=seed)).byte())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, value in codec.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(tuple(f"{part}." for part in trained)) for name in changed)
    for part in trained:
        assert any(name.startswith(f"{part}.") for name in changed), part


def test_what_no_training_teaches_cannot_be_named():
    codec = diffusion(ITERATIVE, WAVELET)
    with pytest.raises(ArgumentError, match="trained=decoder: parts of this model that learn are denoiser"):
        prepared(codec, ["decoder"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("[decoderr]", "trained=decoderr: parts of this model that learn are {parts}; did you mean decoder?"),
        ("decoder", "trained=decoder: allowed are lists of names, such as [decoder]"),
        ("[]", "trained=[]: allowed are lists of names, such as [decoder]"),
    ],
)
def test_a_wrong_name_is_refused_before_any_data_load(asked: str, said: str, tmp_path: Path) -> None:
    done = run_python(ROOT / "train.py", *TINY, f"trained={asked}", cwd=tmp_path, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line == f"error: {said.format(parts='encoder, bottleneck, decoder')}"
    assert not (tmp_path / "runs").exists()


def test_it_is_said_where_nothing_has_trained_the_other_parts(tmp_path: Path) -> None:
    done = run_python(ROOT / "train.py", *TINY, "epochs=1", "trained=[decoder]", cwd=tmp_path)
    assert "all other parts stay as this model begins: start_from= brings weights" in done.stdout


def test_a_run_trains_a_part_of_the_weights_that_it_starts_from(tmp_path: Path) -> None:
    run_python(ROOT / "train.py", *TINY, "epochs=1", "name=first", cwd=tmp_path)
    start = f"start_from={folder_of(tmp_path / 'runs', 'first')}"
    done = run_python(ROOT / "train.py", *TINY, "epochs=1", "name=tuned", "trained=[decoder]", start, cwd=tmp_path)
    assert re.search(r"parameters, of which [\d,]+ learn\n", done.stdout)
    assert "all other parts" not in done.stdout
    first, tuned = (load_codec(folder_of(tmp_path / "runs", name)) for name in ("first", "tuned"))
    same = {
        name: torch.equal(value, other)
        for (name, value), other in zip(first.named_parameters(), tuned.parameters(), strict=True)
    }
    assert all(equal for name, equal in same.items() if not name.startswith("decoder."))
    assert not all(equal for name, equal in same.items() if name.startswith("decoder."))
