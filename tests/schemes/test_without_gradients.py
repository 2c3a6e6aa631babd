"""What networks compute otherwise where no gradient is wanted is the same but for rounding."""

from pathlib import Path

import pytest
import torch
from conftest import crop
from torch import Tensor

from codec.checkpoint import load_codec, load_pretrained
from codec.metrics import psnr
from codec.networks import modes
from codec.networks.eight_bit import in_floats, takes_bytes
from codec.networks.modes import never_roughly

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


@pytest.mark.parametrize("model", [*DCT, "diffusion_wavelet", DIFFUSION], ids=name_of)
def test_bytes_and_floats_decode_to_the_same_pixels(model: str | Path, photograph: Tensor) -> None:
    codec = load_codec(model) if isinstance(model, Path) else load_pretrained(model)
    image = crop(photograph, 72, 104)
    for quality in (None,) if codec.qualities is None else (5.0, 50.0):
        if quality is not None:
            codec.set_quality(quality)
        data = codec.encode(image)
        decoded = codec.decode(data)
        with in_floats():
            assert torch.equal(codec.decode(data), decoded)


@pytest.mark.parametrize("model", [*DCT, DIFFUSION], ids=name_of)
def test_a_decoder_in_codes_costs_hundredths_of_a_db(model: str | Path, photograph: Tensor) -> None:
    codec = load_codec(model) if isinstance(model, Path) else load_pretrained(model)
    for quality in (None,) if codec.qualities is None else (10.0, 50.0):
        if quality is not None:
            codec.set_quality(quality)
        data = codec.encode(photograph)
        in_codes = codec.decode(data)
        with never_roughly():
            exactly = codec.decode(data)
        assert not torch.equal(in_codes, exactly)
        assert abs(psnr(in_codes, photograph) - psnr(exactly, photograph)) < 0.05


@pytest.mark.parametrize("model", ["conv_baseline", "conv_enhanced"])
def test_an_encoder_in_codes_costs_hundredths_of_a_db_and_no_bytes(model: str, photograph: Tensor) -> None:
    if not takes_bytes_here():
        pytest.skip("oneDNN does not add bytes exactly on this machine")
    codec = load_pretrained(model)
    in_codes = codec.encode(photograph)
    with never_roughly():
        exactly = codec.encode(photograph)
    with in_floats():  # as on a machine without such arithmetic
        assert codec.encode(photograph) == exactly
    assert in_codes != exactly
    assert len(in_codes) == pytest.approx(len(exactly), rel=0.005)
    lost = psnr(codec.decode(exactly), photograph) - psnr(codec.decode(in_codes), photograph)
    assert abs(lost) < 0.06


def takes_bytes_here() -> bool:
    with torch.no_grad():
        return takes_bytes(torch.device("cpu"))


def test_an_encoder_that_only_adds_is_in_bfloat16_where_a_cpu_has_it(
    photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, x = load_codec(DIFFUSION), crop(photograph, 64, 64)[None] / 255
    monkeypatch.setattr(modes, "has_bfloat16", lambda device: True)
    with torch.no_grad():
        roughly = codec.g_a(x)[0]
        with never_roughly():
            exactly = codec.g_a(x)[0]
        monkeypatch.setattr(modes, "has_bfloat16", lambda device: False)
        assert torch.equal(codec.g_a(x)[0], exactly)
    assert not torch.equal(roughly, exactly)
    torch.testing.assert_close(roughly, exactly, atol=0.02 * float(exactly.abs().max()), rtol=0)


@pytest.mark.parametrize("model", ["conv_baseline", "conv_baseline_dct", "diffusion_wavelet"])
def test_what_weights_make_of_an_image_that_no_file_can_be_coded_with_is_nan(
    model: str, photograph: Tensor
) -> None:
    codec = load_pretrained(model)
    x = codec.prepared(crop(photograph, 64, 64))
    part = codec.encoder[0] if model == "conv_baseline" else codec.decoder
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.fill_(torch.nan)
        assert bool(codec.from_file(x).x_hat.isnan().all())
