"""What every latent model promises under every prior of conf/prior/. A new prior is tested without a line added."""

import pytest
import torch
from conftest import ROOT, composed, crop
from quantized_codecs import SMALL as SMALL_RESNET
from torch import Tensor
from unet_codecs import SMALL as SMALL_UNET

from codec.entropy import bottleneck
from codec.entropy.walk import Write
from codec.learned_codec import LearnedCodec
from codec.networks import BlockDCT
from codec.training.config import Builder

pytestmark = pytest.mark.usefixtures("one_thread")
PRIORS = sorted(path.stem for path in (ROOT / "conf/prior").glob("*.yaml"))
MODELS = {
    "conv_baseline": ("model=conv_baseline", "model.widths=[8,8,8,8]"),
    "conv_enhanced": ("model=conv_enhanced", "model.widths=[8,8,8,8]"),
    "quantized_autoencoder": ("model=quantized_autoencoder", *SMALL_RESNET, "model.latent_channels=32"),
    "diffusion": ("model=diffusion",),
    "diffusion, DCT": ("model=diffusion", "model.shortcut=dct"),
    "diffusion, wavelet": ("model=diffusion", "model.shortcut=wavelet"),
    "lossless_unet": ("model=lossless_unet", *SMALL_UNET),
}
DCT_MODELS = {
    "diffusion": ("model=diffusion", "model.shortcut=dct"),
    "quantized_autoencoder": (*MODELS["quantized_autoencoder"], "model.shortcut=dct"),
    "lossless_unet": (*MODELS["lossless_unet"], "model.context=none", "model.shortcut=dct"),
}
HEADER = 24  # bytes, and four for each further section


def trained_a_step(overrides: tuple[str, ...], photograph: Tensor) -> LearnedCodec:
    """The codec of a config after one step of the training that the config describes."""
    loss = "loss=rate" if "model=lossless_unet" in overrides else "loss.rate_weight=0.01"
    config = composed("train", [*overrides, loss])
    with Builder(config) as build:
        build.seed()
        codec = build.codec("model")
        codec.prepare_training(build.part("loss"), build.part("optimizer"))
    codec.train()
    optimizer = codec.configure_optimizers()["optimizer"]
    batch = torch.stack([crop(photograph, 32, 32), crop(photograph.flip(2), 32, 32)]).float() / 255
    output = codec(batch)
    codec._loss(output.x_hat, output.total_bits, batch).loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in codec.bottleneck.prior.parameters())
    optimizer.step()
    return codec.eval()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("model", MODELS)
def test_a_step_is_trained_and_a_file_written_and_read_at_the_bits_that_are_told(
    model: str, prior: str, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = trained_a_step((*MODELS[model], f"prior={prior}"), photograph)
    passes = []

    class Counted(Write):
        def __call__(self, part: str, *arguments: object) -> Tensor:
            passes.append(part)
            return super().__call__(part, *arguments)

    monkeypatch.setattr(bottleneck, "Write", Counted)
    image = crop(photograph, 40, 72)
    data, told = codec.encode(image), codec.estimated_bits(image)
    around = HEADER + 4 * (codec.section_count - 1) + 4 * len(passes)
    assert abs(8 * len(data) - told) <= 0.02 * told + 8 * around
    decoded = codec.decode(data)
    with torch.no_grad(), codec._coding():
        seen = codec(codec.prepared(image)).x_hat[0, :, :40, :72]
    torch.testing.assert_close(decoded / 255, seen.clamp(0, 1), atol=0.51 / 255, rtol=0)
    assert len(passes) >= len(codec.bottleneck.channels)
    assert ("z" in passes) == (prior in ("hyperprior", "checkerboard"))


@pytest.mark.parametrize("model", DCT_MODELS)
def test_a_context_prior_codes_a_dct_from_low_to_high_frequencies(model: str) -> None:
    with Builder(composed("train", [*DCT_MODELS[model], "prior=channel_context"])) as build:
        codec = build.codec("model")
    groups = BlockDCT.groups(codec.image_channels, codec.bottleneck.channels[0], codec.shortcut.block)
    coded = [channels for channels, offsets in codec.bottleneck.prior.passes[0] if (0, 0) in offsets]
    assert coded == [tuple(channels) for channels, _ in groups]
