"""The comparison of priors: each learns from the latents it is given, and the page says by how much."""

import pytest
from conftest import crop
from torch import Tensor

from codec.checkpoint import load_codec
from experiments.priors import BITS, PRIORS, TRANSFORM, bottleneck_of, encoded, file_bits, page, trained

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
