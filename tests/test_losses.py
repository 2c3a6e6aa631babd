"""The training loss: its parts by hand, its refusals, and the VGG term with and without a server of weights."""

import socket

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
from torchmetrics.image import StructuralSimilarityIndexMeasure
from weights_server import Executes, write_weights

from codec.checkpoint import build_codec
from codec.losses import RateDistortionLoss, VGGPerceptual

pytest_plugins = "weights_server"

MODEL = {
    "_target_": "codec.schemes.conv_autoencoder.ConvBaseline",
    "image_channels": 3,
    "widths": [8, 8],
    "latent_channels": 4,
    "bottleneck": {
        "_target_": "codec.entropy.EntropyBottleneck",
        "_partial_": True,
        "bits": 4,
        "noise": "uniform",
        "prior": {"_target_": "codec.entropy.FactorizedPrior", "_partial_": True, "filters": [3]},
    },
}


@pytest.fixture(scope="module")
def vgg() -> VGGPerceptual:
    return VGGPerceptual(["relu1_2", "relu2_2"], pretrained=False)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# ---- rate and distortion


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_hat, bits, x of two images of 2 x 4 pixels whose squared errors are 0.25 and 0.01."""
    x = torch.full((2, 3, 2, 4), 0.5)
    x_hat = x + torch.tensor([0.5, -0.1]).reshape(2, 1, 1, 1)
    return x_hat, torch.tensor([16.0, 48.0]), x


def test_the_terms_are_those_computed_by_hand():
    terms = RateDistortionLoss(mse_weight=2.0, rate_weight=0.1)(*batch())
    assert float(terms.distortion) == pytest.approx(2 * (0.25 + 0.01) / 2)
    assert float(terms.bpp) == pytest.approx((16 + 48) / 2 / 8)
    assert float(terms.total) == pytest.approx(0.26 + 0.1 * 4)
    assert float(terms.loss) == float(terms.total)


def test_bpp_counts_pixels_and_not_channels():
    x = torch.zeros(1, 1, 5, 7)
    assert float(RateDistortionLoss()(x, torch.tensor([70.0]), x).bpp) == pytest.approx(2)
    x = x.expand(-1, 3, -1, -1)
    assert float(RateDistortionLoss()(x, torch.tensor([70.0]), x).bpp) == pytest.approx(2)


def test_with_rate_weight_0_the_total_is_the_distortion_and_the_prior_is_fitted_all_the_same():
    terms = RateDistortionLoss(rate_weight=0)(*batch())
    assert float(terms.total) == float(terms.distortion) == pytest.approx(0.13)
    assert float(terms.loss) == pytest.approx(0.13 + 4)


def test_the_loss_pulls_on_the_image_and_on_the_bits():
    x_hat, bits, x = batch()
    x_hat.requires_grad_()
    bits.requires_grad_()
    RateDistortionLoss(rate_weight=0.5)(x_hat, bits, x).loss.backward()
    torch.testing.assert_close(x_hat.grad, 2 * (x_hat - x).detach() / x.numel())
    torch.testing.assert_close(bits.grad, torch.full((2,), 0.5 / 2 / 8))


def test_half_precision_images_are_compared_in_full_precision():
    x = images(1, 3, 8, 8)
    terms = RateDistortionLoss()(x.bfloat16(), torch.tensor([1.0]), x)
    assert terms.loss.dtype == torch.float32
    assert float(terms.distortion) == float((x.bfloat16().float() - x).square().mean())


@pytest.mark.parametrize("name", ["mse_weight", "ssim_weight", "vgg_weight", "rate_weight"])
@pytest.mark.parametrize("value", [-1, -1e-9, float("nan")])
def test_a_weight_below_zero_or_nan_is_named_with_its_value_and_what_is_allowed(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value}: allowed are numbers from 0$"):
        RateDistortionLoss(**{name: value})


def test_nothing_to_minimise_is_refused():
    with pytest.raises(
        ValueError, match="mse_weight=0: of this, ssim_weight, vgg_weight and rate_weight one must be positive"
    ):
        RateDistortionLoss(mse_weight=0)


def test_a_vgg_weight_without_vgg_says_what_to_choose():
    with pytest.raises(ValueError, match=r"vgg_weight=1.*loss=mse_vgg"):
        RateDistortionLoss(vgg_weight=1)


def test_the_vgg_term_is_added_by_its_weight(vgg):
    x_hat, x = images(2, 3, 16, 16), images(2, 3, 16, 16, seed=1)
    mse, perceptual = float((x_hat - x).square().mean()), float(vgg(x_hat, x))
    terms = RateDistortionLoss(mse_weight=3, vgg_weight=5, perceptual=vgg)(x_hat, torch.zeros(2), x)
    assert float(terms.distortion) == pytest.approx(3 * mse + 5 * perceptual)
    alone = RateDistortionLoss(mse_weight=0, vgg_weight=5, perceptual=vgg)(x_hat, torch.zeros(2), x)
    assert float(alone.distortion) == pytest.approx(5 * perceptual)


# ---- the SSIM term


def ssim(x_hat: torch.Tensor, x: torch.Tensor) -> float:
    return float(StructuralSimilarityIndexMeasure(data_range=1.0)(x_hat, x))


def test_one_minus_ssim_is_added_by_its_weight():
    x = images(2, 3, 24, 32)
    x_hat = 0.7 * x + 0.3 * images(2, 3, 24, 32, seed=1)
    mse = float((x_hat - x).square().mean())
    assert 0 < ssim(x_hat, x) < 1
    both = RateDistortionLoss(mse_weight=3, ssim_weight=5)(x_hat, torch.zeros(2), x)
    assert float(both.distortion) == pytest.approx(3 * mse + 5 * (1 - ssim(x_hat, x)))
    alone = RateDistortionLoss(mse_weight=0, ssim_weight=1)(x_hat, torch.zeros(2), x)
    assert float(alone.total) == pytest.approx(1 - ssim(x_hat, x))
    assert float(RateDistortionLoss(ssim_weight=1)(x, torch.zeros(2), x).total) == pytest.approx(0, abs=1e-6)


def test_a_step_down_the_ssim_terms_gradient_makes_the_images_more_alike():
    x = images(1, 3, 24, 24)
    x_hat = images(1, 3, 24, 24, seed=1).requires_grad_()
    RateDistortionLoss(mse_weight=0, ssim_weight=1)(x_hat, torch.zeros(1), x).loss.backward()
    assert bool(torch.isfinite(x_hat.grad).all())
    step = 0.1 * x_hat.grad / x_hat.grad.abs().max()
    assert ssim((x_hat - step).detach(), x) > ssim(x_hat.detach(), x)


def test_several_scales_are_ms_ssim_with_these_exponents():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 120, 120)
    x_hat = (x + 0.1 * torch.randn_like(x)).clamp(0, 1)
    exponents = (0.4, 0.2, 0.2, 0.2)
    loss = RateDistortionLoss(mse_weight=0, ssim_weight=2, ssim_scales=exponents)
    expected = multiscale_structural_similarity_index_measure(x_hat, x, data_range=1.0, betas=exponents)
    assert float(loss(x_hat, torch.zeros(1), x).distortion) == pytest.approx(2 * (1 - float(expected)), rel=1e-4)
    assert float(RateDistortionLoss(mse_weight=0, ssim_weight=2)(x_hat, torch.zeros(1), x).distortion) > 0
    with pytest.raises(ValueError, match=r"ssim_scales=\[\]: allowed are one to five numbers above 0"):
        RateDistortionLoss(ssim_weight=1, ssim_scales=())


def test_ssim_is_computed_in_full_precision_under_autocast():
    """Of a nearly flat image bf16 leaves nothing of the variances."""
    x = 0.5 + 0.01 * images(1, 3, 24, 24)
    gradients = []
    for enabled in (False, True):
        x_hat = (0.5 + 0.01 * images(1, 3, 24, 24, seed=1)).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            terms = RateDistortionLoss(mse_weight=0, ssim_weight=1)(x_hat, torch.zeros(1), x)
        assert terms.loss.dtype == torch.float32
        assert terms.distortion.item() == pytest.approx(1 - ssim(x_hat.detach(), x), rel=1e-6)
        terms.loss.backward()
        gradients.append(x_hat.grad)
    assert torch.equal(*gradients)


# ---- the perceptual term


def test_random_features_are_the_same_every_time_and_leave_the_random_state_alone(vgg):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = VGGPerceptual(["relu1_2", "relu2_2"], pretrained=False)
    assert torch.equal(torch.get_rng_state(), state)
    x_hat, x = images(1, 3, 16, 16), images(1, 3, 16, 16, seed=1)
    assert float(again(x_hat, x)) == float(vgg(x_hat, x))


def test_equal_images_are_at_distance_zero_and_a_worse_one_is_farther(vgg):
    x = images(1, 3, 16, 16)
    noise = images(1, 3, 16, 16, seed=1) - 0.5
    assert float(vgg(x, x)) == 0
    assert 0 < float(vgg(x + 0.1 * noise, x)) < float(vgg(x + 0.5 * noise, x))


def test_the_term_is_the_mean_over_layers_of_the_squared_difference_of_features(vgg):
    x_hat, x = images(2, 3, 16, 16), images(2, 3, 16, 16, seed=1)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
    relu1_2, relu2_2 = vgg.features[:4], vgg.features[:9]
    assert [type(vgg.features[n]) for n in (2, 3, 7, 8)] == [nn.Conv2d, nn.ReLU] * 2
    terms = [(part((x_hat - mean) / std) - part((x - mean) / std)).square().mean() for part in (relu1_2, relu2_2)]
    torch.testing.assert_close(vgg(x_hat, x), torch.stack(terms).mean())


def test_greyscale_is_seen_as_three_equal_channels(vgg):
    x_hat, x = images(2, 1, 16, 16), images(2, 1, 16, 16, seed=1)
    assert float(vgg(x_hat, x)) == float(vgg(x_hat.repeat(1, 3, 1, 1), x.repeat(1, 3, 1, 1)))


def test_the_gradient_reaches_the_reconstruction_and_not_the_features(vgg):
    x_hat = images(1, 3, 16, 16).requires_grad_()
    vgg(x_hat, images(1, 3, 16, 16, seed=1)).backward()
    assert bool(torch.isfinite(x_hat.grad).all())
    assert float((x_hat.grad != 0).float().mean()) > 0.9
    assert all(parameter.grad is None for parameter in vgg.features.parameters())


def test_the_features_are_no_part_of_a_codecs_state_or_parameters(vgg):
    codec = build_codec(MODEL)
    before = set(codec.state_dict()), sum(1 for _ in codec.parameters())
    codec.prepare_training(RateDistortionLoss(vgg_weight=1, perceptual=vgg), torch.optim.Adam)
    assert (set(codec.state_dict()), sum(1 for _ in codec.parameters())) == before
    assert not isinstance(vgg, nn.Module)


@pytest.mark.parametrize("layers", [[], ["relu9_9"], ["relu1_2", "conv1"]])
def test_an_unknown_layer_is_refused_with_those_there_are(layers):
    with pytest.raises(
        ValueError, match=r"layers=.*allowed are lists of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3"
    ):
        VGGPerceptual(layers, pretrained=False)


# ---- pretrained weights


def some_weights() -> dict[str, torch.Tensor]:
    """Like torchvision's file: the features, and a classifier that is not wanted."""
    shapes = {"0.weight": (64, 3, 3, 3), "0.bias": (64,), "2.weight": (64, 64, 3, 3), "2.bias": (64,)}
    features = {f"features.{name}": images(*shape, seed=3) for name, shape in shapes.items()}
    return {**features, "classifier.0.weight": torch.ones(3)}


