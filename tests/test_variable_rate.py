"""What is special to the training of one model for all rates."""

import pytest
import torch
from conftest import composed, images
from torch import Tensor

from codec.learned_codec import LearnedCodec
from codec.training.config import Builder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def codec() -> LearnedCodec:
    torch.manual_seed(0)
    with Builder(composed("train", ["experiment=diffusion_wavelet"])) as build:
        return build.codec("model").train()


def gradients(codec: LearnedCodec, loss: Tensor) -> list[Tensor]:
    weights = [codec.decoder.head.weight, codec.bottleneck.prior.tables.shape, codec.bottleneck.gains[2]]
    return torch.autograd.grad(loss, weights)


def test_every_image_counts_relative_to_its_error_and_a_bit_as_the_squared_step(codec: LearnedCodec) -> None:
    x = torch.cat([images(1, 3, 64, 64), 0.5 + 0.01 * images(1, 3, 64, 64)])
    torch.manual_seed(1)
    x_hat, bits = codec(x)
    errors = (x_hat - x).square().mean((1, 2, 3))
    trained = gradients(codec, errors.sum() + 1e-7 * sum(bits.values()).sum())

    torch.manual_seed(1)
    quality = 100 * torch.rand(2)
    y_hat, bits = codec.analyse(x, quality)
    error = (codec.g_s(y_hat, quality) - x).square().mean((1, 2, 3))
    worth = codec.bottleneck.relative_step(quality).flatten() ** 2
    expected = gradients(codec, ((error + 1e-7 * worth * sum(bits.values())) / error.detach()).sum())
    torch.testing.assert_close(errors, error)
    for of_training, wanted in zip(trained, expected, strict=True):
        assert bool(wanted.any())
        torch.testing.assert_close(of_training, wanted, rtol=1e-3, atol=1e-6 * float(wanted.abs().max()))
