"""ComCNN, a standard codec, RecCNN: what the file holds, what its quality does, what is refused."""

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comcnn_codecs import CODECS, crop, lively, small
from conftest import ROOT, composed, images, make_codec, run_python
from PIL import Image
from torch import Tensor, nn

from codec import bitstream
from codec.baselines import PillowCodec
from codec.bitstream import BitstreamError
from codec.checkpoint import build_codec, save_weights
from codec.standards import STANDARDS
from codec.training.config import Builder, ConfigError
from codec.training.results import read_results

PIL_FORMATS = {"jpeg": "JPEG", "webp": "WEBP", "avif": "AVIF", "jpeg2000": "JPEG2000"}


def stream_of(data: bytes) -> bytes:
    return bitstream.unpack(data)[1][-1]


def with_stream(data: bytes, stream: bytes, quality: bytes | None = None) -> bytes:
    """The file with another section in the place of the codec's."""
    header, sections = bitstream.unpack(data)
    first = sections[:-1] if quality is None else [quality]
    return bitstream.pack(header, [*first, stream])


# ---- the file


@pytest.mark.parametrize("name", STANDARDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_at_full_size_it_starts_exactly_at_the_standard_codec(name: str, channels: int, photograph: Tensor) -> None:
    codec, standard = small(f"model.codec={name}", "model.scale=1", channels=channels), CODECS[name]
    image = crop(photograph)[:channels].contiguous()
    data = codec.encode(image)
    assert stream_of(data) == standard.encode(image)
    assert torch.equal(codec.decode(data), standard.decode(standard.encode(image)))


def test_at_half_size_it_starts_at_the_resampled_image(photograph: Tensor) -> None:
    codec, image = small(), crop(photograph)
    half = F.interpolate(image[None] / 255, scale_factor=0.5, mode="bicubic", antialias=True)
    standard = CODECS["jpeg"]
    stream = standard.encode((half[0].clamp(0, 1) * 255).round().byte())
    data = codec.encode(image)
    assert stream_of(data) == stream
    double = F.interpolate(standard.decode(stream)[None] / 255, scale_factor=2, mode="bicubic")
    wanted = (double[0].clamp(0, 1) * 255).round()
    assert (codec.decode(data).float() - wanted).abs().max() <= 1


@pytest.mark.parametrize("name", STANDARDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2])
def test_the_section_is_the_codecs_own_file_of_the_compact_image(
    name: str, channels: int, scale: int, photograph: Tensor
) -> None:
    codec = lively(small(f"model.codec={name}", f"model.scale={scale}", channels=channels))
    image = crop(photograph)[:channels].contiguous()
    with torch.no_grad():
        y = codec.com(codec.prepared(image), None)[0]
    compact = (y.clamp(0, 1) * 255).round().byte()
    stream = stream_of(codec.encode(image))
    assert stream == CODECS[name].encode(compact)
    with Image.open(io.BytesIO(stream)) as picture:
        assert (picture.format, picture.size) == (PIL_FORMATS[name], (96 // scale, 64 // scale))
        assert np.array(picture).shape[:2] == (64 // scale, 96 // scale)


@pytest.mark.parametrize("name", STANDARDS)
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("reduction", ["none", "max_pooling", "unshuffle"])
def test_any_size_comes_back_with_its_channels(name: str, scale: int, reduction: str, photograph: Tensor) -> None:
    codec = lively(
        small(
            f"model.codec={name}", f"model.scale={scale}", f"model.reduction={reduction}", "model.blocks=residual"
        )
    )
    for height, width in ((1, 1), (2, 1), (1, 40), (3, 5), (33, 18)):
        for channels in (1, 3):
            image = crop(photograph, height, width)[:channels].contiguous()
            assert codec.decode(codec.encode(image)).shape == image.shape


@pytest.mark.parametrize("reduction", ["max_pooling", "unshuffle"])
def test_reduced_layers_see_half_the_resolution(reduction: str) -> None:
    codec, seen = small("model.scale=1", f"model.reduction={reduction}"), []
    for layer in codec.rec.body:
        layer.register_forward_hook(lambda module, x, out: seen.append(tuple(out.shape[1:])))
    with torch.no_grad():
        assert codec.rec(images(1, 3, 31, 40), None).shape == (1, 3, 31, 40)
    assert seen == [(8, 16, 20)] * 4


def test_reccnn_has_the_papers_layers() -> None:
    codec = make_codec("comcnn_reccnn", channels=1)
    convolutions = [module for module in codec.rec.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.in_channels, conv.out_channels) for conv in convolutions] == [(1, 64), *[(64, 64)] * 18, (64, 1)]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in codec.rec.modules()) == 18
    compact = [module for module in codec.com.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.out_channels, conv.stride) for conv in compact] == [(64, (1, 1)), (64, (2, 2)), (1, (1, 1))]