def pretrained(url: str) -> VGGPerceptual:
    return VGGPerceptual(["relu1_2"], pretrained=True, url=url)


def refusal(url: str) -> str:
    with pytest.raises(ValueError, match=r"^pretrained=true: ") as caught:
        pretrained(url)
    text = str(caught.value)
    assert "\n" not in text
    assert url in text
    assert "pretrained=false" in text, "does not say what to type instead"
    return text


def test_pretrained_weights_are_fetched_once(server, hub):
    state = some_weights()
    name = write_weights(server.folder, state)
    for _ in range(2):
        perceptual = pretrained(f"{server.url}/{name}")
        for key, value in perceptual.features.state_dict().items():
            assert torch.equal(value, state[f"features.{key}"])
    assert server.asked_for == [f"/{name}"]
    assert (hub / name).is_file()


def test_weights_laid_into_the_cache_need_no_server(server, hub):
    name = write_weights(hub, some_weights())
    pretrained(f"{server.url}/{name}")
    assert server.asked_for == []


def test_weights_whose_hash_is_not_that_of_their_name_are_refused_and_not_kept(server, hub):
    name = write_weights(server.folder, some_weights(), digest="deadbeef")
    assert "deadbeef" in refusal(f"{server.url}/{name}")
    assert list(hub.iterdir()) == []


