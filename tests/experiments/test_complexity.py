"""experiments.release.complexity counts what can be counted by hand."""

import pytest
import torch
from cli_files import NARROW
from conftest import crop, make_codec
from torch import Tensor

from codec.learned_codec import LearnedCodec
from experiments.release.complexity import Complexity, as_large_as_kodak, complexity

# Channels times kernel of each convolution, at the share of pixels where it is computed. What is upsampled first is
# multiplied by sums of weights: a pixel meets 2×2 of them. The last convolution makes 2×2 pixels of 4×4 at once,
# unless there are gradients.
ENCODER = 3 * 8 * 9 + 8 * 8 * 9 / 4 + 8 * 4 / 16
BEFORE_THE_LAST = 4 * 8 * 4 / 4 + 8 * 8 * 4
DECODER = BEFORE_THE_LAST + 8 * 3 * 16
WITH_GRADIENTS = BEFORE_THE_LAST + 8 * 3 * 9


@pytest.fixture
def codec(photograph: Tensor) -> LearnedCodec:
    codec = make_codec("conv_baseline", overrides=NARROW)
    codec.encode(crop(photograph))  # makes the coding tables, which trained codecs have
    return codec


@pytest.mark.parametrize("size", [(64, 64), (64, 128)])
def test_multiply_adds_a_pixel_are_those_of_the_convolutions(
    size: tuple[int, int], codec: LearnedCodec, photograph: Tensor
) -> None:
    parameters = sum(parameter.numel() for parameter in codec.parameters())
    assert complexity(codec, crop(photograph, *size)) == Complexity(parameters, ENCODER, DECODER)


def test_a_search_for_levels_adds_its_look_through_the_decoder(codec: LearnedCodec, photograph: Tensor) -> None:
    codec.set_effort(1)
    found = complexity(codec, crop(photograph, 64, 128))
    # There and back, where the way back to the levels leaves weights out.
    assert (found.encode_macs, found.decode_macs) == (ENCODER + 2 * WITH_GRADIENTS, DECODER)


def test_a_small_photograph_is_mirrored_and_a_large_one_cut(photograph: Tensor) -> None:
    image = as_large_as_kodak(photograph)
    assert image.shape == (3, 512, 768)
    assert torch.equal(image[:, :300, :451], photograph)
    assert torch.equal(image[:, 300:, :451], photograph.flip(1)[:, 1:213])
    large = torch.arange(600 * 800).remainder(256).byte().view(1, 600, 800)
    assert torch.equal(as_large_as_kodak(large), large[:, :512, :768])
