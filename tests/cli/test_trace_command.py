"""`codec info --trace`: a line a section, then a line a pass, as far as decoding comes; of files of every kind."""

import re
from pathlib import Path

import pytest
from cli_files import one_line
from conftest import crop, make_codec
from torch import Tensor
from traces import trace_of

from codec import bitstream
from codec.bitstream import StringReader, pack_strings
from codec.checkpoint import load_pretrained, save_weights
from codec.entropy.trace import short_hash
from codec.learned_codec import LearnedCodec

pytestmark = pytest.mark.usefixtures("here", "one_thread")
CHECKERBOARD = ("model.widths=[8,8]", "model.latent_channels=4", "prior=checkerboard", "prior.features=8")


@pytest.fixture
def image(photograph: Tensor) -> Tensor:
    return crop(photograph, 32, 48)


@pytest.fixture
def checkerboard() -> LearnedCodec:
    codec = make_codec("conv_baseline", overrides=CHECKERBOARD)
    save_weights(codec, "checkerboard.safetensors")
    return codec


def traced_lines(out: str) -> list[str]:
    """Those that --trace adds."""
    before, _, lines = out.partition("  checksum     good\n")
    assert before
    return lines.splitlines()


def test_each_pass_has_its_part_its_symbols_and_its_hashes(run, checkerboard: LearnedCodec, image: Tensor) -> None:
    data = checkerboard.encode(image)
    Path("a.qnt").write_bytes(data)
    status, out, err = run("info", "--trace", "a.qnt", "--checkpoint", "checkerboard.safetensors")
    assert (status, err) == (0, "")
    (section,) = bitstream.unpack(data)[1]
    first, *lines = traced_lines(out)
    assert first == f"  section 1    {len(section):,} bytes, {short_hash(section)}"
    pattern = r"  pass (\d+) +(\w+) +([\d,]+) symbols, told ([0-9a-f]{8}), decoded ([0-9a-f]{8})"
    found = [re.fullmatch(pattern, line).groups() for line in lines]
    assert [groups[:3] for groups in found] == [
        ("1", "z", "48"),
        ("2", "y", "192"),
        ("3", "y", "192"),
    ]
    assert [groups[3:] for groups in found] == [one[2:] for one in trace_of(checkerboard, data)]
    assert run("info", "--trace", "a.qnt", "--checkpoint", "checkerboard.safetensors")[1] == out


def test_of_a_standard_codec_s_file_a_hash_is_told(run, image: Tensor) -> None:
    codec = make_codec("comcnn_reccnn", overrides=("model.layers=4", "model.width=4", "model.train_quality=[5,60]"))
    save_weights(codec, "c.safetensors")
    Path("a.qnt").write_bytes(codec.encode(image))
    quality, stream = bitstream.unpack(Path("a.qnt").read_bytes())[1]
    status, out, err = run("info", "--trace", "a.qnt", "--checkpoint", "c.safetensors")
    assert (status, err) == (0, "")
    assert traced_lines(out) == [
        f"  section 1    1 byte, {short_hash(quality)}",
        f"  section 2    {len(stream):,} bytes, {short_hash(stream)}",
    ]


def test_a_pretrained_model_is_found_by_the_file(run, image: Tensor) -> None:
    Path("a.qnt").write_bytes(load_pretrained("lossless_unet").encode(image))
    status, out, err = run("info", "--trace", "a.qnt")
    assert (status, err) == (0, "")
    assert [line.split()[:3:2] for line in traced_lines(out)] == [
        *(["section", f"{len(section):,}"] for section in bitstream.unpack(Path("a.qnt").read_bytes())[1]),
        ["pass", "y"],
        *3 * [["pass", "x"]],
    ]


@pytest.mark.parametrize(
    ("last", "said"),
    [((), "ends inside the header, before its string length"), ((b"\xff" * 4 + bytes(400),), "an escaped integer")],
)
def test_what_was_decoded_before_an_error_stays(
    run, checkerboard: LearnedCodec, image: Tensor, last: tuple[bytes, ...], said: str
) -> None:
    """Of a section that lacks its last string, or has one that fails."""
    data = checkerboard.encode(image)
    header, (section,) = bitstream.unpack(data)
    reader = StringReader(section)
    shorter = pack_strings([reader.next(), reader.next(), *last])
    Path("bad.qnt").write_bytes(bitstream.pack(header, [shorter]))
    Path("good.qnt").write_bytes(data)
    status, out, err = run("info", "--trace", "bad.qnt", "good.qnt", "--checkpoint", "checkerboard.safetensors")
    assert status == 1
    assert one_line(err).startswith("codec: bad.qnt: ")
    assert said in err
    bad, good = (traced_lines(part) for part in out.split("good.qnt: "))
    *expected, third = good[1:]
    if last:
        expected.append(third[: third.index("decoded")] + "decoded nothing")
    assert bad[1:] == expected


def test_a_file_of_other_weights_and_a_damaged_one_are_named(
    run, checkerboard: LearnedCodec, image: Tensor
) -> None:
    data = make_codec("conv_baseline", seed=1, overrides=CHECKERBOARD).encode(image)
    Path("other.qnt").write_bytes(data)
    Path("damaged.qnt").write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    for options in [(), ("--checkpoint", "checkerboard.safetensors")]:
        status, out, err = run("info", "--trace", "other.qnt", "damaged.qnt", *options)
        assert (status, "  pass" in out) == (1, False)
        other, damaged = err.splitlines()
        assert other.startswith("codec: other.qnt: the file was written with weights ")
        assert damaged.startswith("codec: damaged.qnt: the file is cut or damaged")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "cuda"), "--checkpoint, --device and --max-pixels are of use with --trace only"),
        (("--checkpoint", "c"), "--checkpoint, --device and --max-pixels are of use with --trace only"),
        (("--max-pixels", "9"), "--checkpoint, --device and --max-pixels are of use with --trace only"),
        (("--trace", "--device", "abacus"), "--device abacus: "),
        (("--trace", "--max-pixels", "0"), "--max-pixels 0: allowed are integers from 1"),
        (("--trace", "--checkpoint", "none.ckpt"), "no checkpoint at none.ckpt: "),
    ],
)
def test_options_that_cannot_be_are_one_line(run, options: tuple[str, ...], said: str) -> None:
    status, out, err = run("info", "a.qnt", *options)
    assert (status, out) == (2, "")
    assert one_line(err).startswith(f"codec: error: {said}")


def test_the_largest_image_is_what_max_pixels_says(run, checkerboard: LearnedCodec, image: Tensor) -> None:
    Path("a.qnt").write_bytes(checkerboard.encode(image))
    traced = ("--trace", "--checkpoint", "checkerboard.safetensors", "--max-pixels")
    assert "the limit is 1000" in one_line(run("info", "a.qnt", *traced, "1000")[2])
    assert run("info", "a.qnt", *traced, "1536")[0] == 0