def test_a_server_without_the_file_is_reported_in_one_line(server, hub):
    assert "404" in refusal(f"{server.url}/weights-deadbeef.pth")


def test_no_server_is_reported_in_one_line_that_says_what_to_do(hub):
    with socket.socket() as closed:  # bound and never listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        text = refusal(f"http://127.0.0.1:{closed.getsockname()[1]}/weights-deadbeef.pth")
    assert str(hub) in text
    assert "refused" in text


def test_a_damaged_file_in_the_cache_is_reported_in_one_line(server, hub):
    """torch.hub checks the hash of what it downloads, never of what it finds."""
    name = write_weights(hub, some_weights())
    (hub / name).write_bytes((hub / name).read_bytes()[:1000])
    refusal(f"{server.url}/{name}")
    (hub / name).write_text("<html>please log in</html>\n")
    refusal(f"{server.url}/{name}")


def test_weights_of_another_network_are_reported_in_one_line(server, hub):
    refusal(f"{server.url}/{write_weights(server.folder, {'conv.weight': torch.ones(2)})}")
    refusal(f"{server.url}/{write_weights(server.folder, {name: torch.ones(2) for name in some_weights()})}")


def test_a_weights_file_that_executes_code_is_refused_and_not_executed(server, hub, tmp_path):
    witness = tmp_path / "executed"
    refusal(f"{server.url}/{write_weights(server.folder, Executes(witness))}")
    assert not witness.exists()
