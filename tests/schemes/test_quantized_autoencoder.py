"""The quantised autoencoder: its encoders, the paper's rounding rule and noise, its shortcut and its arguments."""

import math

import pytest
import torch
from conftest import composed, crop, images, make_codec
from quantized_codecs import DCT, DCT_ALONE, SMALL, quantized
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio
from torchvision.models import get_model

from codec import bitstream
from codec.checkpoint import load_codec, save_weights
from codec.learned_codec import LearnedCodec
from codec.networks.modes import never_roughly
from codec.schemes.quantized_autoencoder import ENCODERS
from codec.training.config import Builder, ConfigError


def values(codec: LearnedCodec, numbers: list[float]) -> Tensor:
    """A latent `[1, 512, 1, W]` that begins with `numbers`, 0.5 below what the paper has; 0 in what is left."""
    width = -(-len(numbers) // 512)
    y = torch.full((512 * width,), 0.5)
    y[: len(numbers)] = torch.tensor(numbers)
    return (y - 0.5).reshape(1, 512, 1, width)


# ---- shapes


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_makes_8_by_8_by_512_of_256_by_256(encoder):
    with torch.device("meta"):  # shapes without memory or arithmetic
        codec = make_codec("quantized_autoencoder", overrides=(f"model.encoder={encoder}",))
        (y,) = codec.g_a(torch.empty(1, 3, 256, 256))
        assert codec.g_s([y]).shape == (1, 3, 256, 256)
    assert y.shape == (1, 512, 8, 8)
    assert y.numel() == 32_768


def test_the_decoder_doubles_five_times_by_residual_blocks_of_the_given_widths():
    codec, shapes = quantized(), []
    for module in codec.decoder:
        module.register_forward_hook(lambda module, x, out: shapes.append(tuple(out.shape[1:])))
    codec.g_s([images(1, 512, 2, 3)])
    assert shapes == [(32, 4, 6), (16, 8, 12), (16, 16, 24), (8, 32, 48), (8, 64, 96), (3, 64, 96)]


@pytest.mark.parametrize(("encoder", "channels"), [("resnet18", 128), ("resnet101", 512)])
def test_with_fewer_widths_the_last_stages_of_the_resnet_are_left_out(encoder, channels):
    with torch.device("meta"):
        codec = make_codec("quantized_autoencoder", overrides=(f"model.encoder={encoder}", "model.widths=[16,8,8]"))
        (y,) = codec.g_a(torch.empty(1, 3, 256, 256))
        assert codec.g_s([y]).shape == (1, 3, 256, 256)
    assert y.shape == (1, 512, 32, 32)
    assert codec.to_latent.in_channels == channels
    assert not any(name.startswith(("encoder.layer3", "encoder.layer4")) for name, _ in codec.named_parameters())


def test_a_codec_of_fewer_stages_is_loaded_although_a_whole_resnet_is_larger(tmp_path):
    codec = quantized("model.widths=[8,8]", "model.latent_channels=8")
    save_weights(codec, tmp_path / "codec.safetensors")
    assert load_codec(tmp_path / "codec.safetensors").fingerprint() == codec.fingerprint()


@pytest.mark.parametrize("options", [(), (DCT,), DCT_ALONE])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_comes_back(options, channels, photograph):
    codec = quantized(*options, channels=channels)
    for size in ((1, 1), (32, 32), (33, 65), (64, 7)):
        image = crop(photograph, *size)[:channels]
        data = codec.encode(image)
        assert codec.decode(data).shape == image.shape
        assert len(bitstream.unpack(data)[1]) == 1


def test_a_grey_image_is_encoded_as_the_same_image_in_rgb_by_the_same_weights():
    grey, colour = quantized(channels=1), quantized()
    grey.encoder.load_state_dict(colour.encoder.state_dict())
    grey.to_latent.load_state_dict(colour.to_latent.state_dict())
    x = images(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey.g_a(x)[0], colour.g_a(x.repeat(1, 3, 1, 1))[0])
        assert grey(x).x_hat.shape == x.shape


def test_the_encoder_sees_what_imagenets_weights_were_trained_on():
    """Torchvision's own network, its classifier taken off, on an image normalised by hand."""
    codec, resnet = quantized(), get_model("resnet18").eval()
    resnet.load_state_dict(codec.encoder.state_dict(), strict=False)
    features = []
    resnet.layer4.register_forward_hook(lambda module, x, out: features.append(out))
    x = images(1, 3, 64, 64)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 3, 1, 1)
    with torch.no_grad(), never_roughly():
        resnet((x - mean) / std)
        torch.testing.assert_close(codec.g_a(x)[0], codec.to_latent(features[0]))


# ---- the paper's quantiser


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_latent_is_rounded_by_the_papers_rule_and_the_file_holds_the_same(bits):
    codec, scale = quantized(f"quantization={bits}bit"), 2**bits
    halves = [(n + 0.5) / scale for n in range(scale)]
    below = [math.nextafter(half, 0) for half in halves]
    numbers = [
        0.0,
        1.0,
        -0.25,
        1.25,
        -1e-6,
        1 + 1e-6,
        0.3,
        0.7,
        *(n / scale for n in range(scale + 1)),
        *halves,
        *below,
    ]
    y = values(codec, numbers)
    wanted = (torch.clamp(y.double() + 0.5, 0, 1) * 2**bits + 0.5).int()  # as in the paper's readme
    with torch.no_grad():
        (y_hat,), _ = codec.bottleneck([y])
    assert torch.equal((y_hat + 0.5) * scale, wanted.float())
    assert wanted.flatten()[:6].tolist() == [0, scale, 0, scale, 0, scale]
    assert sorted(set(wanted.flatten().tolist())) == list(range(scale + 1))
    assert wanted.flatten()[9 + scale : 9 + 2 * scale].tolist() == list(range(1, scale + 1)), "halves go up"
    assert torch.equal(codec.bottleneck.decompress(codec.bottleneck.compress([y]), [(1, y.shape[-1])])[0], y_hat)


