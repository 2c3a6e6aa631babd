"""Noise in the diffusion scheme: what is added in training only, and what the iterative decoder samples from."""

import pytest
import torch
from conftest import crop, generator, images
from diffusion_codecs import DCT, ITERATIVE, NO_SKIPS, VARIABLE_RATE, WAVELET, diffusion
from torch import Tensor, nn

from codec import bitstream
from codec.learned_codec import LearnedCodec
from codec.training.config import ConfigError
from codec.training.measuring import set_steps


def iterative(*overrides: str) -> LearnedCodec:
    """A sampler that adds detail, by a network that heeds what it is given: its end is no longer at zero."""
    codec = diffusion(ITERATIVE, *overrides)
    codec.denoiser.running_var.fill_(0.01)
    nn.init.normal_(codec.denoiser.head.weight, std=0.1, generator=generator())
    return codec


def training_with_fixed_statistics(codec: LearnedCodec) -> LearnedCodec:
    """In training mode, but for BatchNorm, whose outputs then do not depend on what else is drawn."""
    codec.train()
    for module in codec.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return codec


def inputs_of(module: nn.Module) -> list[tuple[Tensor, ...]]:
    """A list that grows by the arguments of every call of `module`."""
    seen: list[tuple[Tensor, ...]] = []
    module.register_forward_hook(lambda _, arguments, out: seen.append(arguments))
    return seen


# ---- noise in training


def test_two_training_forwards_differ_and_two_in_evaluation_do_not():
    codec = training_with_fixed_statistics(diffusion())
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(codec(x).x_hat, codec(x).x_hat)
        codec.eval()
        assert torch.equal(codec(x).x_hat, codec(x).x_hat)


@pytest.mark.parametrize("max_t", [0, 1, 1000])
def test_the_synthesis_adds_noise_in_training_unless_max_t_is_0_and_never_in_evaluation(max_t):
    codec = diffusion(f"model.max_t={max_t}")
    y_hats = [y.detach() for y in codec.g_a(images(2, 3, 32, 32))]
    with torch.no_grad():
        clean = codec.g_s(y_hats)
        assert torch.equal(codec.g_s(y_hats), clean)
        training_with_fixed_statistics(codec)
        torch.manual_seed(3)
        state = torch.get_rng_state()
        noisy = codec.g_s(y_hats)
        drew = not torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(3)
        assert torch.equal(codec.g_s(y_hats), noisy)
    assert drew == (max_t > 0)
    assert torch.equal(noisy, clean) == (max_t == 0)


@pytest.mark.parametrize("max_t", [50, 1000])
def test_the_latent_is_noised_at_one_t_a_batch_anywhere_below_max_t(max_t):
    """A latent of zeros shows the noise's deviation, √(1 − ᾱ_t): the same for all images of a batch."""
    codec = training_with_fixed_statistics(diffusion(f"model.max_t={max_t}", NO_SKIPS))
    seen = inputs_of(codec.decoder)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(40):
            codec.g_s([torch.zeros(3, 128, 4, 4)])
    deviations = torch.stack([y.std((1, 2, 3)) for y, _ in seen])
    assert float((deviations / deviations.mean(1, keepdim=True) - 1).abs().max()) < 0.08
    largest = float((1 - codec.schedule.alpha_bar[max_t - 1]).sqrt())
    assert float(deviations.mean(1).max()) < 1.05 * largest
    assert float(deviations.mean(1).min()) < 0.4 * largest
    assert float(deviations.mean(1).max()) > 0.9 * largest
    assert len(deviations.mean(1).round(decimals=2).unique()) > 5


def test_the_noised_latent_keeps_the_unit_variance_that_normalising_gave_it():
    codec = diffusion("model.max_t=1000").train()
    seen = inputs_of(codec.decoder)
    for seed in range(3):
        codec.g_s([3 * images(8, 128, 8, 8, seed=seed) - 1.5, *codec.g_a(images(8, 3, 64, 64))[1:]])
    for y, _ in seen:
        assert float(y.var()) == pytest.approx(1, abs=0.1)
        assert abs(float(y.mean())) < 0.1


@pytest.mark.parametrize("options", [(DCT,), (WAVELET, VARIABLE_RATE)])
def test_the_iterative_decoder_is_trained_at_a_t_of_each_images_own_on_what_the_one_shot_decoder_lacks(options):
    codec = iterative(*options).train()
    seen = inputs_of(codec.denoiser)
    x = images(16, 3, 32, 32)
    torch.manual_seed(0)
    with torch.no_grad():
        x_hat = codec(x).x_hat
    ((x_t, image, time, quality),) = seen
    assert x_hat.shape == x.shape
    assert len(time.unique()) > 10
    assert 0 <= float(time.min()) < 0.2
    assert 0.8 < float(time.max()) <= 1
    assert len(quality.unique()) == (len(x) if codec.qualities else 1)
    alpha_bar = codec.schedule.alpha_bar[(999 * time).round().long()]
    lacking = (x - image) / codec.denoiser.deviation(quality)
    for detail, noisy, kept in zip(lacking, x_t, alpha_bar.tolist(), strict=True):
        left = noisy - kept**0.5 * detail
        assert float(left.std()) == pytest.approx((1 - kept) ** 0.5, rel=0.1)
        assert abs(float((left * detail).mean() / detail.std())) < 0.1


