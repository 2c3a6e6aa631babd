"""The building blocks: the block DCT, the diffusion schedule, the U-Nets, and the convolutional blocks."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks import BlockDCT, ConditionalUNet, ConvBlock, NoiseSchedule, ResidualBlock, UNetDecoder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=generator(seed))


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed))


# ---- the block DCT


def kernels(transform: BlockDCT, weight: Tensor | None = None) -> Tensor:
    """The orthonormal part of the analysis weights, `[M, C, n, n]`: what is inside the block."""
    o, n = transform.overlap, transform.block
    weight = transform.analysis_weight if weight is None else weight
    return weight.detach()[..., o : o + n, o : o + n] / n


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
        whole = weight.detach().square().sum() / 8**2
        torch.testing.assert_close(whole, basis.square().sum())


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


def test_channels_beyond_the_coefficients_there_are_stay_empty():
    transform = BlockDCT(1, 128, 8, levels=64, overlap=4)
    x = images(1, 1, 32, 32)
    y = transform.analysis(x)
    assert float(y[:, :64].detach().abs().amax((0, 2, 3)).min()) > 0
    assert not bool(y[:, 64:].any())
    torch.testing.assert_close(transform.synthesis(y), x, atol=1e-5, rtol=0)
    assert bool(torch.isfinite(transform.scale).all())


@pytest.mark.parametrize(
    ("colours", "channels", "block", "levels"), [(3, 128, 8, 64), (1, 64, 8, 32), (3, 512, 32, 256)]
)
def test_where_the_steps_reach_as_far_as_any_coefficient_no_image_leaves_the_latents_range(
    colours, channels, block, levels
):
    """The image that drives a coefficient furthest is 1 where its kernel is positive and 0 elsewhere."""
    assert levels * 0.25 >= block * math.sqrt(colours)
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
    wanted = np.maximum(np.minimum(6 * deviation, 8), levels * 0.25)
    np.testing.assert_allclose(1 / transform.scale.flatten().numpy(), wanted, rtol=1e-4)
    plain = wanted == levels * 0.25
    assert plain.any()
    assert plain.all() == (levels == 64)
    assert np.all(np.diff(deviation) < 1e-6), "the channels are in the order of their variance"


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
        ({"levels": 0}, "levels=0, step=0.25: allowed are"),
        ({"levels": math.nan}, "levels=nan, step=0.25: allowed are"),
        ({"step": -1.0}, "levels=64, step=-1.0: allowed are"),
    ],
)
def test_a_wrong_argument_of_the_block_dct_is_named_with_its_value(arguments, named):
    with pytest.raises(ValueError, match=named):
        BlockDCT(**{"image_channels": 3, "channels": 8, "block": 8, "levels": 64, **arguments})


# ---- the diffusion schedule


def test_beta_runs_linearly_from_1e_4_to_0_02_in_1000_steps_and_alpha_bar_is_the_product():
    alpha_bar = NoiseSchedule().alpha_bar.double()
    assert alpha_bar.shape == (1000,)
    products, product = [], 1.0
    for t in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        products.append(product)
    torch.testing.assert_close(alpha_bar, torch.tensor(products, dtype=torch.float64), rtol=1e-5, atol=0)
    assert float(alpha_bar[0]) == pytest.approx(1 - 1e-4, abs=1e-7)
    assert 1 - float(alpha_bar[-1] / alpha_bar[-2]) == pytest.approx(0.02, rel=1e-4)
    assert float(alpha_bar[-1]) == pytest.approx(4.036e-5, rel=1e-3)  # as in Ho et al.'s own code


def test_q_sample_gives_known_numbers():
    schedule = NoiseSchedule(steps=2, first=0.36, last=0.75)  # 1 - β = 0.64, 0.25: the product is 0.16
    x, eps = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.5]])
    for t, wanted in ((0, [0.8 * 2 + 0.6 * 1, -0.8 + 0.6 * 0.5]), (1, [0.4 * 2 + 0.84**0.5, -0.4 + 0.84**0.5 / 2])):
        torch.testing.assert_close(schedule.q_sample(x, torch.tensor(t), eps), torch.tensor([wanted]))
    first = NoiseSchedule().q_sample(torch.tensor([2.0]), torch.tensor(0), torch.tensor([1.0]))
    assert float(first) == pytest.approx(0.9999**0.5 * 2 + 0.01, abs=1e-4)


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_q_sample_keeps_unit_variance(t):
    sample = NoiseSchedule().q_sample(noise(1, 1, 400, 400), torch.tensor(t), noise(1, 1, 400, 400, seed=2))
    assert float(sample.var()) == pytest.approx(1, abs=0.02)


def test_q_sample_takes_one_t_for_the_batch_or_one_an_image():
    schedule = NoiseSchedule()
    x, eps = noise(3, 2, 4, 5), noise(3, 2, 4, 5, seed=2)
    times = torch.tensor([7, 500, 999])
    each = schedule.q_sample(x, times, eps)
    assert each.shape == x.shape
    for n, t in enumerate(times):
        assert torch.equal(each[n], schedule.q_sample(x, t, eps)[n])
        assert torch.equal(each[n : n + 1], schedule.q_sample(x[n : n + 1], t, eps[n : n + 1]))
    assert not torch.equal(each[0], schedule.q_sample(x, times[1], eps)[0])


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 57, 1000])
def test_with_a_perfect_predictor_ddim_arrives_in_any_number_of_steps(steps):
    x_0, times = images(2, 3, 4, 4), []

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (2,)
        assert int(t[0]) == int(t[1])
        times.append(int(t[0]))
        return x_0

    assert torch.equal(NoiseSchedule().ddim(predict, noise(2, 3, 4, 4), steps), x_0)
    assert len(times) == steps
    assert times[0] == 999
    assert steps == 1 or times[-1] == 0
    strides = [now - then for now, then in pairwise(times)]
    assert max(strides, default=1) - min(strides, default=1) <= 1


def test_on_its_way_a_perfect_predictor_sees_the_forward_process_with_one_and_the_same_noise():
    schedule, x_0, eps = NoiseSchedule(), images(1, 3, 4, 4), noise(1, 3, 4, 4)
    start = schedule.q_sample(x_0, torch.tensor(999), eps)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(x_t, schedule.q_sample(x_0, t, eps), atol=1e-4, rtol=0)
        return x_0

    schedule.ddim(predict, start, 10)


def test_for_gaussian_data_ddim_maps_noise_to_the_datas_distribution():
    """x_0 ~ N(μ, s²) has a closed-form best prediction; the ODE's solution is then μ + s · noise."""
    schedule, mean, deviation = NoiseSchedule(), 0.4, 0.2

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.alpha_bar[t].reshape(-1, 1).double()
        gain = alpha_bar.sqrt() * deviation**2 / (alpha_bar * deviation**2 + 1 - alpha_bar)
        return mean + gain * (x_t - alpha_bar.sqrt() * mean)

    eps = noise(1, 1000).double()
    wanted = mean + deviation * eps
    off = [float((schedule.ddim(predict, eps, steps) - wanted).abs().max()) for steps in (10, 100, 1000)]
    assert off[2] < off[1] < off[0]
    assert off[2] < 0.02


