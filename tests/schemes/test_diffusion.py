"""The diffusion scheme's codec: the paper's shapes and accounting, honest skips, and wrong arguments."""

import re
from collections.abc import Callable

import pytest
import torch
from conftest import composed, crop, images
from diffusion_codecs import DCT, ITERATIVE, NO_SKIPS, WAVELET, diffusion

from codec import bitstream
from codec.data.image_file import NamedImage
from codec.measure import measure
from codec.networks.modes import never_roughly
from codec.schemes.diffusion import paper_ratios
from codec.training.config import Builder, ConfigError

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
    assert [tuple(skip.shape[1:]) for skip in skips] == [(8, 64, 64), (4, 128, 128)]


@pytest.mark.parametrize(
    "options", [(), (ITERATIVE,), (DCT,), (ITERATIVE, DCT, NO_SKIPS), (WAVELET,), (ITERATIVE, WAVELET)]
)
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
    with torch.no_grad(), never_roughly():
        _, quarter, half = codec.g_a(images(1, 3, 64, 64))
        stem, first, second = features
        torch.testing.assert_close(quarter, codec.skips[0].project(second))
        finest = [codec.skips[1].project(first), codec.skips[2].project(stem)]
        torch.testing.assert_close(half, torch.cat(finest, 1))


# ---- honest files


def strings_of(section: bytes, count: int) -> list[bytes]:
    reader = bitstream.StringReader(section)
    strings = [reader.next() for _ in range(count)]
    reader.end()
    return strings


@pytest.mark.parametrize(
    ("options", "count"), [((), 3), ((NO_SKIPS,), 1), ((ITERATIVE, NO_SKIPS), 1), ((WAVELET,), 5)]
)
def test_a_file_holds_a_string_for_the_latent_and_one_for_the_skips_of_every_size(options, count, photograph):
    codec = diffusion(*options)
    _, (section,) = bitstream.unpack(codec.encode(crop(photograph)))
    assert all(len(string) > 0 for string in strings_of(section, count))
    assert len(codec.bottleneck.channels) == count


@pytest.mark.parametrize("decoder", ["one_shot", "iterative"])
@pytest.mark.parametrize("training", [False, True])
def test_the_bits_of_the_latent_and_of_all_skips_are_counted_for_every_image(decoder, training):
    codec = diffusion(f"model.decoder={decoder}", "model.steps=2").train(training)
    outputs = []
    codec.bottleneck.register_forward_hook(lambda module, y, out: outputs.append(out[1]))
    output = codec(images(3, 3, 32, 32))
    (told,) = outputs
    assert list(output.bits) == ["y", "y_1", "y_2"]
    assert all(bits.shape == (3,) and float(bits.min()) > 0 for bits in output.bits.values())
    assert all(torch.equal(bits, told[part]) for part, bits in output.bits.items())
    assert output.total_bits.shape == (3,)


def test_more_skip_channels_cost_more_bits(photograph):
    sizes = [
        len(diffusion(*options).encode(crop(photograph)))
        for options in ((NO_SKIPS,), ("model.skip_channels=[1,1,1]",), ())
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def must_not_run(*_: object) -> None:
    raise AssertionError("the encoder ran while decoding")


@pytest.mark.parametrize("options", [(DCT,), (ITERATIVE, DCT), (NO_SKIPS,), (WAVELET,)])
def test_nothing_but_the_file_reaches_the_decoder(options, photograph):
    codec = diffusion(*options, "model.steps=2")
    data = codec.encode(crop(photograph))
    wanted = codec.decode(data)
    other = diffusion(*options, "model.steps=2")  # has seen no image
    encoder = [] if other.encoder is None else [other.stem, other.to_latent, *other.encoder]
    for module in (*encoder, *(skip.project for skip in getattr(other, "skips", ()))):
        module.forward = must_not_run
    if other.shortcut is not None:
        other.shortcut.analysis = must_not_run
    with pytest.raises(AssertionError, match="the encoder ran"):
        other.encode(crop(photograph))
    assert torch.equal(other.decode(data), wanted)


@pytest.mark.parametrize(("options", "count"), [((), 3), ((ITERATIVE,), 3), ((WAVELET,), 5)])
def test_every_string_changes_what_is_decoded(options, count, photograph):
    codec = diffusion(*options, "model.steps=2")
    x, other = crop(photograph)[None] / 255, images(1, 3, 64, 64)
    with torch.no_grad():
        mine, theirs = (strings_of(codec.compress(image)[0], count) for image in (x, other))
        before = codec.decompress([bitstream.pack_strings(mine)], (64, 64))
        for n in range(count):
            mixed = bitstream.pack_strings([*mine[:n], theirs[n], *mine[n + 1 :]])
            assert not torch.allclose(codec.decompress([mixed], (64, 64)), before, atol=1e-6), n


@pytest.mark.parametrize("options", [(), (ITERATIVE,), (DCT,), (WAVELET,)])
def test_what_is_decoded_is_what_validation_sees(options, photograph):
    codec = diffusion(*options, "model.steps=2")
    x = crop(photograph)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(codec.decompress(codec.compress(x), (64, 64)), codec(x).x_hat)


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
        row = measure(codec, NamedImage("a", crop(photograph, *size))).row
        assert row["paper_pixel_ratio"] == pytest.approx(3 * size[0] * size[1] / (128 * blocks))
        assert row["paper_memory_ratio"] == 2 * row["paper_pixel_ratio"]
        assert row["ratio"] == 3 * size[0] * size[1] / row["bytes"]


# ---- arguments


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("model.skips=some", "coded, none"),
        ("model.shortcut=haar", "none, dct, wavelet"),
        ("model.decoder=two_shot", "one_shot, iterative, none"),
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
    key, value = override.split("=")
    said = str(raised.value)
    assert "\n" not in said
    assert re.sub(r"[ \[\]]", "", said).startswith(re.sub(r"[ \[\]]", "", f"{key}={value}:"))
    assert said.endswith(f"allowed are {allowed}")


def test_a_wavelet_without_skips_is_refused_since_they_are_its_details():
    with pytest.raises(ConfigError, match="skips=none: with shortcut=wavelet allowed is coded"):
        diffusion(WAVELET, NO_SKIPS)
