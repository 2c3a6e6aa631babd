"""The wavelet pyramid: inverse, energy, sizes, and what its groups say."""

import pytest
import torch
from conftest import generator
from torch import Tensor

from codec.networks.wavelet import Wavelet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("levels", [1, 3, 5])
@torch.no_grad()
def test_synthesis_is_the_inverse_of_analysis(image_channels: int, levels: int) -> None:
    wavelet = Wavelet(image_channels, levels)
    x = torch.rand(2, image_channels, 32, 96, generator=generator())
    pyramid = wavelet.analysis(x)
    assert [tensor.shape[1] for tensor in pyramid] == wavelet.channels
    heights = [32 >> k for k in range(levels, 0, -1)]
    assert [tensor.shape[-2] for tensor in pyramid] == heights
    torch.testing.assert_close(wavelet.synthesis(pyramid), x, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_beginning_of_the_pyramid_is_the_picture_at_a_lower_resolution(photograph: Tensor) -> None:
    x = photograph.float()[None, :, :64, :64] / 255
    wavelet = Wavelet(3, 4)
    pyramid = wavelet.analysis(x)
    for count in range(1, 5):
        small = wavelet.synthesis(pyramid[:count])
        wanted = torch.nn.functional.interpolate(x, small.shape[-2:], mode="area")
        assert float((small - wanted).abs().mean()) < 0.03


@torch.no_grad()
def test_lumas_basis_functions_have_about_unit_norm_and_chromas_their_unit() -> None:
    wavelet = Wavelet(3, 3)
    flat = wavelet.analysis(torch.full((1, 3, 64, 64), 0.5))
    for n, tensor in enumerate(flat):
        for channel in range(tensor.shape[1]):
            impulse = [torch.zeros_like(t) for t in flat]
            impulse[n][0, channel, tensor.shape[2] // 2, tensor.shape[3] // 2] = 1
            norm = float((wavelet.synthesis(impulse) - 0.5).norm())
            is_chroma = channel not in ((0, 3, 4, 5) if n == 0 else (0, 1, 2))
            assert norm == pytest.approx(1.3 if is_chroma else 1.0, rel=0.1)


@torch.no_grad()
def test_a_grey_image_has_no_chroma_and_a_ramp_no_details() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    coarsest, *finer = Wavelet(3, 3).analysis(ramp)
    assert float(coarsest[:, 1:3].abs().max()) < 1e-6
    assert all(float(details[:, 3:].abs().max()) < 1e-6 for details in finer)
    assert float(finer[-1][..., 4:-4, 4:-4].abs().max()) < 1e-5  # the ends of a ramp are edges


@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_groups_name_every_channel_once(image_channels: int, levels: int) -> None:
    wavelet = Wavelet(image_channels, levels)
    groups = wavelet.groups()
    assert len(groups) == levels
    for of_tensor, channels in zip(groups, wavelet.channels, strict=True):
        assert sorted(c for group, _ in of_tensor for c in group) == list(range(channels))
        assert {phases for _, phases in of_tensor} <= {1, 2, 4}


def test_all_of_it_learns() -> None:
    wavelet = Wavelet(3, 2)
    x = torch.rand(1, 3, 16, 16, generator=generator())
    pyramid = [torch.floor(tensor * 16 + 0.5) / 16 + (tensor - tensor.detach()) for tensor in wavelet.analysis(x)]
    ((wavelet.synthesis(pyramid) - x) ** 2).mean().backward()
    assert all(bool((parameter.grad != 0).any()) for parameter in wavelet.parameters())


def test_no_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="levels=0"):
        Wavelet(3, 0)
