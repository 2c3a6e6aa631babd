"""The diffusion scheme: the paper's shapes, honest skips, noise in training only, both decoders, the shortcut."""

import re
from collections.abc import Callable

import pytest
import torch
from conftest import composed, generator, images, make_codec
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.functional.image import peak_signal_noise_ratio

from codec import bitstream
from codec.config import Builder, ConfigError
from codec.image_codec import NamedImage
from codec.learned_codec import LearnedCodec
from codec.losses import RateDistortionLoss
from codec.schemes.diffusion import paper_ratios
from evaluate import set_steps

DCT = "model.shortcut=dct"
ITERATIVE = "model.decoder=iterative"
NO_SKIPS = "model.skips=none"


def diffusion(*overrides: str, channels: int = 3, seed: int = 0) -> LearnedCodec:
    return make_codec("diffusion", channels=channels, seed=seed, overrides=overrides)


def iterative(*overrides: str) -> LearnedCodec:
    """A sampler whose network heeds what it is given: its end is no longer at zero."""
    codec = diffusion(ITERATIVE, DCT, *overrides)
    nn.init.normal_(codec.decoder.head.weight, std=0.1, generator=generator())
    return codec


def crop(photograph: Tensor, height: int = 64, width: int = 64) -> Tensor:
    return photograph[:, 100 : 100 + height, 100 : 100 + width].contiguous()


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


# ---- shapes


def test_the_encoder_has_the_papers_shapes_at_256_by_256():
    codec = diffusion()
    shapes = {}

    def record(name: str) -> Callable:
        return lambda module, x, out: shapes.update({name: tuple(out.shape[1:])})

    parts = {"stem": codec.stem, "res 1": codec.encoder[0]}
    parts |= {f"{part} {n}": codec.encoder[n - 1][i] for n in (2, 3) for i, part in enumerate(("down", "res"))}
    for name, module in parts.items():
        module.register_forward_hook(record(name))
    with torch.no_grad():
        y, *skips = codec.g_a(images(1, 3, 256, 256))
    assert shapes == {
        "stem": (64, 128, 128),
        "res 1": (64, 128, 128),
        "down 2": (128, 64, 64),
        "res 2": (128, 64, 64),
        "down 3": (128, 32, 32),
        "res 3": (128, 32, 32),
    }
    assert codec.stem[0].kernel_size == (7, 7)
    assert y.numel() == 131_072
    assert [tuple(skip.shape[1:]) for skip in skips] == [(8, 64, 64), (2, 128, 128), (2, 128, 128)]