def test_plain_layers_start_around_the_identity() -> None:
    """Eighteen random ones in a row taught nothing in a thousand steps."""
    for block in small().rec.body:
        centre = block[0].weight.detach()[:, :, 1, 1]
        assert float(centre.diagonal().mean()) == pytest.approx(1, abs=0.2)
        assert float(centre.mean()) < 0.3


# ---- quality


def test_a_higher_quality_makes_a_larger_file_that_is_nearer(photograph: Tensor) -> None:
    codec, image = small("model.scale=1", "model.train_quality=[5,60]"), crop(photograph)
    sizes, errors = [], []
    for quality in (5, 20, 40, 60):
        codec.set_quality(quality)
        data = codec.encode(image)
        sizes.append(len(data))
        errors.append(float((codec.decode(data).float() - image.float()).square().mean()))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


def test_the_decoder_reads_the_quality_from_the_file(photograph: Tensor) -> None:
    codec, image = lively(small("model.train_quality=[5,60]")), crop(photograph)
    codec.set_quality(10)
    data = codec.encode(image)
    assert bitstream.unpack(data)[1][0] == bytes([10])
    decoded = codec.decode(data)
    codec.set_quality(60)
    assert torch.equal(codec.decode(data), decoded)
    assert not torch.equal(codec.decode(with_stream(data, stream_of(data), bytes([60]))), decoded)


def test_a_model_of_one_quality_spends_no_byte_on_it(photograph: Tensor) -> None:
    image = crop(photograph)
    assert len(bitstream.unpack(small().encode(image))[1]) == 1
    assert len(bitstream.unpack(small("model.train_quality=[5,60]").encode(image))[1]) == 2


def test_both_networks_are_told_the_quality_they_code_at(photograph: Tensor) -> None:
    codec, told = small("model.train_quality=[5,60]"), []
    for network in (codec.com, codec.rec):
        network.register_forward_pre_hook(lambda module, arguments: told.append(arguments[1].tolist()))
    codec.set_quality(25)
    codec.decode(codec.encode(crop(photograph)))
    assert told == [[0.25], [0.25]], "a step of twice that of quality 50"


def test_training_meets_the_whole_range_of_qualities_and_evaluation_one() -> None:
    codec = small("model.train_quality=[5,60]")
    torch.manual_seed(0)
    drawn = codec._drawn_qualities(1000)
    assert (min(drawn), max(drawn)) == (5, 60)
    low = sum(quality < 25 for quality in drawn) / 1000
    assert low == pytest.approx(math.log2(5) / math.log2(12.5), abs=0.05), "every octave of steps as often"
    assert set(small()._drawn_qualities(10)) == {40}


# ---- what is refused


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("model.codec=gif", "jpeg, webp, avif, jpeg2000"),
        ("model.quality=0", "the integers 1 to 95"),
        ("model.quality=96", "the integers 1 to 95"),
        ("model.quality=40.5", "the integers 1 to 95"),
        ("model.scale=3", "the integers 1 to 2"),
        ("model.layers=2", "the integers from 3"),
        ("model.width=0", "the integers from 1"),
        ("model.blocks=dense", "plain, residual, unet"),
        ("model.reduction=half", "none, max_pooling, unshuffle"),
        ("model.gradient=none", "straight_through, alternate"),
        ("model.com_after=-1", "the integers from 0"),
        ("model.train_quality=50", "null and [lowest, highest] within 1 to 95"),
        ("model.train_quality=[50]", "null and [lowest, highest] within 1 to 95"),
        ("model.train_quality=[60,5]", "null and [lowest, highest] within 1 to 95"),
        ("model.train_quality=[5,200]", "null and [lowest, highest] within 1 to 95"),
        ("data.channels=4", "1 (greyscale) and 3 (RGB)"),
        ("model.layers=7", "even numbers, with blocks=residual, which come in pairs"),
    ],
)
def test_a_wrong_argument_is_one_line_that_says_what_is_allowed(override: str, allowed: str) -> None:
    config = composed("train", ["model=comcnn_reccnn", "model.blocks=residual", override])
    with pytest.raises(ConfigError) as raised, Builder(config) as build:
        build.codec("model")
    said = str(raised.value)
    assert "\n" not in said
    assert said.replace(", ", ",").startswith(f"{override}:")
    assert said.endswith(f"allowed are {allowed}")