def test_more_bits_make_a_larger_file_that_is_nearer(photograph):
    sizes, psnr = [], []
    for bits in (1, 3, 5, 7):
        codec = quantized(DCT, f"quantization={bits}bit")
        data = codec.encode(photograph)
        decoded = codec.decode(data).float()
        sizes.append(len(data))
        psnr.append(float(peak_signal_noise_ratio(decoded, photograph.float(), data_range=255.0)))
    assert sizes == sorted(set(sizes))
    assert psnr == sorted(set(psnr))


@pytest.mark.parametrize("bits", [2, 6])
@pytest.mark.parametrize("noise", ["uniform", "paper"])
def test_both_noises_are_choices_of_config_and_as_large_as_documented(noise, bits):
    codec = quantized(f"quantization={bits}bit", f"quantization.noise={noise}").train()
    torch.manual_seed(0)
    y = torch.zeros(4, 512, 16, 16)
    steps = (codec.bottleneck([y])[0][0].detach() - y) * 2**bits
    if noise == "uniform":
        assert -0.501 < float(steps.min()) < -0.499
        assert 0.499 < float(steps.max()) < 0.501
        mean, deviation = 0.0, 12**-0.5
    else:
        assert float(steps.min()) < -2.5
        assert float(steps.max()) > 1.5
        mean, deviation = -0.5, 0.5
    assert float(steps.mean()) == pytest.approx(mean, abs=0.01)
    assert float(steps.std()) == pytest.approx(deviation, abs=0.01)


# ---- the DCT shortcut


@pytest.mark.parametrize("options", [(DCT,), DCT_ALONE])
@pytest.mark.parametrize("channels", [1, 3])
def test_with_the_shortcut_a_codec_starts_as_the_dcts(options, channels, photograph):
    codec = quantized(*options, channels=channels)
    x = codec.pad(crop(photograph, 90, 120)[None, :channels] / 255)
    with torch.no_grad():
        (y_hat,), _ = codec.bottleneck([codec.shortcut.analysis(x)])
        torch.testing.assert_close(codec(x).x_hat, codec.shortcut.synthesis(y_hat), atol=1e-5, rtol=0)


def test_without_an_encoder_the_latent_is_the_dcts_and_every_block_of_the_decoder_sees_its_image(photograph):
    codec = quantized(*DCT_ALONE)
    x = codec.pad(crop(photograph, 64, 96)[None] / 255)
    seen = []
    for block in codec.decoder[:-1]:
        block.register_forward_hook(lambda module, inputs, out: seen.append(inputs[1]))
    with torch.no_grad():
        (y,) = codec.g_a(x)
        assert torch.equal(y, codec.shortcut.analysis(x))
        codec.g_s([y])
    image = codec.shortcut.synthesis(y) - 0.5
    for beside, size in zip(seen, (4, 8, 16, 32, 64), strict=True):
        assert beside.shape[-2:] == (size, size * 3 // 2)
        torch.testing.assert_close(torch.nn.functional.pixel_shuffle(beside, 64 // size), image)


def test_with_the_shortcut_an_untrained_codec_shows_the_image_and_without_it_does_not(photograph):
    psnr = {}
    for shortcut in ("dct", "none"):
        codec = quantized(f"model.shortcut={shortcut}")
        decoded = codec.decode(codec.encode(photograph)).float()
        psnr[shortcut] = float(peak_signal_noise_ratio(decoded, photograph.float(), data_range=255.0))
    assert psnr["dct"] > 28
    assert psnr["none"] < 20


# ---- arguments


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("model.encoder=vgg16", "none, resnet18, resnet34, resnet50, resnet101, resnet152"),
        ("model.shortcut=wavelet", "none, dct"),
        ("model.widths=[8]", "lists of 2 or more integers from 1"),
        ("model.widths=[8,8,8,8,8,8]", "lists of 2 to 5"),
        ("model.widths=[8,8,8,8,0]", "lists of 2 or more integers from 1"),
        ("model.widths=[8,8,8,8,1.5]", "lists of 2 or more integers from 1"),
        ("model.latent_channels=0", "the integers from 1"),
        ("model.shortcut_step=-1", "numbers above 0"),
        ("model.shortcut_step=fine", "numbers above 0"),
        ("data.channels=4", "1 (greyscale) and 3 (RGB)"),
    ],
)
def test_a_wrong_argument_is_one_line_with_its_key_its_value_and_what_is_allowed(override, allowed):
    overrides = ["model=quantized_autoencoder", *SMALL, override]
    with pytest.raises(ConfigError) as raised, Builder(composed("train", overrides)) as build:
        build.codec("model")
    said = str(raised.value)
    assert "\n" not in said
    assert said.replace(", ", ",").startswith(f"{override}:")
    assert said.endswith(f"allowed are {allowed}")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("model.encoder=none",), "model.encoder=none: allowed with shortcut=dct only"),
        ((DCT, "model.encoder=none"), "model.pretrained=true: with encoder=none allowed is false"),
    ],
)
def test_without_an_encoder_there_is_a_dct_and_nothing_to_fetch(overrides, said):
    overrides = ["model=quantized_autoencoder", *overrides]
    with pytest.raises(ConfigError, match=said), Builder(composed("train", overrides)) as build:
        build.codec("model")
