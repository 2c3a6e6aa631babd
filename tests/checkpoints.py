"""What tests of checkpoints share: a small codec, its checkpoints, and the reason why one is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from codec.checkpoint import CheckpointError, build_codec, load_codec, save_weights
from codec.learned_codec import LearnedCodec

TABLES = "bottleneck.prior.models.0.tables"  # the name of that codec's only coding tables


def config(**changes: Any) -> dict[str, Any]:
    """What a checkpoint says of its codec: a small one, but for `changes`."""
    prior = {"_target_": "codec.entropy.FactorizedPrior", "_partial_": True, "filters": [3]}
    bottleneck = {
        "_target_": "codec.entropy.EntropyBottleneck",
        "_partial_": True,
        "bits": 4,
        "noise": "uniform",
        "prior": prior,
    }
    return {
        "_target_": "codec.schemes.conv_autoencoder.ConvBaseline",
        "image_channels": 3,
        "widths": [8, 8],
        "latent_channels": 4,
        "bottleneck": bottleneck,
        **changes,
    }


def made() -> LearnedCodec:
    """The codec of `config()`, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_codec(config()).eval()


def save(codec: LearnedCodec, path: Path, **changes: Any) -> Path:
    """A checkpoint of the codec as load_codec expects it, but for `changes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_config": codec.model_config, "state_dict": codec.state_dict(), **changes}, path)
    return path


def save_tensors(codec: LearnedCodec, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_weights(codec, path)
    return path


def refusal(path: Path) -> str:
    """Why the checkpoint is refused; a different exception, or none, fails the test."""
    with pytest.raises(CheckpointError) as caught:
        load_codec(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text
