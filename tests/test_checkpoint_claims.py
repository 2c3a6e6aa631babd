"""What a checkpoint from a stranger claims is checked before memory is taken for it, and its numbers are."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TABLES, config, made, refusal, save, save_tensors
from conftest import make_codec
from quantized_codecs import SMALL as SMALL_RESNET
from safetensors.torch import save_file
from torch import Tensor

from codec import checkpoint_limits
from codec.checkpoint import load_codec, load_pretrained
from codec.learned_codec import LearnedCodec
from codec.pretrained import pretrained_models


@pytest.fixture(scope="module")
def codec() -> LearnedCodec:
    return made()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.ckpt"


WEIGHT, BUFFER = "encoder.0.0.weight", "encoder.0.1.running_var"


def changed(codec: LearnedCodec, name: str, tensor: Tensor) -> dict[str, Tensor]:
    return {**codec.state_dict(), name: tensor}


# ---- numbers


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("name", [WEIGHT, BUFFER, "bottleneck.prior.models.0.biases.0"])
@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_a_tensor_that_is_not_finite_is_refused_by_name(codec, path, name, value, kind):
    tensor = codec.state_dict()[name].clone()
    tensor.view(-1)[-1] = value
    state = changed(codec, name, tensor)
    if kind == "ckpt":
        save(codec, path, state_dict=state)
    else:
        path = path.with_suffix(".safetensors")
        save_file(state, path, metadata={"model_config": json.dumps(config())})
    assert f"{name} holds nan or infinity" in refusal(path)


def test_a_number_beyond_the_model_s_precision_is_refused(codec, path):
    large = torch.full_like(codec.state_dict()[WEIGHT], 1e300, dtype=torch.float64)
    assert f"{WEIGHT} holds nan or infinity" in refusal(save(codec, path, state_dict=changed(codec, WEIGHT, large)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_stand_for_the_model_s(codec, path, dtype):
    exact = codec.state_dict()[WEIGHT].to(dtype)
    loaded = load_codec(save(codec, path, state_dict=changed(codec, WEIGHT, exact)))
    assert torch.equal(loaded.state_dict()[WEIGHT], exact.float())


def test_kinds_of_tensors_that_are_not_ours_are_refused_by_name(codec, path):
    weight, tables = codec.state_dict()[WEIGHT], codec.state_dict()[TABLES]
    refused = {
        "complex": (WEIGHT, weight.to(torch.complex64)),
        "sparse_coo": (WEIGHT, weight.to_sparse()),
        "meta": (WEIGHT, weight.to("meta")),
        "quantised": (WEIGHT, torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
        "int32: the model has float32": (WEIGHT, weight.int()),
        "bool: the model has float32": (WEIGHT, weight.bool()),
        "float32: the model has int32": (TABLES, tables.float()),
        "int64: the model has int32": (TABLES, tables.long()),
    }
    for kind, (name, tensor) in refused.items():
        text = refusal(save(codec, path, state_dict=changed(codec, name, tensor)))
        assert kind in text
        assert name in text


# ---- claims


GIGANTIC: list[dict[str, Any]] = [
    {"widths": [8, 10**9]},
    {"widths": [10**5, 10**5]},
    {"latent_channels": 10**10},
    {"bottleneck": {**config()["bottleneck"], "prior": {**config()["bottleneck"]["prior"], "filters": [10**9]}}},
    {
        "bottleneck": {
            **config()["bottleneck"],
            "prior": {**config()["bottleneck"]["prior"], "filters": [10**5, 10**5]},
        }
    },
]


@pytest.mark.parametrize("changes", GIGANTIC, ids=lambda changes: next(iter(changes)))
@pytest.mark.parametrize("kind", ["ckpt", "safetensors"])
def test_a_config_of_a_gigantic_model_is_refused_before_memory_is_taken(
    codec: LearnedCodec, path: Path, changes: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(tensor: Tensor, *_: object, **__: object) -> Tensor:
        assert tensor.numel() < 10**8, "memory is taken"
        return tensor

    for fill in ("kaiming_uniform_", "uniform_", "constant_", "zeros_", "ones_"):
        monkeypatch.setattr(torch.nn.init, fill, small)
    if kind == "ckpt":
        save(codec, path, model_config=config(**changes))
    else:
        path = path.with_suffix(".safetensors")
        save_file(codec.state_dict(), path, metadata={"model_config": json.dumps(config(**changes))})
    text = refusal(path)
    assert "larger model" in text or "allocate" in text or "CPUAllocator" in text, text


@pytest.mark.parametrize(
    ("model", "changes"),
    [("comcnn_reccnn", {"layers": 10**9, "width": 1}), ("lossless_unet", {"blocks": 10**9, "width": 5})],
)
def test_a_config_of_parts_without_end_is_refused_however_small_they_are(
    model: str, changes: dict[str, Any], path: Path
) -> None:
    codec = load_pretrained(model)
    save(codec, path, model_config={**codec.model_config, **changes})
    assert "larger model than the" in refusal(path)


def test_the_package_s_models_are_far_from_the_most_parts_that_are_allowed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_limits, "_PARTS", 3)
    monkeypatch.setattr(checkpoint_limits, "_MORE_PARTS", 0)
    for model in pretrained_models():
        load_codec(model.at().path)
    resnet = make_codec("quantized_autoencoder", overrides=(*SMALL_RESNET, "model.latent_channels=16"))
    assert isinstance(load_codec(save_tensors(resnet, path)), LearnedCodec)


def test_a_refusal_is_short_however_much_does_not_fit(codec, path):
    assert len(refusal(save(codec, path, model_config=config(widths=[8] * 500)))) < 500


def test_after_a_refused_one_a_checkpoint_loads(codec, path):
    refusal(save(codec, path, model_config=config(latent_channels=10**7)))
    assert load_codec(save(codec, path)).encode(torch.zeros(3, 9, 9, dtype=torch.uint8))


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(codec, path):
    weight = codec.state_dict()[WEIGHT]
    spread = torch.zeros(1).expand(10**6, *weight.shape)
    text = refusal(save(codec, path, state_dict=changed(codec, WEIGHT, spread)))
    assert WEIGHT in text
    assert "the file holds fewer" in text


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(codec, path):
    whole = save(codec, path, ballast=torch.zeros(10**6))
    packed = whole.with_name("packed.ckpt")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert "more than its own size" in refusal(packed)


def test_a_config_whose_lists_hold_each_other_over_and_over_is_refused_at_once(codec, path):
    widths: Any = [8]
    for _ in range(60):
        widths = [widths] * 10
    assert "at most 1000 values" in refusal(save(codec, path, model_config=config(widths=widths)))
    endless: list[Any] = []
    endless.append(endless)
    assert "deep" in refusal(save(codec, path, model_config=config(widths=endless)))


def test_what_the_package_writes_still_loads(codec, path):
    assert isinstance(load_codec(save(codec, path)), LearnedCodec)
    assert isinstance(load_codec(save_tensors(codec, path)), LearnedCodec)