@pytest.mark.parametrize("options", [(), (DCT,), (WAVELET, VARIABLE_RATE, "quantization.noise=chosen")])
def test_training_the_iterative_decoder_changes_nothing_that_an_encoder_uses(options):
    codec = iterative(*options).train()
    before = {name: tensor.clone() for name, tensor in codec.state_dict().items()}
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-3)
    for seed in range(2):
        codec(images(2, 3, 32, 32, seed=seed)).x_hat.square().mean().backward()
        optimizer.step()
    changed = {name for name, tensor in codec.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("denoiser.") for name in changed)


# ---- the iterative decoder's sampling


def test_decoding_twice_gives_the_same_image_and_leaves_torchs_generator_alone(photograph):
    codec = iterative(DCT, "model.steps=3")
    data = codec.encode(crop(photograph))
    state = torch.get_rng_state()
    first = codec.decode(data)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(codec.decode(data), first)


@pytest.mark.parametrize(
    "options",
    [(), (DCT,), (WAVELET,), (DCT, VARIABLE_RATE), (WAVELET, VARIABLE_RATE)],
)
def test_one_step_is_the_one_shot_decoder_bit_by_bit_and_two_are_not(options, photograph):
    image = crop(photograph, 40, 72)
    codec = iterative(*options)
    at_once = diffusion(*options)
    at_once.load_state_dict({name: tensor for name, tensor in codec.state_dict().items() if "denoiser" not in name})
    for quality in (20.0, 80.0) if codec.qualities else (None,):
        if quality is not None:
            codec.set_quality(quality)
            at_once.set_quality(quality)
        codec.set_decoding(steps=1)
        data, wanted = codec.encode(image), at_once.encode(image)
        assert bitstream.unpack(data)[1] == bitstream.unpack(wanted)[1]
        x = codec.prepared(image)
        with torch.no_grad():
            assert torch.equal(codec(x).x_hat, at_once(x).x_hat)
        assert torch.equal(codec.decode(data), at_once.decode(wanted))
        codec.set_decoding(steps=2)
        assert not torch.equal(codec.decode(data), at_once.decode(wanted))


def test_another_sampling_seed_or_number_of_steps_gives_another_image_of_the_same_file(photograph):
    codec = iterative(DCT, "model.steps=3")
    data = codec.encode(crop(photograph))
    decoded = [codec.decode(data)]
    for other in (iterative(DCT, "model.steps=3", "model.sampling_seed=1"), iterative(DCT, "model.steps=4")):
        assert other.encode(crop(photograph)) == data
        decoded.append(other.decode(data))
    assert not torch.equal(decoded[0], decoded[1])
    assert not torch.equal(decoded[0], decoded[2])


def test_the_sections_do_not_depend_on_the_decoder(photograph):
    sections = [
        bitstream.unpack(diffusion(*options).encode(crop(photograph)))[1]
        for options in ((), ("model.max_t=5",), (ITERATIVE,), (ITERATIVE, "model.steps=2", "model.sampling_seed=9"))
    ]
    assert all(other == sections[0] for other in sections)


@pytest.mark.parametrize("steps", [1, 5])
def test_the_network_is_called_as_often_as_there_are_steps_with_falling_t(steps, photograph):
    codec = iterative(DCT, f"model.steps={steps}")
    seen = inputs_of(codec.denoiser)
    data = codec.encode(crop(photograph))
    assert not seen, "an encoder chooses levels by the one-shot decoder"
    codec.decode(data)
    times = [float(time) for _, _, time, _ in seen]
    assert len(times) == steps
    assert times[0] == 1
    assert times == sorted(times, reverse=True)
    assert steps == 1 or times[-1] == 0


def test_a_denoiser_that_knows_nothing_adds_noise_of_the_deviation_that_it_has_observed():
    codec = diffusion(ITERATIVE, DCT, "model.steps=100")
    codec.denoiser.running_var.fill_(0.01)
    x = images(1, 3, 128, 128)
    with torch.no_grad():
        sample = codec(x).x_hat
        codec.set_decoding(steps=1)
        added = sample - codec(x).x_hat
    assert float(added.std()) == pytest.approx(0.1, rel=0.1)
    assert float(added[..., 1:].mul(added[..., :-1]).mean()) == pytest.approx(0, abs=0.001)


def test_an_iterative_run_is_decoded_in_the_steps_that_are_asked_for():
    codec = diffusion(ITERATIVE)
    set_steps(codec, 3)
    assert codec.steps == 3
    with pytest.raises(ValueError, match="steps=0: allowed are the integers 1 to 1000"):
        set_steps(codec, 0)
    with pytest.raises(ConfigError, match="only a run of model.decoder=iterative"):
        set_steps(diffusion(), 3)
