"""`codec extract`, `codec info` and `codec compress --quality` on files with a standard codec's part."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_files import runner
from conftest import make_codec
from PIL import Image

from codec import bitstream
from codec.bitstream import Header
from codec.checkpoint import load_codec, save_weights
from codec.cli.extract import stream_of

pytestmark = pytest.mark.usefixtures("here")
SMALL = ("model.layers=4", "model.width=4")
KINDS = {
    "jpeg": ("JPEG", ".jpg"),
    "webp": ("WebP", ".webp"),
    "avif": ("AVIF", ".avif"),
    "jpeg2000": ("JPEG 2000", ".jp2"),
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture):
    return runner(capsys)


def written(path: str, codec: str = "jpeg", *overrides: str) -> bytes:
    """Writes a file of comcnn_reccnn, 48×32 pixels; returns the standard codec's part of it."""
    model = make_codec("comcnn_reccnn", overrides=(*SMALL, f"model.codec={codec}", *overrides))
    data = model.encode((torch.arange(3 * 32 * 48).reshape(3, 32, 48) % 251).byte())
    Path(path).write_bytes(data)
    return bitstream.unpack(data)[1][-1]


def plain(path: str) -> None:
    """Writes a whole file of a scheme with a coder of its own."""
    header = Header("cvb1", bytes(4), 16, 16, 3)
    Path(path).write_bytes(bitstream.pack(header, [b"abc", b""]))


@pytest.mark.parametrize("codec", KINDS)
@pytest.mark.parametrize("overrides", [(), ("model.train_quality=[5,60]",)])
def test_a_viewer_opens_what_is_extracted(codec: str, overrides: tuple, run) -> None:
    kind, suffix = KINDS[codec]
    section = written("a.qnt", codec, *overrides)
    status, out, err = run("extract", "a.qnt", f"b{suffix}")
    assert (status, err) == (0, "")
    assert out == f"a.qnt → b{suffix}: {kind} stream, {len(section):,} bytes\n"
    assert Path(f"b{suffix}").read_bytes() == section
    with Image.open(f"b{suffix}") as picture:
        assert np.array(picture).shape == (16, 24, 3)


@pytest.mark.parametrize("codec", KINDS)
def test_a_folder_gets_a_file_with_the_suffix_of_its_kind(codec: str, run) -> None:
    section = written("a.qnt", codec)
    Path("out").mkdir()
    name = f"a{KINDS[codec][1]}"
    for folder in ("out", "new/", "."):
        assert run("extract", "a.qnt", folder)[0] == 0
        assert (Path(folder) / name).read_bytes() == section


def test_what_exists_is_overwritten_with_force_only(run) -> None:
    section = written("a.qnt")
    Path("b.jpg").write_text("mine")
    status, out, err = run("extract", "a.qnt", "b.jpg")
    assert (status, out) == (2, "")
    assert err == "codec: error: b.jpg exists already: --force overwrites it\n"
    assert Path("b.jpg").read_text() == "mine"
    assert run("extract", "a.qnt", "b.jpg", "--force")[0] == 0
    assert Path("b.jpg").read_bytes() == section


@pytest.mark.parametrize("name", ["b.png", "b", "b.qnt", "a.qnt"])
def test_a_name_of_another_kind_is_refused(name: str, run) -> None:
    written("a.qnt")
    before = Path("a.qnt").read_bytes()
    status, _, err = run("extract", "a.qnt", name, "--force")
    stem = Path(name).stem
    assert status == 2
    assert err == f"codec: error: {name}: the stream in this file is JPEG, extract writes e.g. {stem}.jpg\n"
    assert [path.name for path in Path().iterdir()] == ["a.qnt"]
    assert Path("a.qnt").read_bytes() == before


def test_a_file_without_a_standard_codecs_part_is_refused(run) -> None:
    plain("a.qnt")
    status, out, err = run("extract", "a.qnt", "b.jpg")
    assert (status, out) == (1, "")
    assert err == "codec: a.qnt: no section of it is a standard codec's file\n"
    assert not Path("b.jpg").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-9], "a.qnt: the file is cut or damaged"),
        (lambda data: b"\xff\xd8\xff" + data, "a.qnt: not a Quintet file"),
    ],
)
def test_a_damaged_file_is_refused(damage, said: str, run) -> None:
    written("a.qnt")
    Path("a.qnt").write_bytes(damage(Path("a.qnt").read_bytes()))
    status, _, err = run("extract", "a.qnt", "b.jpg")
    assert status == 1
    assert err.startswith(f"codec: {said}")
    assert len(err.splitlines()) == 1


def test_a_missing_file_is_refused(run) -> None:
    assert run("extract", "a.qnt", "b.jpg")[::2] == (1, "codec: a.qnt: No such file or directory\n")


@pytest.mark.parametrize("codec", KINDS)
def test_info_names_what_a_section_is(codec: str, run) -> None:
    section = written("a.qnt", codec, "model.train_quality=[5,60]")
    status, out, _ = run("info", "a.qnt")
    assert status == 0
    assert f"  sections     1 + {len(section):,} ({KINDS[codec][0]} stream) bytes, " in out


def test_info_names_nothing_that_is_a_schemes_own(run) -> None:
    plain("a.qnt")
    assert "  sections     3 + 0 bytes, " in run("info", "a.qnt")[1]


@pytest.mark.parametrize("format", ["JPEG", "JPEG2000", "WEBP", "PNG"])
def test_a_stream_is_known_by_its_first_bytes_and_the_suffix_is_pillows(format: str) -> None:
    file = io.BytesIO()
    Image.new("L", (9, 5)).save(file, format)
    for suffix in stream_of(file.getvalue()).suffixes:
        assert Image.registered_extensions()[suffix] == format


@pytest.mark.parametrize("section", [b"", b"\xff\xd8", b"RIFF\0\0\0\0WAVE", b"abc" * 9])
def test_what_begins_otherwise_is_no_stream(section: bytes) -> None:
    assert stream_of(section) is None


def test_compress_takes_a_quality_where_the_codec_does(run) -> None:
    save_weights(make_codec("comcnn_reccnn", overrides=(*SMALL, "model.train_quality=[5,60]")), "many.safetensors")
    save_weights(make_codec("conv_baseline", overrides=("model.widths=[8,8]",)), "none.safetensors")
    few = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(few).resize((64, 64)).save("a.png")
    for quality in (5, 60):
        many = ("--checkpoint", "many.safetensors", "--quality", quality)
        assert run("compress", "a.png", f"{quality}.qnt", *many)[0] == 0
        assert bitstream.unpack(Path(f"{quality}.qnt").read_bytes())[1][0] == bytes([quality])
        assert run("decompress", f"{quality}.qnt", f"{quality}.png", "--checkpoint", "many.safetensors")[0] == 0
    assert load_codec("many.safetensors").quality == 40
    assert Path("5.qnt").stat().st_size < Path("60.qnt").stat().st_size
    for options, said in [
        (("--checkpoint", "many.safetensors", "--quality", 70), "--quality 70: allowed are the integers 5 to 60"),
        (("--checkpoint", "none.safetensors", "--quality", 40), "--quality 40: the codec of this checkpoint has"),
    ]:
        status, _, err = run("compress", "a.png", "b.qnt", *options)
        assert status == 2
        assert said in err
        assert not Path("b.qnt").exists()


def test_the_help_of_extract_names_its_arguments(run) -> None:
    status, out, _ = run("extract", "--help")
    assert status == 0
    for text in ("FILE", "OUT", "--force", "no model"):
        assert text in out
    assert "extract" in run("--help")[1]
