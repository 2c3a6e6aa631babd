"""What an encoder may do for a smaller file: better levels than the nearest, in the same format."""

import math

import pytest
import torch
from conftest import composed, crop, make_codec
from torch import Tensor

from codec.checkpoint import load_codec
from codec.effort import Cost, _worth_of_levels
from codec.errors import EncodeError
from codec.learned_codec import LearnedCodec
from codec.training.config import Builder
from experiments.priors import TRANSFORM

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def fitted(photograph: Tensor) -> LearnedCodec:
    """A wavelet codec of all rates, whose prior has just been fitted, so that it predicts well."""
    torch.manual_seed(0)
    with Builder(composed("train", ["experiment=diffusion_wavelet"])) as build:
        codec = build.codec("model")
    codec.fit_priors([crop(photograph, 96, 96)[None], crop(photograph.flip(2), 96, 96)[None]])
    return codec.eval()


def cost(codec: LearnedCodec, image: Tensor, effort: int, quality: float) -> tuple[int, float]:
    """Bytes and squared error."""
    codec.set_quality(quality)
    codec.set_effort(effort)
    data = codec.encode(image)
    return len(data), float(((codec.decode(data).float() - image.float()) / 255).square().sum())


@pytest.mark.parametrize("quality", [20, 50, 80])
def test_optimised_levels_are_worth_what_they_cost(
    fitted: LearnedCodec, photograph: Tensor, quality: float
) -> None:
    image = crop(photograph, 96, 128)
    size, error = cost(fitted, image, 0, quality)
    smaller, larger_error = cost(fitted, image, 1, quality)
    assert smaller < 0.97 * size
    assert larger_error > error
    # Plain rounding of a coarser quality with as few bytes has a greater error.
    coarser = next(q for q in torch.arange(quality, 0, -0.5).tolist() if cost(fitted, image, 0, q)[0] <= smaller)
    assert larger_error < 0.99 * cost(fitted, image, 0, coarser)[1]


def test_a_variable_rate_is_optimised_by_default(fitted: LearnedCodec, photograph: Tensor) -> None:
    image = crop(photograph, 64, 64)
    fitted.set_quality(50)
    fitted.set_effort(1)
    optimised = fitted.encode(image)
    fitted.effort = None
    assert fitted.encode(image) == optimised


def test_further_effort_costs_no_more_than_it_gains(photograph: Tensor) -> None:
    """Under a decoder that is not linear, levels are moved by gradients, and only where that is better."""
    codec = load_codec(TRANSFORM)
    image = crop(photograph, 96, 128)
    files = {}
    for effort in (0, 1, 4):
        codec.set_effort(effort)
        files[effort] = codec.encode(image)
    errors = {e: float(((codec.decode(f).float() - image.float()) / 255).square().sum()) for e, f in files.items()}
    assert files[4] != files[1]
    assert errors[4] < errors[1]
    # Bytes buy more than between the files of chosen levels and of rounded ones.
    bought = (len(files[4]) - len(files[1])) / (len(files[0]) - len(files[1]))
    assert errors[4] < errors[1] + bought * (errors[0] - errors[1])


@pytest.mark.parametrize("prior", ["factorized", "hyperprior", "checkerboard", "channel_context"])
def test_every_prior_tells_the_bits_of_what_was_chosen(prior: str, photograph: Tensor) -> None:
    torch.manual_seed(0)
    with Builder(composed("train", ["model=diffusion", "model.shortcut=dct", f"prior={prior}"])) as build:
        codec = build.codec("model").eval()
    image = crop(photograph, 64, 64)
    for effort in (0, 1, 2):
        codec.set_effort(effort)
        size = 8 * len(codec.encode(image))
        assert size == pytest.approx(codec.estimated_bits(image), rel=0.02, abs=8 * 60)


@pytest.mark.parametrize(
    ("prior", "written"), [("factorized", True), ("channel_context", True), ("hyperprior", False)]
)
def test_choosing_levels_writes_their_section_unless_side_information_follows_from_them(
    prior: str, written: bool, photograph: Tensor
) -> None:
    torch.manual_seed(0)
    overrides = ["model=diffusion", "model.shortcut=dct", f"prior={prior}", "bottleneck.variable_rate=true"]
    with Builder(composed("train", overrides)) as build:
        codec = build.codec("model").eval()
    bottleneck, quality = codec.bottleneck, torch.tensor([30.5])
    with torch.no_grad():
        targets = bottleneck.exact_levels(codec.latent(codec.prepared(crop(photograph, 64, 64))), quality)
        worth = [torch.full((1, tensor.shape[1], 1, 1), 4.0) for tensor in targets]
        levels, section = bottleneck.choose_and_compress([t.clone() for t in targets], worth, quality)
        assert any(not torch.equal(level, torch.floor(t + 0.5)) for level, t in zip(levels, targets, strict=True))
        again = bottleneck.compress(bottleneck.dequantised(levels, quality), quality)
    assert section == (again if written else None)


