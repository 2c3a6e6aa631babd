"""Checkpoints of ours: they load and decode, a run's folder stands for one, and training starts from one."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bottlenecks import model_of
from checkpoints import TABLES, config, made, refusal, save, save_tensors
from torch import Tensor

from codec.checkpoint import CheckpointError, build_codec, load_codec, start_from
from codec.checkpoint_files import find_checkpoint
from codec.learned_codec import LearnedCodec
from codec.schemes.conv_autoencoder import ConvBaseline


@pytest.fixture(scope="module")
def codec() -> LearnedCodec:
    return made()


@pytest.fixture(scope="module")
def image() -> Tensor:
    numbers = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 21, 18), generator=numbers, dtype=torch.uint8)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.ckpt"


# ---- ours


def test_a_config_becomes_its_codec(codec):
    assert type(codec) is ConvBaseline
    assert codec.model_config == config()
    assert codec.stride == 4
    assert codec.bottleneck.channels == [4]
    assert codec.bottleneck.scale == 2**4


def test_a_loaded_codec_decodes_the_files_of_the_original_and_writes_the_same(codec, image, path):
    loaded = load_codec(save(codec, path))
    assert not loaded.training
    file = codec.encode(image)
    assert torch.equal(loaded.decode(file), codec.decode(file))
    assert loaded.encode(image) == file
    assert loaded.decode(file).shape == image.shape
    assert loaded.model_config == codec.model_config


def test_a_loaded_codec_can_be_saved_and_loaded_again(codec, image, path):
    again = load_codec(save(load_codec(save(codec, path)), path))
    assert again.encode(image) == codec.encode(image)


def test_a_loaded_codec_reads_the_tables_of_the_checkpoint(codec, image, path):
    """Other floats than the prior's, as another machine would have made: they are read, not recomputed."""
    state = codec.state_dict()
    tables = state[TABLES].clone()
    tables[:, 1] -= (tables[:, 1] > 1).int()
    assert not torch.equal(tables, state[TABLES])
    state[TABLES] = tables
    loaded = load_codec(save(codec, path, state_dict=state))
    loaded.decode(loaded.encode(image))
    assert torch.equal(model_of(loaded.bottleneck).tables, tables)
    assert loaded.fingerprint() != codec.fingerprint()


def test_a_codec_loaded_under_inference_mode_works(codec, image, path):
    save(codec, path)
    with torch.inference_mode():
        loaded = load_codec(path)
        assert loaded.encode(image) == codec.encode(image)
    assert loaded.encode(image) == codec.encode(image)


def test_saved_weights_decode_the_files_of_the_original_with_its_tables(codec, image, path):
    state = codec.state_dict()
    tables = state[TABLES].clone()
    tables[:, 1] -= (tables[:, 1] > 1).int()
    trained = load_codec(save(codec, path, state_dict={**state, TABLES: tables}))
    loaded = load_codec(save_tensors(trained, path))
    file = trained.encode(image)
    assert torch.equal(loaded.decode(file), trained.decode(file))
    assert torch.equal(model_of(loaded.bottleneck).tables, tables)
    assert loaded.model_config == codec.model_config


# ---- a run's folder


def test_of_a_runs_folder_the_best_checkpoint_comes_before_the_last(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    last, best = run / "checkpoints/last.ckpt", run / "checkpoints/best.ckpt"
    last.touch()
    assert find_checkpoint(run) == last
    best.touch()
    assert find_checkpoint(run) == best
    assert find_checkpoint(str(last)) == last


def test_a_runs_folder_loads_its_best_codec(codec, image, tmp_path):
    other = build_codec(config())
    save(other, tmp_path / "checkpoints/last.ckpt")
    save(codec, tmp_path / "checkpoints/best.ckpt")
    assert load_codec(tmp_path).encode(image) == codec.encode(image)


@pytest.mark.parametrize("name", ["missing", "missing.ckpt", "."])
def test_where_there_is_no_checkpoint_it_says_what_to_give(tmp_path, name):
    assert "give a .ckpt file or a run's folder" in refusal(tmp_path / name)


# ---- training that starts from another run's weights


def other(seed: int, **changes: Any) -> LearnedCodec:
    torch.manual_seed(seed)
    return build_codec(config(**changes)).eval()


def test_training_can_start_from_another_run_s_weights(codec: LearnedCodec, path: Path, image: Tensor) -> None:
    save(codec, path)
    started = other(1)
    line = start_from(started, path)
    parameters = dict(codec.named_parameters())
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in started.named_parameters())
    assert str(path) in line
    assert torch.equal(started.decode(started.encode(image)), codec.decode(codec.encode(image)))


def test_starting_from_a_run_of_other_bits_makes_tables_anew(
    codec: LearnedCodec, path: Path, image: Tensor
) -> None:
    save(codec, path)
    finer = {**config()["bottleneck"], "bits": 6}
    started = other(1, bottleneck=finer)
    start_from(started, path)
    assert model_of(started.bottleneck).current_tables().shape == (4, 67)
    assert bool((model_of(started.bottleneck).current_tables()[:, -1] == 65536).all())
    assert started.decode(started.encode(image)).shape == image.shape


def test_a_transform_s_steps_stay_those_of_its_own_bits(path: Path) -> None:
    def diffusion(bits: int) -> LearnedCodec:
        bottleneck = {**config()["bottleneck"], "bits": bits}
        target = "codec.schemes.diffusion.DiffusionAutoencoder"
        return build_codec({"_target_": target, "bottleneck": bottleneck, "shortcut": "dct", "skips": "none"})

    save(diffusion(6), path)
    started, fresh = diffusion(2), diffusion(2)
    line = start_from(started, path)
    taken, total = map(int, re.search(r"(\d+) of (\d+) weights fit", line).groups())
    assert taken == total
    assert torch.equal(started.shortcut.scale, fresh.shortcut.scale)


def test_starting_takes_what_fits_and_says_how_much(codec: LearnedCodec, path: Path) -> None:
    save(codec, path)
    started = other(1, latent_channels=6)
    kept = started.encoder[-1].weight.clone()
    line = start_from(started, path)
    taken, total = map(int, re.search(r"(\d+) of (\d+) weights fit", line).groups())
    assert 0 < taken < total
    assert torch.equal(started.encoder[0][0].weight, codec.encoder[0][0].weight)
    assert torch.equal(started.encoder[-1].weight, kept)


def test_starting_from_another_model_is_refused(codec: LearnedCodec, path: Path) -> None:
    save(codec, path)
    diffusion = {
        "_target_": "codec.schemes.diffusion.DiffusionAutoencoder",
        "bottleneck": {
            **config()["bottleneck"],
            "prior": {**config()["bottleneck"]["prior"], "filters": [2]},
        },
    }
    with pytest.raises(CheckpointError, match="shares no weights"):
        start_from(build_codec(diffusion), path)
