"""One model for all rates: what every latent scheme promises of it, and what is special to its training."""

import pytest
import torch
from conftest import composed, crop, images
from quantized_codecs import SMALL as SMALL_RESNET
from torch import Tensor

from codec.data.image_file import NamedImage
from codec.learned_codec import LearnedCodec
from codec.training.config import Builder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def codec() -> LearnedCodec:
    torch.manual_seed(0)
    with Builder(composed("train", ["experiment=diffusion_wavelet"])) as build:
        return build.codec("model").train()


# A context prior starts near 0, where a factorized one takes all levels for equally likely.
CONTEXT = ("prior=channel_context", "prior.features=4")
MODELS = {
    "conv_baseline": ("model=conv_baseline", "model.widths=[8,8,8,8]"),
    "conv_enhanced": ("model=conv_enhanced", "model.widths=[8,8,8,8]"),
    "conv_baseline, DCT": ("model=conv_baseline_dct", "model.widths=[8,8,8]", *CONTEXT),
    "conv_enhanced, DCT": ("model=conv_enhanced_dct", "model.widths=[8,8,8,8]", *CONTEXT),
    "quantized_autoencoder": ("model=quantized_autoencoder", *SMALL_RESNET, "model.latent_channels=32"),
    "quantized_autoencoder, DCT": ("model=quantized_autoencoder_dct", "model.widths=[16,8,8]", *CONTEXT),
    "diffusion": ("model=diffusion",),
    "diffusion, DCT": ("model=diffusion", "model.shortcut=dct"),
    "diffusion, wavelet": ("model=diffusion_wavelet",),
}


@pytest.mark.parametrize("model", MODELS)
def test_every_scheme_codes_at_all_rates_which_decoder_and_gains_learn(model: str, photograph: Tensor) -> None:
    overrides = [*MODELS[model], "bottleneck.variable_rate=true", "loss.rate_weight=0.01"]
    with Builder(composed("train", overrides)) as build:
        build.seed()
        codec = build.codec("model")
        codec.prepare_training(build.part("loss"), build.part("optimizer"))
    optimizer = codec.train().configure_optimizers()["optimizer"]
    batch = torch.stack([crop(photograph, 64, 64), crop(photograph.flip(2), 64, 64)]).float() / 255
    for _ in range(2):
        optimizer.zero_grad()
        output = codec(batch)
        codec._loss(output.x_hat, output.total_bits, batch).loss.backward()
        optimizer.step()
    assert all(bool(gains.any()) for gains in codec.bottleneck.gains)
    assert bool(codec.bottleneck.gains) == ("DCT" not in model and "wavelet" not in model)
    codec.eval()
    sizes = []
    for quality in (10, 90):
        codec.set_quality(quality)
        data = codec.encode(crop(photograph, 40, 72))
        assert codec.decode(data).shape == (3, 40, 72)
        sizes.append(len(data))
    assert sizes[0] < sizes[1]
    with torch.no_grad():
        y_hat = [tensor.round(decimals=2) for tensor in codec.latent(batch[:1])]
        low, high = (codec.g_s(y_hat, torch.tensor([quality])) for quality in (10.0, 90.0))
    assert not torch.equal(low, high)


def gradients(codec: LearnedCodec, loss: Tensor) -> list[Tensor]:
    weights = [codec.decoder.head.weight, codec.bottleneck.prior.tables.shape]
    return torch.autograd.grad(loss, weights)


def test_every_image_counts_relative_to_its_error_and_a_bit_as_the_squared_step(codec: LearnedCodec) -> None:
    x = torch.cat([images(1, 3, 64, 64), 0.5 + 0.01 * images(1, 3, 64, 64)])
    torch.manual_seed(1)
    x_hat, bits = codec(x)
    errors = (x_hat - x).square().mean((1, 2, 3))
    trained = gradients(codec, errors.sum() + 1e-4 * sum(bits.values()).sum())

    torch.manual_seed(1)
    quality = 100 * torch.rand(2)
    y_hat, bits = codec.analyse(x, quality)
    error = (codec.g_s(y_hat, quality) - x).square().mean((1, 2, 3))
    worth = codec.bottleneck.relative_step(quality).flatten() ** 2
    mean = (worth / error.detach()).mean()  # bits count as much as they do at one rate
    expected = gradients(codec, ((error + 1e-4 * worth * sum(bits.values())) / error.detach()).sum() / mean)
    torch.testing.assert_close(errors, error)
    for of_training, wanted in zip(trained, expected, strict=True):
        assert bool(wanted.any())
        torch.testing.assert_close(of_training, wanted, rtol=1e-3, atol=1e-6 * float(wanted.abs().max()))


def test_validation_is_of_files_at_three_qualities_whose_errors_count_by_the_step(photograph: Tensor) -> None:
    overrides = [*MODELS["diffusion, wavelet"], "bottleneck.variable_rate=true", "loss.rate_weight=0.01"]
    with Builder(composed("train", overrides)) as build:
        build.seed()
        codec = build.codec("model")
        codec.prepare_training(build.part("loss"), build.part("optimizer"))
    codec.fit_priors([photograph[None, :, :64, :64]])
    image = crop(photograph, 72, 100)
    met = set()
    for name in "abcdefghij":
        codec.on_validation_epoch_start()
        codec.set_quality(33)
        decoded = codec.validation_step(NamedImage(name, image), 0)
        assert codec.quality == 33
        (row,) = codec._rows
        for quality in (20.0, 50.0, 80.0):
            codec.set_quality(quality)
            data = codec.eval().encode(image)
            if torch.equal(codec.decode(data), decoded):
                met.add(quality)
                assert row["bpp"] == pytest.approx(8 * len(data) / image[0].numel(), rel=0.02, abs=0.1)
                error = (decoded.float() - image).div(255).square().mean().item()
                relative = float(codec.bottleneck.relative_step(torch.tensor([quality]))) ** 2
                assert row["loss"] == pytest.approx(error / relative + 0.01 * row["bpp"], rel=0.02)
    assert met == {20.0, 50.0, 80.0}
