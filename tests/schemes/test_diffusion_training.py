"""The diffusion scheme learns: from the DCT's reconstruction on, with every parameter, to a lower loss."""

import pytest
import torch
from conftest import crop, untaught
from diffusion_codecs import DCT, ITERATIVE, NO_SKIPS, VARIABLE_RATE, WAVELET, diffusion
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.functional.image import peak_signal_noise_ratio

from codec.losses import RateDistortionLoss

# ---- the DCT shortcut


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [(), (NO_SKIPS,), (ITERATIVE, "model.steps=2")])
def test_with_the_shortcut_a_codec_starts_as_the_dcts(options, channels, photograph):
    codec = diffusion(DCT, *options, channels=channels)
    x = crop(photograph)[None, :channels] / 255
    with torch.no_grad():
        y, *skips = codec.g_a(x)
        assert torch.equal(y, codec.shortcut.analysis(x))
        (y_hat, *_), _ = codec.bottleneck([y, *skips])
        wanted = codec.shortcut.synthesis(y_hat)
        torch.testing.assert_close(codec(x).x_hat, wanted, atol=1e-5, rtol=0)
        noisy = codec.train()(x).x_hat - codec.shortcut.synthesis(codec.shortcut.analysis(x))
    coefficients = channels * 64
    steps = (1 / codec.shortcut.scale / codec.bottleneck.scale).flatten()[:coefficients]
    rounding = float((steps.square().sum() / 12 / coefficients).sqrt())
    assert 0.5 < float(noisy.std()) / rounding < 1.1, "the noise of the steps and nothing else"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [(), (ITERATIVE, "model.steps=2")])
def test_with_the_wavelet_a_codec_starts_as_the_wavelets(options, channels, photograph):
    codec = diffusion(WAVELET, *options, channels=channels)
    x = crop(photograph)[None, :channels] / 255
    with torch.no_grad():
        pyramid = codec.g_a(x)
        for tensor, wanted in zip(pyramid, codec.shortcut.analysis(x), strict=True):
            assert torch.equal(tensor, wanted)
        y_hat, _ = codec.bottleneck(pyramid)
        wanted = codec.shortcut.synthesis(y_hat)
        torch.testing.assert_close(codec(x).x_hat, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [(), (ITERATIVE, "model.steps=2")])
def test_with_the_shortcut_an_untrained_codec_is_above_28_db_and_without_it_is_not(options, photograph):
    psnr = {}
    for shortcut in ("dct", "wavelet", "none"):
        codec = diffusion(f"model.shortcut={shortcut}", *options)
        decoded = codec.decode(codec.encode(photograph))
        psnr[shortcut] = float(peak_signal_noise_ratio(decoded.float(), photograph.float(), data_range=255.0))
    assert min(psnr["dct"], psnr["wavelet"]) > 28
    assert psnr["none"] < 20


# ---- training


VARIANTS = [
    (),
    (NO_SKIPS,),
    (DCT,),
    (ITERATIVE,),
    (ITERATIVE, NO_SKIPS),
    (ITERATIVE, DCT),
    (WAVELET,),
    (ITERATIVE, WAVELET),
    (ITERATIVE, WAVELET, VARIABLE_RATE),
]


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_that_learns_is_taught_in_training(options):
    codec = diffusion(*options)
    assert untaught(codec, 32) == set()


@pytest.mark.parametrize(
    ("options", "lr"),
    [((), 1e-3), ((ITERATIVE, DCT), 1e-3), ((DCT, "model.max_t=50"), 1e-3)],
)
def test_a_few_steps_of_real_training_lower_the_loss(options, lr, photographs):
    codec = diffusion(*options).train()
    crops = torch.stack([crop(image, 32, 32) for image in photographs] * 2)
    losses = []

    class Recorded(RateDistortionLoss):
        def __call__(self, *arguments: Tensor):
            terms = super().__call__(*arguments)
            losses.append(terms.total.item())
            return terms

    torch.manual_seed(0)
    codec.prepare_training(Recorded(rate_weight=0.001), lambda parameters: torch.optim.Adam(parameters, lr=lr))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=20,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(codec, DataLoader(crops, batch_size=len(crops)))
    assert len(losses) == 20
    assert sum(losses[-5:]) / 5 < 0.95 * losses[0]


def test_the_first_step_of_training_does_not_drown_the_shortcut(photographs):
    codec = diffusion(DCT, "model.max_t=0").train()
    crops = torch.stack([crop(image, 32, 32) for image in photographs]).float() / 255
    before = (codec(crops).x_hat - crops).square().mean().item()
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-4)
    (codec(crops).x_hat - crops).square().mean().backward()
    optimizer.step()
    assert (codec(crops).x_hat - crops).square().mean().item() < 2 * before


def test_a_larger_step_of_the_shortcut_makes_smaller_files(photographs):
    image = crop(photographs[0], 128, 128)
    levels = []
    for step in (0.05, 0.2):
        codec = diffusion(DCT, f"model.shortcut_step={step}")
        levels.append(codec.g_a(image[None].float() / 255)[0].detach().abs().mean().item())
    assert levels[1] < 0.5 * levels[0]
