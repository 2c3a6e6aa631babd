"""The comparison of priors: each learns from the latents it is given, and the page says by how much."""

import pytest
import torch
from conftest import crop
from torch import Tensor

from codec.checkpoint import load_codec, load_pretrained
from experiments.priors import (
    BITS,
    PRIORS,
    RUN_QUALITIES,
    TRANSFORM,
    beside_static,
    bottleneck_of,
    encoded,
    entropy,
    file_bits,
    page,
    trained,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def latents(photographs: list[Tensor]) -> list[Tensor]:
    codec = load_codec(TRANSFORM)
    return list(encoded(codec, [crop(image, 64, 64)[None] for image in photographs[:4]], "encoding"))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_learns_from_the_latents_it_is_given(prior: str, latents: list[Tensor]) -> None:
    before = sum(file_bits(bottleneck_of(prior, 6).eval(), y) for y in latents)
    after = sum(file_bits(trained(bottleneck_of(prior, 6), latents, 15, prior), y) for y in latents)
    assert after < 0.95 * before


def test_the_page_tells_each_prior_against_the_first() -> None:
    bpp = {(prior, bits): 1.0 - 0.1 * n for n, prior in enumerate(PRIORS) for bits in BITS}
    text = page(bpp, 7, 200, 24, ["--steps", "7"])
    assert "`python -m experiments.priors --steps 7`" in text
    assert "| channel_context | 0.7000 (-30.0 %) |" in text
    assert f"| {PRIORS[0]} | 1.0000 (+0.0 %) |" in text


def test_entropy_is_what_the_symbols_own_frequencies_take() -> None:
    assert entropy(torch.tensor([3.0, 3, 3, 3])) == 0
    assert entropy(torch.tensor([0.0, 1, 0, 1])) == 4
    assert entropy(torch.tensor([0.0, 0, 1, 2])) == pytest.approx(6)


def test_bits_of_a_run_and_of_the_best_static_prior_are_told(photographs: list[Tensor], capsys) -> None:
    beside_static(load_pretrained("diffusion_wavelet"), [crop(image, 128, 128) for image in photographs[:4]])
    lines = [line for line in capsys.readouterr().out.splitlines() if "bpp" in line]
    assert len(lines) == len(RUN_QUALITIES)
    rates = [float(line.split()[2]) for line in lines]
    assert rates == sorted(rates)
    assert all(line.endswith("%)") for line in lines)