def test_a_quality_out_of_the_range_trained_for_is_refused(photograph: Tensor) -> None:
    config = composed("train", ["model=comcnn_reccnn", "model.train_quality=[5,30]"])
    line = r"model\.quality=40: allowed are the integers 5 to 30$"
    with pytest.raises(ConfigError, match=line), Builder(config) as build:
        build.codec("model")
    codec = small("model.train_quality=[5,60]")
    with pytest.raises(ValueError, match=r"^quality=61: allowed are the integers 5 to 60$"):
        codec.set_quality(61)
    data = codec.encode(crop(photograph))
    for quality in (b"\4", b"\x3d"):
        with pytest.raises(BitstreamError, match=r"quality \d+: this codec writes 5 to 60"):
            codec.decode(with_stream(data, stream_of(data), quality))
    for quality in (b"", b"\0\x28", b"\xff" * 2000):
        with pytest.raises(BitstreamError, match=rf"takes one byte: the file has {len(quality)} for it"):
            codec.decode(with_stream(data, stream_of(data), quality))


@pytest.mark.parametrize("name", STANDARDS)
def test_a_section_of_another_size_is_refused_before_it_is_decoded(
    name: str, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = small(f"model.codec={name}")
    data = codec.encode(crop(photograph))
    monkeypatch.setattr(PillowCodec, "decode", lambda *_: pytest.fail("decoding has begun"))
    for size in ((32, 47), (33, 48), (1000, 1000)):
        other = with_stream(data, CODECS[name].encode(torch.zeros(3, *size, dtype=torch.uint8)))
        with pytest.raises(BitstreamError, match=rf"claims {size[1]}×{size[0]} pixels, not 48×32"):
            codec.decode(other)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_a_section_too_short_for_the_size_it_claims_is_refused_before_it_is_decoded(
    name: str, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = small(f"model.codec={name}")
    header, sections = bitstream.unpack(codec.encode(crop(photograph)))
    large = dataclasses.replace(header, height=8000, width=8000)
    stream = bytearray(stream_of(codec.encode(crop(photograph))))
    side = {"jpeg": b"\xff\xc0\0\x11\x08", "webp": b"\x9d\x01\x2a"}[name]  # what is before height and width
    at = stream.index(side) + len(side)
    stream[at : at + 4] = 2 * (4000).to_bytes(2, "big" if name == "jpeg" else "little")
    sections[-1] = bytes(stream)
    monkeypatch.setattr(PillowCodec, "decode", lambda *_: pytest.fail("decoding has begun"))
    with pytest.raises(BitstreamError, match="is too short for 4000×4000 pixels"):
        codec.decode(bitstream.pack(large, sections))


@pytest.mark.parametrize("name", STANDARDS)
def test_a_section_of_other_channels_is_refused(name: str, photograph: Tensor) -> None:
    codec = small(f"model.codec={name}", channels=1)
    data = codec.encode(crop(photograph)[:1])
    other = CODECS[name].encode(crop(photograph, 32, 48))
    with pytest.raises(BitstreamError, match="holds 3 channels"):
        codec.decode(with_stream(data, other))


@pytest.mark.parametrize("name", STANDARDS)
def test_a_damaged_section_is_refused_in_one_line_or_gives_an_image(name: str, photograph: Tensor) -> None:
    """The file's checksum finds damage by chance; this is a section that someone made."""
    codec = small(f"model.codec={name}")
    data = codec.encode(crop(photograph))
    stream = stream_of(data)
    places = [*range(30), *np.linspace(30, len(stream) - 1, 30).astype(int)]
    made = [stream[:n] for n in places] + [stream[:n] + bytes([stream[n] ^ 64]) + stream[n + 1 :] for n in places]
    others = [b"", b"GIF89a", *(other.encode(crop(photograph, 32, 48)) for other in CODECS.values())]
    refused = 0
    for section in [*made, *others]:
        try:
            assert codec.decode(with_stream(data, section)).shape == (3, 64, 96)
        except BitstreamError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused >= 30


def test_a_checkpoint_brings_the_codec_back(photograph: Tensor) -> None:
    codec = small("model.train_quality=[5,60]", "model.scale=1")
    again = build_codec(codec.model_config).eval()
    again.load_state_dict(codec.state_dict())
    data = codec.encode(crop(photograph))
    assert torch.equal(again.decode(data), codec.decode(data))


def test_evaluate_measures_a_run_at_another_quality(tmp_path) -> None:
    save_weights(small("model.train_quality=[5,60]", "model.scale=1"), tmp_path / "run.safetensors")
    bpp = {}
    for quality in (5, 60):
        options = ("data=samples", "data.limit=1", "data.eval_crop=64", "data.num_workers=0", f"name=q{quality}")
        run_python(ROOT / "evaluate.py", "run=run.safetensors", f"quality={quality}", *options, cwd=tmp_path)
        (results,) = (tmp_path / "runs").glob(f"q{quality}-*/results.json")
        bpp[quality] = read_results(results)["bpp"]
    assert 0 < 2 * bpp[5] < bpp[60]
    wrong = ("run=run.safetensors", "quality=61", *options)
    failed = run_python(ROOT / "evaluate.py", *wrong, cwd=tmp_path, check=False)
    assert failed.returncode == 2
    assert failed.stderr.strip() == "error: quality=61: allowed are the integers 5 to 60"
