"""The block DCT: JPEG's transform at first, with steps that grow with frequency, and learnable."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from conftest import images
from torch import Tensor

from codec.networks import BlockDCT


def kernels(transform: BlockDCT, weight: Tensor | None = None) -> Tensor:
    """The orthonormal part of the analysis weights, `[M, C, n, n]`: what is inside the block."""
    o, n = transform.overlap, transform.block
    weight = transform.analysis_weight if weight is None else weight
    return weight.detach()[..., o : o + n, o : o + n] / transform.unit


def frequencies(kernel: Tensor) -> tuple[int, int, int]:
    """Sign changes over colours, rows and columns through the largest entry, which number a DCT's functions."""
    c, row, column = np.unravel_index(int(kernel.abs().argmax()), kernel.shape)
    lines = (kernel[:, row, column], kernel[c, :, column], kernel[c, row])
    signs = (line[line.abs() > 1e-6].sign() for line in lines)
    return tuple(int((sign.diff() != 0).sum()) for sign in signs)


@pytest.mark.parametrize("overlap", [0, 3, 8])
@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("colours", [1, 3])
def test_with_all_coefficients_kept_the_block_dct_reconstructs_perfectly(colours, block, overlap):
    transform = BlockDCT(colours, colours * block**2, block, levels=64, overlap=overlap)
    for height, width in ((block, block), (2 * block, 5 * block), (48, 16)):
        x = images(2, colours, height, width)
        y = transform.analysis(x)
        assert y.shape == (2, colours * block**2, height // block, width // block)
        torch.testing.assert_close(transform.synthesis(y), x, atol=1e-5, rtol=0)


def test_leaving_coefficients_out_loses_exactly_their_energy():
    x = images(1, 1, 16, 24)
    transform = BlockDCT(1, 20, 8, levels=64)
    left_out = (x - transform.synthesis(transform.analysis(x))).square().sum()
    kept = (transform.analysis(x) / transform.scale).square().sum()
    torch.testing.assert_close(left_out + kept, (x - 0.5).square().sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("overlap", [0, 4])
@pytest.mark.parametrize(("colours", "channels"), [(1, 64), (3, 192), (3, 128)])
def test_the_basis_is_orthonormal_and_nothing_reaches_beyond_the_block_at_first(colours, channels, overlap):
    transform = BlockDCT(colours, channels, 8, levels=64, overlap=overlap)
    for weight in (transform.analysis_weight, transform.synthesis_weight):
        basis = kernels(transform, weight).flatten(1)
        torch.testing.assert_close(basis @ basis.T, torch.eye(channels), atol=1e-5, rtol=0)
        whole = weight.detach().square().sum() / transform.unit**2
        torch.testing.assert_close(whole, basis.square().sum())


@pytest.mark.parametrize(("levels", "step"), [(256, 0.2), (16, 0.2)])
def test_equal_steps_are_one_for_luma_and_coarser_for_chroma_and_nothing_leaves_the_unit_range(levels, step):
    transform = BlockDCT(3, 192, 8, levels=levels, step=step, equal_steps=True)
    luma = torch.tensor([frequencies(kernel)[0] == 0 for kernel in kernels(transform)])
    steps = 1 / (transform.scale.flatten() * levels)
    assert torch.unique(steps[luma]).tolist() == pytest.approx([max(step, 8 * 3**0.5 / levels)])
    assert torch.unique(steps[~luma]).tolist() == pytest.approx([max(1.3 * step, 8 * 3**0.5 / levels)])
    extreme = (kernels(transform) > 0).float()
    y = torch.cat([transform.analysis(x[None]) for x in extreme[:16]])
    assert float(y.detach().abs().max()) <= 0.5


@pytest.mark.parametrize("block", [8, 16])
def test_a_grey_transform_is_the_dct_of_jpeg(block):
    """Against scipy's, channel by channel, each found by its frequencies."""
    transform = BlockDCT(1, block**2, block, levels=64)
    x = images(1, 1, block, block)
    wanted = scipy.fft.dctn(x[0, 0].numpy() - 0.5, norm="ortho")
    found = (transform.analysis(x) / transform.scale)[0, :, 0, 0]
    places = [frequencies(kernel)[1:] for kernel in kernels(transform)]
    assert sorted(places) == [(u, v) for u in range(block) for v in range(block)]
    for value, (u, v), kernel in zip(found.tolist(), places, kernels(transform), strict=True):
        assert value == pytest.approx(float(wanted[u, v]), abs=1e-5), (u, v)
        assert float(kernel[0, 0, 0]) > 0


def test_a_grey_picture_has_no_colour_coefficients():
    transform = BlockDCT(3, 192, 8, levels=64)
    y = transform.analysis(images(1, 1, 32, 32).expand(-1, 3, -1, -1)).detach()
    luma = torch.tensor([frequencies(kernel)[0] == 0 for kernel in kernels(transform)])
    assert int(luma.sum()) == 64
    assert float(y[:, ~luma].abs().max()) < 1e-6
    assert float(y[:, luma].abs().amax((0, 2, 3)).min()) > 1e-4


@pytest.mark.parametrize(("colours", "channels", "block"), [(1, 10, 8), (3, 128, 8), (3, 50, 16), (3, 512, 32)])
def test_of_two_coefficients_the_lower_frequency_is_kept_and_comes_first(colours, channels, block):
    transform = BlockDCT(colours, channels, block, levels=64)
    order = [frequencies(kernel) for kernel in kernels(transform)]
    place = {frequency: n for n, frequency in enumerate(order)}
    assert len(place) == channels
    assert order[0] == (0, 0, 0)
    for (c, u, v), n in place.items():
        lower = [(c, u - 1, v)] * (u > 0) + [(c, u, v - 1)] * (v > 0) + [(c - 1, u, v)] * (c > 0)
        assert all(place[other] < n for other in lower), (c, u, v)


@pytest.mark.parametrize(
    ("colours", "channels", "block"),
    [(3, 128, 8), (3, 192, 8), (1, 20, 8), (3, 512, 32), (3, 2, 8), (1, 1, 1), (1, 128, 8), (3, 20, 2)],
)
def test_groups_go_from_the_means_to_high_frequencies_and_from_luma_to_chroma(colours, channels, block):
    groups = [channels for channels, _ in BlockDCT.groups(colours, channels, block)]
    assert sorted(c for group in groups for c in group) == list(range(channels))
    coefficients = min(channels, colours * block**2)
    transform = BlockDCT(colours, channels, block, levels=64)
    order = [frequencies(kernel) for kernel in kernels(transform)[:coefficients]]
    *groups, spare = groups if channels > coefficients else [*groups, ()]
    assert list(spare) == list(range(coefficients, channels))
    assert groups[0] == [0]
    luma, chroma = [], []
    for group in groups:
        bands = [order[c][1] + order[c][2] for c in group]
        colour = {order[c][0] > 0 for c in group}
        assert len(colour) == 1
        (chroma if colour.pop() else luma).append((min(bands), max(bands)))
    for bands in (luma, chroma):
        assert all(before[1] < after[0] for before, after in pairwise(bands))
    means = [c for c in range(coefficients) if order[c][0] > 0 and order[c][1:] == (0, 0)]
    assert not means or groups[1] == means
    assert all(order[c][0] == 0 for group in groups[2 : len(luma) + 1] for c in group)


def test_channels_beyond_the_coefficients_there_are_stay_empty():
    transform = BlockDCT(1, 128, 8, levels=64, overlap=4)
    x = images(1, 1, 32, 32)
    y = transform.analysis(x)
    assert float(y[:, :64].detach().abs().amax((0, 2, 3)).min()) > 0
    assert not bool(y[:, 64:].any())
    torch.testing.assert_close(transform.synthesis(y), x, atol=1e-5, rtol=0)
    assert bool(torch.isfinite(transform.scale).all())


@pytest.mark.parametrize(
    ("colours", "channels", "block", "levels"), [(3, 128, 8, 256), (1, 64, 8, 128), (3, 512, 32, 1024)]
)
def test_where_the_steps_reach_as_far_as_any_coefficient_no_image_leaves_the_latents_range(
    colours, channels, block, levels
):
    """The image that drives a coefficient furthest is 1 where its kernel is positive and 0 elsewhere."""
    assert levels * 0.09 >= block * math.sqrt(colours)
    transform = BlockDCT(colours, channels, block, levels)
    worst = (kernels(transform) > 0).float()
    for x in (worst, 1 - worst, images(8, colours, block, block).round()):
        assert float(transform.analysis(x).detach().abs().max()) <= 0.5 + 1e-5


@pytest.mark.parametrize("levels", [2, 16, 256])
@pytest.mark.parametrize("colours", [1, 3])
def test_black_and_white_stay_in_the_latents_range_whatever_the_step(colours, levels):
    transform = BlockDCT(colours, 64, 8, levels, overlap=4)
    for value in (0.0, 1.0):
        y = transform.analysis(torch.full((1, colours, 24, 24), value)).detach()
        assert float(y.abs().max()) <= 0.5 + 1e-5
        assert bool((y[:, 0].sign() == math.copysign(1, value - 0.5)).all())


@pytest.mark.parametrize("levels", [4, 16, 64])
def test_the_range_is_levels_times_step_or_six_deviations_and_never_more_than_a_coefficient_can_be(levels):
    """The deviations of an image with covariance σ²·ρ^|i−j|·ρ^|k−l|, through the whole 64 × 64 matrix."""
    transform = BlockDCT(1, 64, 8, levels, step=0.25)
    rows, columns = np.divmod(np.arange(64), 8)
    distance = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns)
    basis = kernels(transform).flatten(1).double().numpy()
    deviation = 0.25 * np.sqrt(np.einsum("mi,ij,mj->m", basis, 0.95**distance, basis))
    places = [frequencies(kernel)[1:] for kernel in kernels(transform)]
    steps = 0.25 * np.array([1 + 4.5 * math.hypot(u / 7, v / 7) / math.sqrt(2) for u, v in places])
    wanted = np.maximum(np.minimum(6 * deviation, 8), levels * steps)
    np.testing.assert_allclose(1 / transform.scale.flatten().numpy(), wanted, rtol=1e-4)
    plain = wanted == levels * steps
    assert plain.any()
    assert plain.all() == (levels == 64)
    assert np.all(np.diff(deviation) < 1e-6), "the channels are in the order of their variance"


def test_steps_are_coarser_for_chroma_by_the_same_factor_at_every_frequency():
    transform = BlockDCT(3, 192, 8, levels=4096)
    steps = dict(zip(map(frequencies, kernels(transform)), (1 / transform.scale).flatten().tolist(), strict=True))
    assert steps[0, 7, 7] == pytest.approx(5.5 * steps[0, 0, 0])
    for (colour, u, v), step in steps.items():
        assert step == pytest.approx((1.75 if colour else 1) * steps[0, u, v])


def test_a_step_of_the_quantiser_is_step_of_a_coefficient():
    for levels, step in ((64, 0.25), (256, 0.1)):
        transform = BlockDCT(1, 64, 8, levels, step)
        y = transform.analysis(images(1, 1, 8, 8))
        moved = transform.synthesis(y + torch.eye(64)[0].reshape(1, 64, 1, 1) / levels)
        change = (moved - transform.synthesis(y)).detach()
        assert float(change.norm()) == pytest.approx(step, rel=1e-3)


def test_the_block_dct_works_in_full_precision_inside_autocast():
    transform = BlockDCT(3, 192, 8, levels=64, overlap=4)
    x = images(1, 3, 32, 32)
    y = transform.analysis(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.conv2d(x, transform.analysis_weight).dtype == torch.bfloat16
        inside = transform.analysis(x)
        back = transform.synthesis(inside)
        half = transform.analysis(x.bfloat16())
    assert inside.dtype == back.dtype == half.dtype == torch.float32
    assert torch.equal(inside, y)
    assert torch.equal(back, transform.synthesis(y))


def test_gradients_reach_both_weights_beyond_the_block_too_and_the_image():
    transform = BlockDCT(3, 128, 8, levels=64, overlap=4)
    x = images(1, 3, 32, 32).requires_grad_()
    target = images(1, 3, 32, 32, seed=1)
    (transform.synthesis(transform.analysis(x)) - target).square().mean().backward()
    assert bool(x.grad.any())
    for weight in (transform.analysis_weight, transform.synthesis_weight):
        assert bool(torch.isfinite(weight.grad).all())
        border = weight.grad.clone()
        border[..., 4:-4, 4:-4] = 0
        assert bool((border.abs().amax((1, 2, 3)) > 0).all())
        assert bool((weight.grad - border).any())


def test_trained_on_a_smooth_signal_a_lapped_transform_leaves_out_less_than_a_blockwise_one():
    x = F.interpolate(images(4, 1, 12, 12), scale_factor=8, mode="bicubic").clamp(0, 1)
    losses = {}
    for overlap in (0, 4):
        transform = BlockDCT(1, 3, 8, levels=64, overlap=overlap)
        optimizer = torch.optim.Adam(transform.parameters(), lr=3e-3)
        for _ in range(60):
            loss = (transform.synthesis(transform.analysis(x)) - x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.setdefault(overlap, []).append(loss.item())
    assert losses[0][0] == pytest.approx(losses[4][0], rel=1e-4)
    assert losses[4][-1] < 0.8 * losses[0][-1] < losses[0][0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"block": 0}, "block=0, overlap=0: allowed are"),
        ({"overlap": 9}, "block=8, overlap=9: allowed are"),
        ({"overlap": -1}, "block=8, overlap=-1: allowed are"),
        ({"levels": 0}, "levels=0, step=0.09: allowed are"),
        ({"levels": math.nan}, "levels=nan, step=0.09: allowed are"),
        ({"step": -1.0}, "levels=64, step=-1.0: allowed are"),
    ],
)
def test_a_wrong_argument_of_the_block_dct_is_named_with_its_value(arguments, named):
    with pytest.raises(ValueError, match=named):
        BlockDCT(**{"image_channels": 3, "channels": 8, "block": 8, "levels": 64, **arguments})
