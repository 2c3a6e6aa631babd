"""What networks compute otherwise where no gradient is wanted is the same but for rounding."""

from pathlib import Path

import pytest
import torch
from conftest import crop
from torch import Tensor

from codec.checkpoint import load_codec, load_pretrained
from codec.metrics import psnr
from codec.networks import modes
from codec.networks.modes import ROUGHLY_FROM, has_bfloat16, never_roughly

DCT = ("conv_baseline_dct", "conv_enhanced_dct", "quantized_autoencoder_dct")
MODELS = ("conv_baseline", "conv_enhanced", *DCT)
DIFFUSION = Path(__file__).parents[2] / "experiments/starts/diffusion_dct.safetensors"


def name_of(model: str | Path) -> str:
    return model.stem if isinstance(model, Path) else model


@pytest.mark.parametrize("model", [*MODELS, DIFFUSION], ids=name_of)
def test_trained_codecs_decode_as_they_were_trained_to(model: str | Path, photograph: Tensor) -> None:
    codec = load_codec(model) if isinstance(model, Path) else load_pretrained(model)
    x = codec.prepared(crop(photograph, 64, 96))
    quality = None if codec.qualities is None else torch.tensor([50.0])
    y = [tensor.detach() for tensor in codec.g_a(x)]
    x_hat = codec.g_s(y, quality).detach()
    with torch.no_grad(), never_roughly():
        for ours, reference in zip(codec.g_a(x), y, strict=True):
            torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)
        torch.testing.assert_close(codec.g_s(y, quality), x_hat, atol=1e-6, rtol=0)


@pytest.fixture
def with_bfloat16() -> None:
    if not has_bfloat16("cpu"):
        pytest.skip("this CPU has no bfloat16 arithmetic")


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize(
    "model", [*DCT, "diffusion_wavelet", DIFFUSION], ids=[*DCT, "diffusion_wavelet", "diffusion_dct"]
)
def test_bfloat16_moves_no_pixel_by_more_than_one(model: str | Path, photograph: Tensor) -> None:
    codec = load_codec(model) if isinstance(model, Path) else load_pretrained(model)
    image = crop(photograph, 128, 192)
    for quality in (None,) if codec.qualities is None else (ROUGHLY_FROM, 50.0, 100.0):
        if quality is not None:
            codec.set_quality(quality)
        data = codec.encode(image)
        roughly = codec.decode(data)
        with never_roughly():
            exactly = codec.decode(data)
        assert 0 < int((roughly.int() - exactly.int()).abs().max()) <= 1


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("model", ["conv_baseline", "conv_enhanced"])
def test_an_encoder_in_bfloat16_costs_hundredths_of_a_db_and_no_bytes(model: str, photograph: Tensor) -> None:
    codec = load_pretrained(model)
    roughly = codec.encode(photograph)
    with never_roughly():
        exactly = codec.encode(photograph)
    assert roughly != exactly
    assert len(roughly) == pytest.approx(len(exactly), rel=0.005)
    lost = psnr(codec.decode(exactly), photograph) - psnr(codec.decode(roughly), photograph)
    assert abs(lost) < 0.03


@pytest.mark.parametrize("model", ["conv_enhanced_dct", "diffusion_wavelet"])
def test_a_cpu_without_bfloat16_and_low_qualities_decode_in_float32(
    model: str, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, image = load_pretrained(model), crop(photograph, 64, 96)
    for native, quality in ((True, ROUGHLY_FROM - 1), (False, 50.0)):
        monkeypatch.setattr(modes, "has_bfloat16", lambda device, native=native: native)
        codec.set_quality(quality)
        data = codec.encode(image)
        found = codec.decode(data)
        with never_roughly():
            assert torch.equal(found, codec.decode(data))


def test_a_cpu_without_bfloat16_encodes_in_float32(photograph: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load_pretrained("conv_enhanced")
    monkeypatch.setattr(modes, "has_bfloat16", lambda device: False)
    found = codec.encode(photograph)
    with never_roughly():
        assert found == codec.encode(photograph)
