"""What every codec under conf/model/ promises. A new scheme is tested here without a line being added."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LEARNED, MODELS, ROOT, lively_codec, make_codec, run_python
from torch import Tensor

from codec.bitstream import BitstreamError, Header, pack
from codec.checkpoint import save_weights
from codec.data.image_file import NamedImage
from codec.entropy.priors.context import ContextPrior
from codec.errors import ArgumentError
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.measure import measure

SIZES = [(1, 1), (7, 5), (65, 97), (300, 1), (130, 162)]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def codec(model: str) -> ImageCodec:
    return lively_codec(model)


@pytest.fixture(scope="module")
def grey_codec(model: str) -> ImageCodec:
    return make_codec(model, channels=1)


@pytest.fixture(scope="module", params=LEARNED)
def learned_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def learned(learned_name: str) -> LearnedCodec:
    return lively_codec(learned_name)


def crop(photograph: Tensor, height: int, width: int) -> Tensor:
    return photograph[:, :height, :width].contiguous()


def is_lossless(codec: ImageCodec, photograph: Tensor) -> bool:
    image = crop(photograph, 40, 40)
    return torch.equal(codec.decode(codec.encode(image)).cpu(), image)


@pytest.mark.parametrize("size", SIZES)
def test_any_size_comes_back_as_uint8_of_the_same_shape(codec: ImageCodec, photograph: Tensor, size: tuple) -> None:
    for image in (crop(photograph, *size), crop(photograph, *size)[:1]):
        decoded = codec.decode(codec.encode(image))
        assert decoded.dtype == torch.uint8
        assert decoded.shape == image.shape


@pytest.mark.parametrize("size", SIZES)
def test_a_greyscale_codec_takes_any_size(grey_codec: ImageCodec, photograph: Tensor, size: tuple) -> None:
    image = crop(photograph, *size)[:1]
    assert grey_codec.decode(grey_codec.encode(image)).shape == image.shape


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_greyscale_codec_refuses_colour(name: str, photograph: Tensor) -> None:
    with pytest.raises(ValueError, match="greyscale"):
        make_codec(name, channels=1).encode(photograph)


def test_what_is_no_image_is_refused(codec: ImageCodec, photograph: Tensor) -> None:
    for wrong in (photograph.float(), photograph[:2], photograph[None], photograph[:, :0]):
        with pytest.raises(ValueError, match="expected an image"):
            codec.encode(wrong)


def test_the_same_image_gives_the_same_file_every_time(codec: ImageCodec, photograph: Tensor) -> None:
    image = crop(photograph, 65, 97)
    first = codec.encode(image)
    torch.rand(7)  # another state of the random generator
    assert codec.encode(image) == first


def test_encoding_leaves_the_mode_as_it_was(learned: LearnedCodec, photograph: Tensor) -> None:
    for mode in (True, False):
        learned.train(mode)
        learned.decode(learned.encode(crop(photograph, 20, 20)))
        assert learned.training is mode


def test_a_codec_writes_at_every_quality_it_names_and_refuses_others(model: str, photograph: Tensor) -> None:
    codec, image = make_codec(model), crop(photograph, 65, 97)
    if codec.qualities is None:
        with pytest.raises(ArgumentError, match="quality=50: this codec has one rate only"):
            codec.set_quality(50)
        return
    integers = isinstance(codec.qualities, range)
    ends = (codec.qualities[0], codec.qualities[-1]) if integers else (codec.qualities[0], 500.5)
    sizes = []
    for quality in ends:
        codec.set_quality(quality)
        assert codec.quality == quality
        data = codec.encode(image)
        sizes.append(len(data))
        assert codec.decode(data).shape == image.shape
    assert sizes[0] != sizes[1]
    if codec.quality_grid is not None:  # which tells the direction
        assert sorted(codec.quality_grid) == list(codec.qualities)
        assert (codec.quality_grid[0] == ends[0]) == (sizes[0] < sizes[1])
    allowed = (
        f"allowed are the integers {ends[0]} to {ends[1]}" if integers else f"allowed are numbers from {ends[0]}"
    )
    for wrong in (ends[0] - 1, None, "high"):
        with pytest.raises(ArgumentError, match=f"^quality=.*: {allowed}$"):
            codec.set_quality(wrong)


def test_decoding_takes_the_options_it_names_and_no_others(codec: ImageCodec) -> None:
    for option, allowed in codec.decode_options.items():
        before = getattr(codec, option)
        codec.set_decoding(**{option: allowed[0]})
        assert getattr(codec, option) == allowed[0]
        with pytest.raises(ArgumentError, match=f"^{option}={allowed[-1] + 1}: allowed are the integers"):
            codec.set_decoding(**{option: allowed[-1] + 1})
        codec.set_decoding(**{option: before})
    with pytest.raises(ArgumentError, match="^zeal=3: this codec's decoder has no such option$"):
        codec.set_decoding(zeal=3)


def test_images_decode_to_more_than_one_grey(learned: LearnedCodec, photograph: Tensor) -> None:
    assert int(learned.decode(learned.encode(crop(photograph, 65, 97))).float().std(dim=(1, 2)).max()) > 0


def test_bits_are_counted_on_the_whole_file(codec: ImageCodec, photograph: Tensor) -> None:
    image = crop(photograph, 65, 97)
    row = measure(codec, NamedImage("a", image)).row
    size = len(codec.encode(image))
    assert row["bytes"] == size
    assert row["bpp"] == 8 * size / (65 * 97)
    assert row["ratio"] == 3 * 65 * 97 / size


def test_the_estimate_is_the_size_of_the_real_file(learned: LearnedCodec, photographs: list[Tensor]) -> None:
    for photograph in photographs:
        image = crop(photograph, 200, 300)
        size, estimate = 8 * len(learned.encode(image)), learned.estimated_bits(image)
        header = 8 * (24 + 4 * learned.section_count)
        assert abs(size - estimate) <= 0.02 * estimate + header


def test_the_estimate_is_the_sum_of_named_parts_and_needs_no_synthesis(
    learned: LearnedCodec, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = crop(photograph, 64, 64)
    with torch.no_grad():
        output = learned(learned.prepared(image))
    assert all(re.fullmatch(r"[xyz]|y_\d", part) for part in output.bits)
    assert all(bits.shape == (1,) and bits > 0 for bits in output.bits.values())
    torch.testing.assert_close(output.total_bits, torch.stack([*output.bits.values()]).sum(0))
    parts = output.bpp_by_part()
    assert list(parts) == ([f"bpp_{part}" for part in output.bits] if len(output.bits) > 1 else [])
    assert not parts or float(sum(parts.values())) == pytest.approx(
        float(output.total_bits) / output.x_hat[0, 0].numel()
    )
    monkeypatch.setitem(vars(learned), "g_s", lambda *_: pytest.fail("the synthesis ran"))
    assert learned.estimated_bits(image) == pytest.approx(float(output.total_bits), rel=1e-6)


def test_another_process_decodes_the_same_with_any_threads(photograph: Tensor, tmp_path: Path) -> None:
    """The same symbols exactly; the same pixels, where a lossy synthesis in floats may be off by one."""
    image = crop(photograph, 130, 200)
    for name in LEARNED:
        save_weights(lively_codec(name), tmp_path / f"{name}.safetensors")
        (tmp_path / f"{name}.qnt").write_bytes(lively_codec(name).encode(image))
    script = """
