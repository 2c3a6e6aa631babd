"""Layers of codes: nearly what layers of floats give, and the same whether codes are bytes or floats."""

import copy
from collections.abc import Callable

import pytest
import torch
from conftest import generator, noise
from torch import Tensor, nn

from codec.networks import ConvBlock, ImageConv2d, MaxPool, ResidualBlock, Upsample, UpsamplingLayers
from codec.networks.coded import Coded, as_floats
from codec.networks.eight_bit import ExactWeights, in_floats, takes_bytes
from codec.networks.unet import UNetDecoder

Layer = Callable[[Coded | Tensor], Coded | Tensor]


def used(module: nn.Module, *shape: int) -> nn.Module:
    """With weights at random, and BatchNorm's statistics as of what it has seen."""
    random = generator(3)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1 and "weight" in name:
            nn.init.uniform_(parameter, 0.5, 1.5, generator=random)
        else:
            nn.init.normal_(
                parameter, std=0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5, generator=random
            )
    with torch.no_grad():
        for _ in range(60):
            module(torch.rand(4, *shape, generator=random))
    return module.eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvBlock(8, 24),
        lambda: ConvBlock(8, 16, kernel=7, stride=2),
        lambda: nn.Sequential(ConvBlock(8, 16), MaxPool(), ConvBlock(16, 16)),
        lambda: nn.Sequential(Upsample("bilinear"), ConvBlock(8, 16)),
        lambda: UpsamplingLayers(Upsample("nearest"), ConvBlock(8, 16), ConvBlock(16, 8)),
        lambda: ResidualBlock(8),
        lambda: ResidualBlock(8, 24, upsample=True),
        lambda: nn.Sequential(ResidualBlock(8, 16), ResidualBlock(16)),
        lambda: nn.Sequential(ConvBlock(8, 16), ImageConv2d(16, 3)),
        lambda: UNetDecoder(3, with_skips=False, starts_at_zero=False, y_channels=8),
    ],
)
@torch.no_grad()
def test_codes_give_nearly_what_floats_give(make: Callable[[], nn.Module]) -> None:
    module = used(make(), 8, 12, 16)
    x = torch.rand(1, 8, 12, 16, generator=generator(1))
    codes = Coded.unsigned(x, 1.0)
    wanted = module(as_floats(codes))
    coded = module(codes)
    found = as_floats(coded)
    assert found.shape == wanted.shape
    error, size = (found - wanted).square().mean().sqrt(), wanted.square().mean().sqrt()
    assert float(error) < 0.05 * float(size)
    with in_floats():
        assert torch.equal(as_floats(module(Coded.unsigned(x, 1.0))), found)


@torch.no_grad()
def test_a_batch_and_other_units_are_coded_as_alone() -> None:
    module = used(ConvBlock(6, 8), 6, 8, 8)
    x = torch.rand(2, 6, 8, 8, generator=generator(2))
    together = as_floats(module(Coded.unsigned(x, 1.0)))
    other = as_floats(module(Coded.unsigned(x, 2.0)))
    assert torch.equal(as_floats(module(Coded.unsigned(x[1:], 1.0))), together[1:])
    assert not torch.equal(other, together)
    torch.testing.assert_close(other, together, atol=0.1, rtol=0)


@torch.no_grad()
def test_signed_features_are_two_codes_each_and_join_others() -> None:
    x, image = torch.rand(1, 5, 6, 8, generator=generator(1)), 0.5 * noise(1, 3, 6, 8)
    module = used(ConvBlock(8, 16), 8, 6, 8)
    joined = Coded.joined([Coded.unsigned(x, 1.0), Coded.signed(image, 1.0)])
    assert joined.codes.shape == (1, 11, 6, 8)
    assert joined.of.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7]
    wanted = module(torch.cat([x, image.clamp(-1, 1)], 1))
    torch.testing.assert_close(as_floats(module(joined)), wanted, atol=0.1, rtol=0)


