"""The block DCT beside a scheme's networks: where training starts, and what the networks count."""

import pytest
import torch
from conftest import composed, crop, make_codec, untaught
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from codec.learned_codec import LearnedCodec
from codec.training.config import Builder, ConfigError

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "conv_baseline": ("model.widths=[8,8,8]", "model.latent_channels=96"),
    "conv_enhanced": ("model.widths=[8,8,8,8]", "model.latent_channels=96"),
    "quantized_autoencoder": (
        "model.widths=[8,8,8]",
        "model.latent_channels=96",
        "model.encoder=resnet18",
        "model.pretrained=false",
    ),
}
VARIABLE = ("bottleneck.variable_rate=true", "quantization=8bit")


@pytest.fixture(params=SMALL)
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


def with_dct(scheme: str, *overrides: str, channels: int = 3) -> LearnedCodec:
    return make_codec(f"{scheme}_dct", channels=channels, overrides=(*SMALL[scheme], *overrides))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [(), VARIABLE], ids=["one rate", "variable"])
def test_training_starts_at_the_dct(scheme: str, options: tuple, channels: int, photograph: Tensor) -> None:
    codec = with_dct(scheme, *options, channels=channels)
    x = codec.pad(crop(photograph, 70, 100)[None, :channels] / 255)
    quality = torch.tensor([30.0]) if options else None
    with torch.no_grad():
        (y, *_) = codec.g_a(x)
        torch.testing.assert_close(y, codec.shortcut.analysis(x))
        y_hat, _ = codec.bottleneck(codec.g_a(x), quality)
        torch.testing.assert_close(codec.g_s(y_hat, quality), codec.shortcut.synthesis(y_hat[0]))


def test_an_untrained_codec_shows_the_image_and_without_the_shortcut_it_does_not(
    scheme: str, photograph: Tensor
) -> None:
    psnr = []
    for codec in (with_dct(scheme, "quantization=7bit"), make_codec(scheme, overrides=SMALL[scheme])):
        decoded = codec.decode(codec.encode(photograph)).float()
        psnr.append(float(peak_signal_noise_ratio(decoded, photograph.float(), data_range=255.0)))
    assert psnr[0] > 28
    assert psnr[1] < 20


@pytest.mark.parametrize("options", [(), VARIABLE], ids=["one rate", "variable"])
def test_transform_and_networks_learn(scheme: str, options: tuple) -> None:
    left = untaught(with_dct(scheme, *options), 64)
    assert not {name for name in left if not name.startswith("bottleneck.")}


@pytest.mark.parametrize("conv", ["conv_baseline", "conv_enhanced"])
def test_the_dct_is_all_of_a_convolutional_encoder(conv: str, photograph: Tensor) -> None:
    codec = with_dct(conv, *VARIABLE)
    x = codec.pad(crop(photograph, 64, 64)[None] / 255)
    for name, weights in codec.named_parameters():
        if not name.startswith("shortcut."):
            torch.nn.init.ones_(weights)
    with torch.no_grad():
        torch.testing.assert_close(codec.g_a(x), [codec.shortcut.analysis(x)], atol=0, rtol=0)


def test_skips_beside_the_dct_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"skip_channels=\[0, 0, 2\]: with a shortcut all are 0"):
        with_dct("conv_enhanced", "model.skip_channels=[0,0,2]")


def test_with_a_variable_rate_what_a_decoder_adds_is_counted_in_steps(scheme: str, photograph: Tensor) -> None:
    codec = with_dct(scheme, *VARIABLE)
    last = [module for module in codec.modules() if getattr(module, "out_channels", 0) == 3][-1]
    torch.nn.init.ones_(last.bias)
    x = codec.pad(crop(photograph, 64, 64)[None] / 255)
    with torch.no_grad():
        y = codec.g_a(x)
        added = [
            float((codec.g_s(y, torch.tensor([quality])) - codec.shortcut.synthesis(y[0])).mean())
            for quality in (50.0, 50 + 100 / 7)
        ]
    assert added[0] == pytest.approx(0.1 * 0.2, rel=1e-3)
    assert added[1] == pytest.approx(added[0] / 2, rel=1e-3)


def test_every_level_of_the_enhanced_decoder_sees_the_dcts_image() -> None:
    codec = with_dct("conv_enhanced")
    assert [merge[0].in_channels for merge in codec.merge] == [8 + 3, 8 + 12, 8 + 48]


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("model.shortcut=wavelet", "none, dct"),
        ("model.shortcut_step=-1", "numbers above 0"),
        ("model.shortcut_step=fine", "numbers above 0"),
    ],
)
def test_a_wrong_argument_is_one_line_with_what_is_allowed(scheme: str, override: str, allowed: str) -> None:
    overrides = [f"model={scheme}_dct", *SMALL[scheme], override]
    with pytest.raises(ConfigError) as raised, Builder(composed("train", overrides)) as build:
        build.codec("model")
    assert str(raised.value) == f"{override}: allowed are {allowed}"