@pytest.mark.parametrize("options", [(), (ITERATIVE,), (DCT,), (ITERATIVE, DCT, NO_SKIPS)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_comes_back_in_every_variant(options, channels, photograph):
    codec = diffusion(*options, "model.steps=2", channels=channels)
    for size in ((1, 1), (8, 8), (9, 23)):
        image = crop(photograph, *size)[:channels]
        assert codec.decode(codec.encode(image)).shape == image.shape


def test_the_skips_are_the_second_blocks_the_first_blocks_and_the_stems_features():
    codec, features = diffusion(), []
    for module in (codec.stem, codec.encoder[0], codec.encoder[1]):
        module.register_forward_hook(lambda module, x, out: features.append(out.clone()))
    with torch.no_grad():
        skips = codec.g_a(images(1, 3, 64, 64))[1:]
        for skip, coded, feature in zip(skips, codec.skips, reversed(features), strict=True):
            torch.testing.assert_close(skip, coded.project(feature) + 0.5)


# ---- honest files


@pytest.mark.parametrize(("options", "sections"), [((), 4), ((NO_SKIPS,), 1), ((ITERATIVE, NO_SKIPS), 1)])
def test_a_file_holds_a_section_for_the_latent_and_one_for_every_coded_skip(options, sections, photograph):
    codec = diffusion(*options)
    _, found = bitstream.unpack(codec.encode(crop(photograph)))
    assert len(found) == codec.section_count == sections
    assert all(len(section) > 0 for section in found)


@pytest.mark.parametrize("decoder", ["one_shot", "iterative"])
@pytest.mark.parametrize("training", [False, True])
def test_every_bottlenecks_bits_are_counted_for_every_image(decoder, training):
    codec = diffusion(f"model.decoder={decoder}", "model.steps=2").train(training)
    outputs = []
    for bottleneck in (codec.bottleneck, *(skip.bottleneck for skip in codec.skips)):
        bottleneck.register_forward_hook(lambda module, y, out: outputs.append(out[1].detach()))
    bits = codec(images(3, 3, 32, 32)).bits.detach()
    assert len(outputs) == 4
    assert all(float(part.min()) > 0 for part in outputs)
    assert bits.shape == (3,)
    torch.testing.assert_close(bits, sum(outputs))


def test_more_skip_channels_cost_more_bits(photograph):
    sizes = [
        len(diffusion(*options).encode(crop(photograph)))
        for options in ((NO_SKIPS,), ("model.skip_channels=[1,1,1]",), ())
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def must_not_run(*_: object) -> None:
    raise AssertionError("the encoder ran while decoding")


@pytest.mark.parametrize("options", [(DCT,), (ITERATIVE, DCT), (NO_SKIPS,)])
def test_nothing_but_the_file_reaches_the_decoder(options, photograph):
    codec = diffusion(*options, "model.steps=2")
    data = codec.encode(crop(photograph))
    wanted = codec.decode(data)
    other = diffusion(*options, "model.steps=2")  # has seen no image
    encoder = [other.stem, other.to_latent, *other.encoder, *(skip.project for skip in other.skips)]
    for module in encoder:
        module.forward = must_not_run
    if other.shortcut is not None:
        other.shortcut.analysis = must_not_run
    with pytest.raises(AssertionError, match="the encoder ran"):
        other.encode(crop(photograph))
    assert torch.equal(other.decode(data), wanted)


@pytest.mark.parametrize("options", [(), (ITERATIVE,)])
def test_every_section_changes_what_is_decoded(options, photograph):
    codec = diffusion(*options, "model.steps=2")
    if codec.iterative:
        nn.init.normal_(codec.decoder.head.weight, std=0.1, generator=generator())
    x, other = crop(photograph)[None] / 255, images(1, 3, 64, 64)
    with torch.no_grad():
        mine, theirs = codec.compress(x), codec.compress(other)
        before = codec.decompress(mine, (64, 64))
        for n in range(4):
            mixed = [*mine[:n], theirs[n], *mine[n + 1 :]]
            assert not torch.allclose(codec.decompress(mixed, (64, 64)), before, atol=1e-6), n


@pytest.mark.parametrize("options", [(), (ITERATIVE,), (DCT,)])
def test_what_is_decoded_is_what_validation_sees(options, photograph):
    codec = diffusion(*options, "model.steps=2")
    x = crop(photograph)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(codec.decompress(codec.compress(x), (64, 64)), codec(x).x_hat)


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
            codec.g_s([torch.full((3, 128, 4, 4), 0.5)])
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
        codec.g_s([3 * images(8, 128, 8, 8, seed=seed) - 1, *codec.g_a(images(8, 3, 64, 64))[1:]])
    for y, _ in seen:
        assert float(y.var()) == pytest.approx(1, abs=0.1)
        assert abs(float(y.mean())) < 0.1


def test_the_iterative_decoder_is_trained_at_a_t_of_each_images_own_on_the_noised_image():
    codec = training_with_fixed_statistics(iterative())
    seen = inputs_of(codec.decoder)
    x = images(16, 3, 32, 32)
    torch.manual_seed(0)
    with torch.no_grad():
        x_hat = codec(x).x_hat
    ((x_t, t, _, base, skips),) = seen
    assert x_hat.shape == x.shape
    assert len(t.unique()) > 10
    assert 0 <= int(t.min()) < 200
    assert 800 < int(t.max()) < 1000
    alpha_bar = codec.schedule.alpha_bar[t]
    for image, noisy, kept in zip(2 * x - 1, x_t, alpha_bar.tolist(), strict=True):
        left = noisy - kept**0.5 * image
        assert float(left.std()) == pytest.approx((1 - kept) ** 0.5, rel=0.1)
        assert abs(float((left * image).mean())) < 0.1
    assert len(skips) == 3
    assert base.shape == x.shape


# ---- the iterative decoder's sampling


def test_decoding_twice_gives_the_same_image_and_leaves_torchs_generator_alone(photograph):
    codec = iterative("model.steps=3")
    data = codec.encode(crop(photograph))
    state = torch.get_rng_state()
    first = codec.decode(data)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(codec.decode(data), first)


def test_another_sampling_seed_or_number_of_steps_gives_another_image_of_the_same_file(photograph):
    codec = iterative("model.steps=3")
    data = codec.encode(crop(photograph))
    decoded = [codec.decode(data)]
    for other in (iterative("model.steps=3", "model.sampling_seed=1"), iterative("model.steps=4")):
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
    codec = iterative(f"model.steps={steps}")
    seen = inputs_of(codec.decoder)
    codec.decode(codec.encode(crop(photograph)))
    times = [int(t) for _, t, *_ in seen]
    assert len(times) == steps
    assert times[0] == 999
    assert times == sorted(times, reverse=True)
    assert steps == 1 or times[-1] == 0


def test_a_sample_is_in_the_range_of_an_image():
    codec = iterative("model.steps=2")
    nn.init.normal_(codec.decoder.head.weight, std=10.0, generator=generator())
    with torch.no_grad():
        x_hat = codec(images(1, 3, 32, 32)).x_hat
    assert 0 <= float(x_hat.min()) < 0.01
    assert 0.99 < float(x_hat.max()) <= 1


# ---- the DCT shortcut


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [(), (NO_SKIPS,), (ITERATIVE, "model.steps=2")])
def test_with_the_shortcut_a_codec_starts_as_the_dcts(options, channels, photograph):
    codec = diffusion(DCT, *options, channels=channels)
    x = crop(photograph)[None, :channels] / 255
    with torch.no_grad():
        y_hat, _ = codec.bottleneck(codec.shortcut.analysis(x) + 0.5)
        wanted = codec.shortcut.synthesis(y_hat - 0.5)
        if codec.iterative:
            wanted = wanted.clamp(0, 1)  # what a sample is
        torch.testing.assert_close(codec(x).x_hat, wanted, atol=1e-5, rtol=0)
        noisy = codec.train()(x).x_hat - codec.shortcut.synthesis(codec.shortcut.analysis(x))
    coefficients = channels * 64
    steps = (1 / codec.shortcut.scale / codec.bottleneck.scale).flatten()[:coefficients]
    rounding = float((steps.square().sum() / 12 / coefficients).sqrt())
    assert 0.5 < float(noisy.std()) / rounding < 1.1, "the noise of the steps and nothing else"


@pytest.mark.parametrize("options", [(), (ITERATIVE, "model.steps=2")])
def test_with_the_shortcut_an_untrained_codec_is_above_28_db_and_without_it_is_not(options, photograph):
    psnr = {}
    for shortcut in ("dct", "none"):
        codec = diffusion(f"model.shortcut={shortcut}", *options)
        decoded = codec.decode(codec.encode(photograph))
        psnr[shortcut] = float(peak_signal_noise_ratio(decoded.float(), photograph.float(), data_range=255.0))
    assert psnr["dct"] > 28
    assert psnr["none"] < 20


# ---- the paper's accounting


def test_the_papers_own_numbers_give_the_papers_ratios():
    ratios = paper_ratios(270_000, 131_072)
    assert {name: round(ratio, 2) for name, ratio in ratios.items()} == {
        "paper_pixel_ratio": 2.06,
        "paper_memory_ratio": 4.12,
    }
    assert ratios["paper_memory_ratio"] == pytest.approx(4.32e6 / 1.048576e6, rel=1e-3)


def test_every_row_holds_the_papers_ratios_beside_the_one_of_real_files(photograph):
    codec = diffusion()
    for size, blocks in (((64, 64), 64), ((20, 33), 15)):
        row = codec.measure(NamedImage("a", crop(photograph, *size)))
        assert row["paper_pixel_ratio"] == pytest.approx(3 * size[0] * size[1] / (128 * blocks))
        assert row["paper_memory_ratio"] == 2 * row["paper_pixel_ratio"]
        assert row["ratio"] == 3 * size[0] * size[1] / row["bytes"]


# ---- arguments


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("model.skips=some", "coded, none"),
        ("model.shortcut=wavelet", "none, dct"),
        ("model.decoder=two_shot", "one_shot, iterative"),
        ("model.skip_channels=[8,2]", "lists of 3 integers from 1"),
        ("model.skip_channels=[8,2,0]", "lists of 3 integers from 1"),
        ("model.skip_channels=[8,2,2.5]", "lists of 3 integers from 1"),
        ("model.skip_channels=8", "lists of 3 integers from 1"),
        ("model.max_t=10.5", "the integers 0 to 1000"),
        ("model.steps=abc", "the integers 1 to 1000"),
        ("model.shortcut_step=-1", "numbers above 0"),
        ("model.shortcut_step=fine", "numbers above 0"),
        ("model.sampling_seed=-1", f"the integers 0 to {2**63 - 1}"),
        ("model.max_t=-1", "the integers 0 to 1000"),
        ("model.max_t=1001", "the integers 0 to 1000"),
        ("model.steps=0", "the integers 1 to 1000"),
        ("model.steps=1001", "the integers 1 to 1000"),
        ("data.channels=2", "1 (greyscale) and 3 (RGB)"),
    ],
)
def test_a_wrong_argument_is_one_line_with_its_key_its_value_and_what_is_allowed(override, allowed):
    with pytest.raises(ConfigError) as raised, Builder(composed("train", ["model=diffusion", override])) as build:
        build.codec("model")
    key, value = override.removeprefix("data.").split("=")
    said = str(raised.value)
    assert "\n" not in said
    assert (
        re.sub(r"[ \[\]]", "", said).startswith(re.sub(r"[ \[\]]", "", f"{key}={value}:")) or "channels=2" in said
    )
    assert said.endswith(f"allowed are {allowed}")