import hashlib, sys, numpy, torch
from codec.checkpoint import load_codec
from codec.entropy import EntropyBottleneck

decompress = EntropyBottleneck.decompress

def recorded(self, *arguments):
    y_hat = decompress(self, *arguments)
    for tensor in y_hat:
        symbols.update(tensor.numpy().tobytes())
    return y_hat

EntropyBottleneck.decompress = recorded
for name in sys.argv[1:]:
    for threads in (1, 2):
        torch.set_num_threads(threads)
        symbols = hashlib.sha256()
        image = load_codec(f"{name}.safetensors").decode(open(f"{name}.qnt", "rb").read())
        numpy.save(f"{name}.{threads}.npy", image.numpy())
        print(name, symbols.hexdigest())
"""
    printed = run_python("-c", script, *LEARNED, cwd=tmp_path, PYTHONPATH=str(ROOT)).stdout.splitlines()
    assert printed[::2] == printed[1::2]
    assert [line.split()[0] for line in printed[::2]] == LEARNED
    for name in LEARNED:
        codec = lively_codec(name)
        here = codec.decode((tmp_path / f"{name}.qnt").read_bytes()).numpy().astype(int)
        allowed = 0 if is_lossless(codec, photograph) else 1
        for threads in (1, 2):
            assert np.abs(np.load(tmp_path / f"{name}.{threads}.npy").astype(int) - here).max() <= allowed, name


def test_a_file_of_other_weights_is_refused(learned_name: str, learned: LearnedCodec, photograph: Tensor) -> None:
    data = learned.encode(crop(photograph, 20, 20))
    with pytest.raises(BitstreamError, match="weights"):
        make_codec(learned_name, seed=1).decode(data)


def test_a_file_of_another_scheme_is_refused(learned: LearnedCodec, photograph: Tensor) -> None:
    data = learned.encode(crop(photograph, 20, 20))
    others = [codec for codec in map(lively_codec, LEARNED) if codec.tag != learned.tag]
    assert others
    for other in others:
        with pytest.raises(BitstreamError, match="scheme"):
            other.decode(data)


def test_every_scheme_has_a_tag_of_its_own() -> None:
    tags = {type(codec): codec.tag for codec in map(lively_codec, LEARNED)}
    assert len(set(tags.values())) == len(tags)


def damaged(data: bytes) -> list[bytes]:
    """Cut at every byte of the header and at many places after, and with bytes flipped."""
    cuts = [*range(min(32, len(data))), *np.linspace(32, len(data) - 1, 40).astype(int)]
    flips = [*range(min(32, len(data))), *np.linspace(0, len(data) - 1, 40).astype(int)]
    flipped = [data[:n] + bytes([data[n] ^ bit]) + data[n + 1 :] for n in flips for bit in (1, 128)]
    return [*(data[:n] for n in cuts if n < len(data)), *flipped, data + b"\0", b""]


def test_a_section_too_short_for_the_claimed_size_is_refused_before_any_is_decoded(
    learned: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    if type(learned).check_sections is not LearnedCodec.check_sections:  # or its bottlenecks look, one by one
        monkeypatch.setattr(learned, "decompress", lambda *_: pytest.fail("decoding has begun"))
    claim = Header(learned.tag, learned.fingerprint(), 9400, 9400, 3)
    for short in range(learned.section_count):
        sections = [b"" if n == short else bytes(1 << 23) for n in range(learned.section_count)]
        with pytest.raises(BitstreamError):
            learned.decode(pack(claim, sections))


def test_a_damaged_learned_file_raises_bitstream_error(learned: LearnedCodec, photograph: Tensor) -> None:
    for data in damaged(learned.encode(crop(photograph, 65, 97))):
        with pytest.raises(BitstreamError) as raised:
            learned.decode(data)
        assert "\n" not in str(raised.value)


def test_a_damaged_file_of_any_codec_raises_bitstream_error_or_gives_an_image(
    codec: ImageCodec, photograph: Tensor
) -> None:
    for data in damaged(codec.encode(crop(photograph, 65, 97))):
        try:  # formats without a checksum cannot tell every damage
            assert codec.decode(data).dtype == torch.uint8
        except BitstreamError as error:
            assert "\n" not in str(error)


def test_the_format_is_found_in_the_readme() -> None:
    assert "codec/bitstream.py" in (ROOT / "README.md").read_text()


def test_a_file_of_a_prior_that_rounds_its_weights_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (make_codec("conv_baseline", overrides=("prior=channel_context",)) for _ in range(2))
    data = first.encode(torch.zeros(3, 16, 16, dtype=torch.uint8))
    monkeypatch.setattr(ContextPrior, "arithmetic", "weights of 24 bits")
    with pytest.raises(BitstreamError, match="written with weights"):
        second.decode(data)
