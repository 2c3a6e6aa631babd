"""The U-Nets of the diffusion scheme, and the convolutional blocks."""

import copy

import pytest
import torch
from conftest import generator, images, noise
from torch import Tensor, nn

from codec.networks import (
    SKIP_WIDTHS,
    ConvBlock,
    DetailDenoiser,
    ImageConv2d,
    ResidualBlock,
    UNetDecoder,
    Upsample,
    UpsamplingLayers,
)


def skips_of(height: int, width: int, batch: int = 1) -> list[tuple[Tensor, nn.Conv2d]]:
    """Of images of that size, as they are coded, and what expands them."""
    torch.manual_seed(0)
    kinds = zip((8, 2, 2), SKIP_WIDTHS, (4, 2, 2), strict=True)
    return [
        (noise(batch, few, height // stride, width // stride, seed=n), nn.Conv2d(few, wide, 1))
        for n, (few, wide, stride) in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("with_skips", "inputs"), [(True, [128, 256, 192, 128]), (False, [128, 128, 128, 64])], ids=["skips", "none"]
)
def test_the_decoder_has_the_papers_channels_at_256_by_256(with_skips, inputs):
    decoder = UNetDecoder(3, with_skips, starts_at_zero=False).eval()
    seen = []
    for module in (*decoder.up, decoder.head):
        module.register_forward_hook(lambda _, x, out: seen.append((tuple(x[0].shape[1:]), tuple(out.shape[1:]))))
    x_hat = decoder(noise(1, 128, 32, 32), skips_of(256, 256) if with_skips else [])
    assert seen == [
        ((inputs[0], 32, 32), (128, 64, 64)),
        ((inputs[1], 64, 64), (128, 128, 128)),
        ((inputs[2], 128, 128), (64, 256, 256)),
        ((inputs[3], 256, 256), (3, 256, 256)),
    ]
    assert x_hat.shape == (1, 3, 256, 256)
    for up in decoder.up:
        assert [type(layer) for layer in up] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("with_skips", [True, False])
def test_the_decoder_takes_any_multiple_of_8(with_skips, colours):
    decoder = UNetDecoder(colours, with_skips, starts_at_zero=False)
    skips = skips_of(8, 24, batch=2) if with_skips else []
    assert decoder(noise(2, 128, 1, 3), skips).shape == (2, colours, 8, 24)


def test_a_decoder_that_starts_at_zero_gives_zeros_and_learns_from_its_first_step():
    decoder = UNetDecoder(3, True, starts_at_zero=True)
    out = decoder(noise(1, 128, 2, 2), skips_of(16, 16))
    assert not bool(out.any())
    (out - 1).square().sum().backward()
    assert bool(decoder.head.weight.grad.any())
    assert bool(UNetDecoder(3, True, starts_at_zero=False)(noise(1, 128, 2, 2), skips_of(16, 16)).any())


@pytest.mark.parametrize("n", range(3))
def test_every_skip_changes_what_the_decoder_makes(n):
    decoder, y, skips = UNetDecoder(3, True, starts_at_zero=False).eval(), noise(1, 128, 2, 2), skips_of(16, 16)
    before = decoder(y, skips)
    coded, expand = skips[n]
    skips[n] = coded + 1, expand
    assert not torch.allclose(decoder(y, skips), before)


def randomised(network: DetailDenoiser) -> DetailDenoiser:
    """Nothing in it is at zero any longer."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator())
    return network


@pytest.mark.parametrize("colours", [1, 3])
def test_the_denoiser_gives_an_image_and_starts_at_zero(colours):
    network = DetailDenoiser(colours)
    x = noise(2, colours, 16, 24)
    arguments = (images(2, colours, 16, 24), torch.tensor([0.0, 1.0]), torch.tensor([10.0, 90.0]))
    out = network(x, *arguments)
    assert out.shape == x.shape
    assert not bool(out.any())
    assert bool(randomised(network)(x, *arguments).any())


def test_the_denoiser_heeds_the_noisy_detail_the_image_the_time_and_the_quality():
    network = randomised(DetailDenoiser(3, (8, 8, 8)))
    arguments = [noise(2, 3, 16, 16), images(2, 3, 16, 16), torch.tensor([0.5, 0.5]), torch.tensor([50.0, 50.0])]
    before = network(*arguments)
    for n, other in enumerate(arguments):
        changed = other.clone()
        changed[1] = 0.9 * changed[1]
        after = network(*arguments[:n], changed, *arguments[n + 1 :])
        assert not torch.allclose(after[1], before[1], atol=1e-7), n
        torch.testing.assert_close(after[0], before[0]), "an image does not depend on the rest of its batch"


def test_the_denoiser_comes_to_know_the_variance_at_each_quality():
    network = DetailDenoiser(3)
    quality = torch.tensor([0.0, 40.0, 100.0])
    assert float(network.deviation(quality).max()) < 1e-5, "nothing has been observed"
    wanted = torch.tensor([0.3, 0.2, 0.1]).view(-1, 1, 1, 1)
    for seed in range(100):
        network.observe(wanted * noise(3, 3, 32, 32, seed=seed), quality)
    torch.testing.assert_close(network.deviation(quality), wanted, rtol=0.02, atol=0)
    between = network.deviation(torch.tensor([20.0]))
    assert float(between) < 1e-5, "what is next to other qualities only has been seen at none"


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, (6, 10)), (3, 2, (3, 5)), (7, 2, (3, 5))])
def test_a_conv_block_gives_features_from_0_at_its_stride(kernel, stride, size):
    block = ConvBlock(4, 6, kernel, stride)
    assert block[0].kernel_size == (kernel, kernel)
    out = block(noise(3, 4, 6, 10))
    assert out.shape == (3, 6, *size)
    assert float(out.detach().min()) == 0
    assert float(out.detach().max()) > 1


def test_a_residual_block_whose_body_is_zero_passes_its_input_through_the_relu():
    block = ResidualBlock(6)
    nn.init.zeros_(block.body[-1].weight)
    x = noise(2, 6, 5, 7)
    torch.testing.assert_close(block(x), x.clamp(min=0))
    assert not torch.allclose(ResidualBlock(6)(x), x.clamp(min=0))


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (6, 4)])
def test_an_upsampling_residual_block_doubles_the_size_and_repeats_pixels_in_its_shortcut(inputs, outputs):
    block = ResidualBlock(inputs, outputs, upsample=True)
    nn.init.zeros_(block.body[-1].weight)
    x = noise(2, inputs, 5, 7)
    out = block(x)
    assert out.shape == (2, outputs, 10, 14)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(out, block.shortcut(repeated).clamp(min=0))


def test_a_residual_block_leaves_its_input_as_it_was_and_learns_everywhere():
    block, x = ResidualBlock(6), noise(2, 6, 5, 7)
    before = x.clone()
    block(x).square().sum().backward()
    assert torch.equal(x, before)
    assert all(bool(parameter.grad.any()) for parameter in block.parameters())


def with_statistics(network: nn.Module) -> nn.Module:
    """In float64, so that rounding shows no difference, and with BatchNorms that do something, in evaluation."""
    for n, norm in enumerate(module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean):
            tensor.copy_(noise(*tensor.shape, seed=n))
        norm.running_var.copy_(noise(*norm.running_var.shape, seed=n).exp())
    return network.double().eval()


@pytest.mark.parametrize(
    "network",
    [
        ConvBlock(3, 5, kernel=7, stride=2),
        ConvBlock(3, 5),
        ResidualBlock(3),
        ResidualBlock(3, 5, upsample=True),
        UpsamplingLayers(ConvBlock(3, 5), Upsample("nearest"), ConvBlock(5, 4), nn.Conv2d(4, 3, 1)),
        UNetDecoder(3, False, starts_at_zero=False, y_channels=3),
    ],
    ids=["stride", "block", "residual", "doubling", "layers", "decoder"],
)
def test_without_a_gradient_batch_norm_is_a_part_of_the_convolution_and_changes_nothing(network):
    network, x = with_statistics(network), images(2, 3, 8, 12).double()
    names, weights = list(network.state_dict()), [tensor.clone() for tensor in network.state_dict().values()]
    as_trained = network(x)
    with torch.no_grad():
        torch.testing.assert_close(network(x), as_trained.detach(), atol=1e-12, rtol=0)
    assert list(network.state_dict()) == names
    assert all(map(torch.equal, network.state_dict().values(), weights))


@pytest.mark.parametrize("training", [True, False])
def test_upsampling_and_the_convolution_after_it_are_one_that_learns_alike(training):
    fused = with_statistics(UpsamplingLayers(Upsample("nearest"), ConvBlock(3, 4))).train(training)
    apart = nn.Sequential(*copy.deepcopy(fused))
    x = images(2, 3, 5, 7).double().requires_grad_()
    both = fused(x), apart(x)
    torch.testing.assert_close(*both, atol=1e-12, rtol=0)
    weights = fused[1][0].weight, apart[1][0].weight
    gradients = [torch.autograd.grad(out.square().sum(), [x, w]) for out, w in zip(both, weights, strict=True)]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-9, rtol=0)


def test_a_block_that_trains_counts_its_statistics_with_and_without_a_gradient():
    block = ConvBlock(3, 4)
    with torch.no_grad():
        block(images(2, 3, 8, 8))
    assert block[1].num_batches_tracked == 1


@pytest.mark.parametrize("training", [True, False])
def test_without_a_gradient_expanding_the_skips_is_a_part_of_the_convolutions_after_them(training):
    decoder = with_statistics(UNetDecoder(3, True, starts_at_zero=False)).train(training)
    y, skips = noise(2, 128, 2, 3).double(), [(c.double(), e.double()) for c, e in skips_of(16, 24, batch=2)]
    as_trained = decoder(y, skips)
    with torch.no_grad():
        torch.testing.assert_close(decoder(y, skips), as_trained.detach(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("colours", [1, 3])
def test_without_a_gradient_the_pixels_of_2_by_2_are_made_at_once_and_are_the_same(colours):
    torch.manual_seed(0)
    conv, x = ImageConv2d(5, colours).double(), noise(2, 5, 6, 8).double()
    with torch.no_grad():
        torch.testing.assert_close(conv(x), nn.Conv2d.forward(conv, x), atol=1e-12, rtol=0)