def test_ddim_is_deterministic_and_draws_nothing():
    schedule, start = NoiseSchedule(), noise(1, 3, 4, 4)
    state = torch.get_rng_state()
    first, second = (schedule.ddim(lambda x_t, t: 0.3 * x_t.tanh(), start.clone(), 7) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, schedule.ddim(lambda x_t, t: 0.3 * x_t.tanh(), start, 8))


def test_ddim_without_steps_is_refused():
    with pytest.raises(ValueError, match="steps=0"):
        NoiseSchedule().ddim(lambda x_t, t: x_t, noise(1, 3, 4, 4), 0)


@pytest.mark.parametrize(
    "arguments", [{"steps": 1}, {"first": 0.0}, {"first": 0.03}, {"last": 1.0}, {"last": math.nan}]
)
def test_a_schedule_that_is_none_is_refused_with_its_values(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        NoiseSchedule(**arguments)


def test_the_schedule_is_no_part_of_a_checkpoint():
    assert not NoiseSchedule().state_dict()


# ---- the U-Nets


def skips_of(size: int, channels: tuple[int, int, int] = (128, 64, 64), batch: int = 1) -> list[Tensor]:
    sides = (size // 4, size // 2, size // 2)
    return [noise(batch, c, side, side, seed=n) for n, (c, side) in enumerate(zip(channels, sides, strict=True))]


@pytest.mark.parametrize(
    ("with_skips", "inputs"), [(True, [128, 256, 192, 128]), (False, [128, 128, 128, 64])], ids=["skips", "none"]
)
def test_the_decoder_has_the_papers_channels_at_256_by_256(with_skips, inputs):
    decoder = UNetDecoder(3, with_skips, starts_at_zero=False).eval()
    seen = []
    for module in (*decoder.up, decoder.head):
        module.register_forward_hook(lambda _, x, out: seen.append((tuple(x[0].shape[1:]), tuple(out.shape[1:]))))
    with torch.no_grad():
        x_hat = decoder(noise(1, 128, 32, 32), skips_of(256) if with_skips else [])
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
    skips = [noise(2, 128, 2, 6), noise(2, 64, 4, 12), noise(2, 64, 4, 12)] if with_skips else []
    assert decoder(noise(2, 128, 1, 3), skips).shape == (2, colours, 8, 24)


def test_a_decoder_that_starts_at_zero_gives_zeros_and_learns_from_its_first_step():
    decoder = UNetDecoder(3, True, starts_at_zero=True)
    out = decoder(noise(1, 128, 2, 2), skips_of(16))
    assert not bool(out.any())
    (out - 1).square().sum().backward()
    assert bool(decoder.head.weight.grad.any())
    assert bool(UNetDecoder(3, True, starts_at_zero=False)(noise(1, 128, 2, 2), skips_of(16)).any())


@pytest.mark.parametrize("n", range(3))
def test_every_skip_changes_what_the_decoder_makes(n):
    for decoder in (UNetDecoder(3, True, starts_at_zero=False).eval(), randomised(ConditionalUNet(3, True))):
        more = (noise(1, 3, 16, 16), torch.tensor([500]), noise(1, 128, 2, 2), images(1, 3, 16, 16))
        arguments = more if isinstance(decoder, ConditionalUNet) else (noise(1, 128, 2, 2),)
        skips = skips_of(16)
        before = decoder(*arguments, skips)
        skips[n] = skips[n] + 1
        assert not torch.allclose(decoder(*arguments, skips), before)


def randomised(network: ConditionalUNet) -> ConditionalUNet:
    """Its end no longer at zero."""
    nn.init.normal_(network.head.weight, std=0.1, generator=generator())
    return network


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("with_skips", [True, False])
def test_the_denoiser_gives_an_image_and_starts_at_zero(with_skips, colours):
    network = ConditionalUNet(colours, with_skips)
    x = noise(2, colours, 16, 24)
    skips = [noise(2, 128, 4, 6), noise(2, 64, 8, 12), noise(2, 64, 8, 12)] if with_skips else []
    arguments = (torch.tensor([3, 999]), noise(2, 128, 2, 3), images(2, colours, 16, 24), skips)
    out = network(x, *arguments)
    assert out.shape == x.shape
    assert not bool(out.any())
    assert bool(randomised(network)(x, *arguments).any())


def test_the_denoiser_heeds_the_noisy_image_the_time_the_latent_and_the_first_reconstruction():
    network = randomised(ConditionalUNet(3, False))
    arguments = [noise(2, 3, 16, 16), torch.tensor([500, 500]), noise(2, 128, 2, 2), images(2, 3, 16, 16)]
    before = network(*arguments)
    for n, other in enumerate(arguments):
        changed = other.clone()
        changed[1] = torch.tensor(501) if n == 1 else changed[1] + 1
        after = network(*arguments[:n], changed, *arguments[n + 1 :])
        assert not torch.allclose(after[1], before[1], atol=1e-7), n
        torch.testing.assert_close(after[0], before[0]), "an image does not depend on the rest of its batch"


def test_the_denoiser_tells_the_last_time_from_every_other():
    network = randomised(ConditionalUNet(1, False))
    times = torch.arange(0, 1000, 37)
    x, y = noise(1, 1, 8, 8).expand(len(times), -1, -1, -1), noise(1, 128, 1, 1).expand(len(times), -1, -1, -1)
    out = network(x, times, y, x).flatten(1)
    apart = torch.cdist(out, out).detach() + torch.eye(len(times))
    assert float(apart.min()) > 1e-4


# ---- convolutional blocks


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, (6, 10)), (3, 2, (3, 5)), (7, 2, (3, 5))])
def test_a_conv_block_gives_features_from_0_at_its_stride(kernel, stride, size):
    block = ConvBlock(4, 6, kernel, stride)
    assert block[0].kernel_size == (kernel, kernel)
    out = block(noise(3, 4, 6, 10))
    assert out.shape == (3, 6, *size)
    assert float(out.min()) == 0
    assert float(out.max()) > 1


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
