"""The U-Net that undoes the wavelet's quantisation: where it starts, what it is told, what it learns."""

import pytest
import torch
from conftest import crop, generator, noise
from torch import Tensor

from codec.networks import Wavelet, WaveletUNet
from codec.networks.eight_bit import in_floats
from codec.networks.exact import UnusableWeightsError
from codec.networks.wavelet_unet import _as_channels, _as_pixels

STEP = 0.2


def levels_of(x: Tensor, step: float = STEP) -> tuple[Tensor, list[Tensor]]:
    """The wavelet's reconstruction of quantised `x`, and the levels."""
    wavelet = Wavelet(x.shape[1], 4)
    with torch.no_grad():
        levels = [torch.floor(tensor / step + 0.5) for tensor in wavelet.analysis(x)]
        return wavelet.synthesis([tensor * step for tensor in levels]), levels


def trained_out_of_zero(channels: int = 3) -> WaveletUNet:
    net = WaveletUNet(channels, (8, 8))
    random = generator()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=random)
    return net


@pytest.mark.parametrize("channels", [1, 3])
def test_it_starts_at_no_correction(channels: int) -> None:
    base, levels = levels_of(0.5 + 0.2 * noise(2, channels, 32, 48))
    correction = WaveletUNet(channels)(base, levels, STEP, torch.tensor([10.0, 90.0]))
    assert correction.shape == base.shape
    assert not bool(correction.any())


def test_each_level_the_quality_and_the_step_change_what_it_gives() -> None:
    net = trained_out_of_zero()
    base, levels = levels_of(0.5 + 0.2 * noise(1, 3, 32, 32))
    quality = torch.tensor([50.0])
    with torch.no_grad():
        before = net(base, levels, STEP, quality)
        assert not torch.allclose(net(base, levels, STEP, quality + 10), before, rtol=1e-4)
        torch.testing.assert_close(net(base, levels, 2 * STEP, quality), 2 * before)
        for n in (2, 3):  # coarser ones are seen in the base
            others = [tensor + (k == n) for k, tensor in enumerate(levels)]
            assert not torch.allclose(net(base, others, STEP, quality), before, rtol=1e-4), n


def test_images_of_a_batch_have_qualities_of_their_own() -> None:
    net = trained_out_of_zero()
    base, levels = levels_of(0.5 + 0.2 * noise(2, 3, 32, 32))
    quality, step = torch.tensor([20.0, 70.0]), torch.tensor([0.4, 0.1]).view(2, 1, 1, 1)
    with torch.no_grad():
        together = net(base, levels, step, quality)
        for n in range(2):
            apart = net(base[n : n + 1], [t[n : n + 1] for t in levels], step[n : n + 1], quality[n : n + 1])
            torch.testing.assert_close(together[n : n + 1], apart, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_bytes_and_floats_give_the_same_in_evaluation(photograph: Tensor) -> None:
    net = trained_out_of_zero().eval()
    base, levels = levels_of(crop(photograph, 64, 96)[None] / 255)
    for quality in (10.0, 70.0, 10.0):
        told = torch.tensor([quality])
        found = net(base, levels, STEP, told)
        with in_floats():
            assert torch.equal(net(base, levels, STEP, told), found)
    as_trained = net.train()(base, levels, STEP, told)
    assert float((found - as_trained).square().mean()) < 0.01 * float(as_trained.square().mean())


def test_a_gradient_goes_through_after_inference_mode() -> None:
    net = trained_out_of_zero().eval().requires_grad_(False)
    base, levels = levels_of(0.5 + 0.2 * noise(1, 3, 32, 32))
    with torch.inference_mode():
        found = net(base, levels, STEP, torch.tensor([50.0]))
    again = net(base.requires_grad_(), levels, STEP, torch.tensor([50.0]))
    torch.testing.assert_close(again.detach(), found.clone())
    again.sum().backward()
    assert bool(base.grad.any())


def test_weights_that_some_rate_makes_too_large_are_refused() -> None:
    net = trained_out_of_zero().eval()
    block = net.middle[0].first
    block.rounded()
    with torch.no_grad():
        block.modulation.weight[0, -1] = 1e8
    with pytest.raises(UnusableWeightsError):
        block.rounded()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_positions_as_channels_and_back(layout: torch.memory_format) -> None:
    x = noise(2, 3, 4, 6).contiguous(memory_format=layout)
    apart = _as_channels(x)
    assert apart.shape == (2, 12, 2, 3)
    assert torch.equal(apart[:, 3:6], x[:, :, ::2, 1::2])
    assert apart.is_contiguous(memory_format=layout)
    assert torch.equal(_as_pixels(apart), x)
    assert _as_pixels(apart).is_contiguous(memory_format=layout)


def test_a_few_steps_learn_to_undo_some_of_the_noise(photograph: Tensor) -> None:
    x = crop(photograph, 64, 64)[None] / 255
    base, levels = levels_of(x)
    torch.manual_seed(0)
    net = WaveletUNet(3, (16, 16))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        error = (base + net(base, levels, STEP, torch.tensor([20.0])) - x).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert float(error) < 0.9 * float((base - x).square().mean())