@pytest.mark.parametrize("make", [lambda: ResidualBlock(8), lambda: ResidualBlock(8, 16, upsample=True)])
@torch.no_grad()
def test_a_shortcut_takes_signed_features(make: Callable[[], nn.Module]) -> None:
    x = 0.5 * noise(1, 8, 6, 8)
    module = used(make(), 8, 6, 8)
    wanted = module(x)
    found = as_floats(module(Coded.signed(x, 2.0)))
    assert float((found - wanted).square().mean()) < 0.005 * float(wanted.square().mean())


@torch.no_grad()
def test_a_channel_that_is_never_above_zero_is_coded_as_such() -> None:
    module, x = used(ConvBlock(4, 8), 4, 8, 8), torch.rand(1, 4, 8, 8, generator=generator(5))
    module[1].bias[0] = -50.0
    found = as_floats(module(Coded.unsigned(x, 1.0)))
    assert not bool(found[:, 0].any())
    torch.testing.assert_close(found, module(x), atol=0.1, rtol=0)


@torch.no_grad()
def test_what_is_kept_is_of_the_very_codes() -> None:
    module, x = used(ConvBlock(4, 8), 4, 8, 8), torch.rand(1, 4, 8, 8, generator=generator(5))
    codes = Coded.unsigned(x, 1.0)
    wanted = as_floats(module(codes))
    others = codes._replace(codes=codes.codes.flip(1), of=codes.of.flip(0))
    assert torch.equal(as_floats(module(others)), wanted)
    for reach in (1.5, 2.0, 2.5, 3.0, 1.0):
        found = as_floats(module(Coded.unsigned(x, reach)))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("largest", [126.2, 126.8, 127.0])
def test_no_weight_is_rounded_twice(largest: float) -> None:
    weight = torch.rand(4, 16, 3, 3, generator=generator(7)) * 100 / 128
    weight[:, 0, 0, 0] = largest / 128
    rounded = ExactWeights(weight, torch.zeros(4), torch.zeros(16)).weight
    step = 1 / 128 if largest < 126.5 else 1 / 64
    assert float((rounded - weight).square().mean().sqrt()) < 0.31 * step


@torch.no_grad()
def test_what_rounding_takes_from_weights_is_given_to_the_bias() -> None:
    random = generator(4)
    weight, bias = torch.randn(16, 3, 3, 3, generator=random), torch.zeros(16)
    mean = torch.full((3,), 127.5)
    x = torch.full((1, 3, 9, 9), 127.0)
    wanted = nn.functional.conv2d(x, weight, bias)
    errors = [
        float((ExactWeights(weight, bias, means).sums(x) - wanted).abs().mean()) for means in (mean, 0 * mean)
    ]
    assert errors[0] < 0.1 * errors[1]


@torch.no_grad()
def test_weights_that_change_are_coded_anew() -> None:
    module, x = used(ConvBlock(4, 8), 4, 8, 8), torch.rand(1, 4, 8, 8, generator=generator(5))
    before = as_floats(module(Coded.unsigned(x, 1.0)))
    assert torch.equal(as_floats(copy.deepcopy(module)(Coded.unsigned(x, 1.0))), before)
    module[0].weight.mul_(1.5)
    assert not torch.equal(as_floats(module(Coded.unsigned(x, 1.0))), before)
    module[1].running_mean.add_(1.0)
    after = as_floats(module(Coded.unsigned(x, 1.0)))
    torch.testing.assert_close(after, module(x), atol=0.1, rtol=0)


def test_features_have_bytes_where_those_are_convolved() -> None:
    with torch.no_grad():
        codes = Coded.unsigned(torch.rand(1, 4, 8, 8), 1.0).codes
        assert (codes.dtype == torch.uint8) == takes_bytes(codes.device)
        with in_floats():
            assert Coded.unsigned(torch.rand(1, 4, 8, 8), 1.0).codes.dtype == torch.float32
    assert not takes_bytes(torch.device("cpu"))  # with gradients