@pytest.mark.parametrize("effort", [0, 1, 2])
def test_a_latent_of_no_use_is_refused_whatever_the_effort(effort: int, photograph: Tensor) -> None:
    with Builder(composed("train", ["experiment=diffusion_wavelet", "model.decoder=none"])) as build:
        codec = build.codec("model").eval()
    torch.nn.init.constant_(codec.shortcut.to_colours, torch.nan)
    codec.set_effort(effort)
    with pytest.raises(EncodeError, match="nan"):
        codec.encode(crop(photograph, 64, 64))
    assert math.isnan(codec.estimated_bits(crop(photograph, 64, 64)))


@pytest.mark.parametrize("effort", [1, 2])
def test_inference_mode_changes_no_file(fitted: LearnedCodec, photograph: Tensor, effort: int) -> None:
    fitted.set_quality(40)
    fitted.set_effort(effort)
    image = crop(photograph, 64, 64)
    with torch.inference_mode():
        data = fitted.encode(image)
    assert fitted.encode(image) == data


@pytest.mark.parametrize("quality", [23.0, 37.0])
def test_no_level_is_chosen_that_a_bounded_latent_has_not(quality: float) -> None:
    overrides = ["model=diffusion", "model.shortcut=dct", "model.skips=none", "bottleneck.variable_rate=true"]
    with Builder(composed("train", overrides)) as build:
        bottleneck = build.codec("model").eval().bottleneck
    of, cheap = torch.tensor([quality]), [torch.full((1, 1, 1, 1), 1e-3)]
    for end in (-0.5, 0.5):
        targets = bottleneck.exact_levels([torch.full((1, 128, 2, 2), end)], of)
        (chosen,) = bottleneck.choose(targets, cheap, of)
        (again,) = bottleneck.exact_levels(bottleneck.dequantised([chosen], of), of)
        assert torch.equal(torch.floor(again + 0.5), chosen)


def test_what_a_level_is_worth_is_asked_of_the_transform_where_the_latent_is_its_alone() -> None:
    options = ("model.widths=[8,8,8]", "bottleneck.variable_rate=true", "prior=channel_context")
    codec = make_codec("conv_baseline_dct", overrides=options)
    exact, quality = [torch.randn(1, 128, 32, 32)], torch.tensor([50.0])
    (before,) = _worth_of_levels(codec, exact, quality)
    with torch.no_grad():
        for parameter in codec.decoder.parameters():
            parameter.normal_()
    assert torch.equal(_worth_of_levels(codec, exact, quality)[0], before)
    skips = make_codec("diffusion", overrides=("model.shortcut=dct",))
    assert skips.by_transform([tensor.clone() for tensor in skips.g_a(torch.rand(1, 3, 64, 64))]) is None


def test_what_has_no_latent_of_its_own_has_no_effort() -> None:
    with Builder(composed("train", ["model=lossless_unet"])) as build:
        codec = build.codec("model")
    with pytest.raises(ValueError, match="effort=1"):
        codec.set_effort(1)


@pytest.mark.parametrize("name", ["wavelet", "dct"])
def test_a_large_picture_s_cost_and_its_gradient_are_those_of_the_whole(
    name: str, fitted: LearnedCodec, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, quality = (fitted, torch.tensor([50.0])) if name == "wavelet" else (load_codec(TRANSFORM), None)
    if codec.qualities is not None and quality is None:
        quality = torch.tensor([50.0])
    x = codec.prepared(crop(photograph, 320, 480))
    with codec._coding():
        exact = codec.exact_levels(lambda part: part.of(x, x.shape[-2:]), x.shape[-2:], quality)
        levels = [torch.floor(tensor + 0.5) for tensor in exact]
        cost = Cost(codec, lambda part: part.of(x, x.shape[-2:]), quality, torch.tensor(0.01))
        expected, slopes = cost.with_slopes(levels)
        monkeypatch.setattr("codec.effort.LARGEST", 128)
        assert len(list(cost._terms(x.shape[-2:]))) > 8
        found, found_slopes = cost.with_slopes(levels)
        assert float(cost.of(levels)) == pytest.approx(float(found), rel=1e-5)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    for mine, whole in zip(found_slopes, slopes, strict=True):
        assert bool(whole.any())
        torch.testing.assert_close(mine, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