# ---- training


VARIANTS = [
    (),
    (NO_SKIPS,),
    (DCT,),
    (ITERATIVE,),
    (ITERATIVE, NO_SKIPS),
    (ITERATIVE, DCT),
]


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_is_taught_in_training(options):
    """By the third step: an end that starts at zero lets nothing through to what is behind it in the first."""
    codec = diffusion(*options).train()
    loss = RateDistortionLoss(rate_weight=0.01)
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-3)
    torch.manual_seed(0)
    taught = set()
    for seed in range(3):
        x = images(2, 3, 32, 32, seed=seed)
        optimizer.zero_grad()
        loss(*codec(x), x).loss.backward()
        for name, parameter in codec.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            if bool(parameter.grad.any()):
                taught.add(name)
        optimizer.step()
    assert {name for name, _ in codec.named_parameters()} - taught == set()


@pytest.mark.parametrize(("options", "lr"), [((), 1e-3), ((ITERATIVE,), 1e-3), ((DCT, "model.max_t=50"), 1e-3)])
def test_a_few_steps_of_real_training_lower_the_loss(options, lr, photographs):
    codec = diffusion(*options).train()
    crops = torch.stack([crop(image, 32, 32) for image in photographs] * 2)
    losses = []

    class Recorded(RateDistortionLoss):
        def __call__(self, *arguments: Tensor):
            terms = super().__call__(*arguments)
            losses.append(terms.total.item())
            return terms

    torch.manual_seed(0)
    codec.prepare_training(Recorded(rate_weight=0.001), lambda parameters: torch.optim.Adam(parameters, lr=lr))
    trainer = Trainer(
        accelerator="cpu",
        max_steps=20,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(codec, DataLoader(crops, batch_size=len(crops)))
    assert len(losses) == 20
    assert sum(losses[-5:]) / 5 < 0.95 * losses[0]


def test_the_first_step_of_training_does_not_drown_the_shortcut(photographs):
    codec = diffusion(DCT, "model.max_t=0").train()
    crops = torch.stack([crop(image, 32, 32) for image in photographs]).float() / 255
    before = (codec(crops).x_hat - crops).square().mean().item()
    optimizer = torch.optim.Adam(codec.parameters(), lr=5e-4)
    (codec(crops).x_hat - crops).square().mean().backward()
    optimizer.step()
    assert (codec(crops).x_hat - crops).square().mean().item() < 2 * before


def test_a_larger_step_of_the_shortcut_makes_smaller_files(photographs):
    image = crop(photographs[0], 128, 128)
    levels = []
    for step in (0.05, 0.2):
        codec = diffusion(DCT, f"model.shortcut_step={step}")
        levels.append(codec.g_a(image[None].float() / 255)[0].detach().sub(0.5).abs().mean().item())
    assert levels[1] < 0.5 * levels[0]


def test_an_iterative_run_is_decoded_in_the_steps_that_are_asked_for():
    codec = diffusion(ITERATIVE)
    set_steps(codec, 3)
    assert codec.steps == 3
    with pytest.raises(ValueError, match="steps=0: allowed are the integers 1 to 1000"):
        set_steps(codec, 0)
    with pytest.raises(ConfigError, match="only a run of model=diffusion_iterative"):
        set_steps(diffusion(), 3)
