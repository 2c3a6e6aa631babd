"""`codec` in pipes: `-` for standard input and output, readers that leave, streams that are closed."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cli_files import files, foreign, picture
from conftest import ROOT
from PIL import Image

from codec import bitstream
from codec.bitstream import Header
from codec.checkpoint import load_codec
from codec.cli import main
from codec.data.image_file import read_image

pytestmark = pytest.mark.usefixtures("here")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TINY_SOURCE = b"P5 1 1 255 \0"
CODEC = [sys.executable, "-m", "codec.cli"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture):
    """Runs a command with bytes on its standard input; gives the exit status and what it wrote."""

    def run(*arguments: object, given: bytes = b"") -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        status = main([*map(str, arguments)])
        out, err = capsysbinary.readouterr()
        return status, out, err.decode()

    return run


def standard_file(section: bytes) -> bytes:
    return bitstream.pack(Header("COMR", bytes(4), 16, 16, 3), [section])


# ---- what goes through


def test_an_image_goes_through_a_pipe_and_what_is_told_goes_beside_it(run, checkpoint: Path) -> None:
    picture("a.png")
    model = ("--checkpoint", checkpoint)
    status, data, err = run("compress", "-", "-", *model, given=Path("a.png").read_bytes())
    assert status == 0
    assert data == load_codec(checkpoint).encode(read_image("a.png"))
    assert err.startswith(f"- → -: 23×17, {len(data)} bytes")
    status, png, err = run("decompress", "-", "-", *model, given=data)
    assert (status, err) == (0, "- → -: 23×17\n")
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
    assert torch.equal(read_image(io.BytesIO(png)), load_codec(checkpoint).decode(data))
    assert run("decompress", "-", "b.webp", *model, given=data)[:2] == (0, "- → b.webp: 23×17\n".encode())
    assert files() == ["a.png", "b.webp"]


def test_a_source_in_a_pipe_is_as_large_as_what_came_wherever_its_pixels_end(run, checkpoint: Path) -> None:
    picture("a.tif", (64, 48))
    status, data, err = run("compress", "-", "-", "--checkpoint", checkpoint, given=Path("a.tif").read_bytes())
    bpp, ratio = 8 * len(data) / (64 * 48), 3 * 64 * 48 / len(data)
    assert (status, err) == (0, f"- → -: 64×48, {len(data):,} bytes, {bpp:.3f} bpp, 1:{ratio:.1f}\n")
    status, data, err = run("compress", "-", "-", "--checkpoint", checkpoint, given=TINY_SOURCE)
    assert err.endswith(f"; larger than its source, {len(TINY_SOURCE)} bytes\n")


def test_what_is_no_image_in_a_pipe_fails(run, checkpoint: Path) -> None:
    status, out, err = run("compress", "-", "-", "--checkpoint", checkpoint, given=b"no image")
    assert (status, out) == (1, b"")
    assert err.startswith("codec: -: ")
    assert "not an image" in err
    status, out, err = run("decompress", "-", "-", "--checkpoint", checkpoint, given=b"")
    assert (status, out) == (1, b"")
    assert err.startswith("codec: -: not a Quintet file")


def test_a_file_called_minus_is_one(run, checkpoint: Path) -> None:
    picture("a.png").rename("-")
    assert run("compress", "./-", "out/", "--checkpoint", checkpoint)[0] == 0
    assert files("out") == ["-.qnt"]


def test_info_and_extract_take_pipes(run) -> None:
    jpeg = picture("a.jpg").read_bytes()
    status, out, err = run("info", "-", given=standard_file(jpeg))
    assert (status, err) == (0, "")
    assert out.startswith("-: 16×16, 3 channels\n".encode())
    status, out, err = run("extract", "-", "-", given=standard_file(jpeg))
    assert (status, out, err) == (0, jpeg, f"- → -: JPEG stream, {len(jpeg):,} bytes\n")
    assert run("extract", "-", "b.jpg", given=standard_file(jpeg))[0] == 0
    assert Path("b.jpg").read_bytes() == jpeg
    status, _, err = run("extract", "-", "./", given=standard_file(jpeg))
    assert (status, err) == (2, "codec: error: - has no name: name the file to write\n")


@pytest.mark.parametrize(
    "arguments", [("-", "out/"), ("a.png", "-", "out"), ("a.png", "b.png", "-"), ("in", "-"), ("-", "-", "-")]
)
def test_a_pipe_takes_one_file(arguments: tuple[str, ...], run) -> None:
    for name in ("a.png", "b.png", "in/a.png"):
        picture(name)
    status, out, err = run("compress", *arguments, "--checkpoint", "never read")
    assert (status, out) == (2, b"")
    assert err.startswith("codec: error: - is standard input or output: it takes one file")


# ---- real streams


def test_two_commands_in_a_real_pipe(checkpoint: Path) -> None:
    picture("a.png")
    model = ("--checkpoint", str(checkpoint))
    with Path("a.png").open("rb") as image:
        first = subprocess.Popen(
            [*CODEC, "compress", "-", "-", *model], stdin=image, stdout=subprocess.PIPE, env=ENVIRONMENT
        )
    second = subprocess.run(
        [*CODEC, "decompress", "-", "out.png", *model],
        stdin=first.stdout,
        env=ENVIRONMENT,
        check=False,
        timeout=600,
    )
    first.stdout.close()
    assert (first.wait(timeout=600), second.returncode) == (0, 0)
    codec = load_codec(checkpoint)
    assert torch.equal(read_image("out.png"), codec.decode(codec.encode(read_image("a.png"))))


@pytest.mark.parametrize("arguments", [("models",), ("info", *["a.qnt"] * 99), ("extract", "a.qnt", "-")])
def test_a_reader_that_leaves_ends_the_command_without_a_word(arguments: tuple[str, ...]) -> None:
    foreign("a.qnt", standard_file(b"\xff\xd8\xff" + bytes(1 << 20)))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*CODEC, *arguments], stdout=write, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def shell(command: str) -> subprocess.CompletedProcess:
    line = command.replace("codec ", f"{sys.executable} -m codec.cli ", 1)
    return subprocess.run(
        ["sh", "-c", line], env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
    )


def test_closed_streams_are_no_fault(checkpoint: Path) -> None:
    picture("a.png")
    assert shell(f"codec compress a.png a.qnt --checkpoint '{checkpoint}' >&- 2>&- <&-").returncode == 0
    assert Path("a.qnt").read_bytes() == load_codec(checkpoint).encode(read_image("a.png"))
    assert shell("codec info a.qnt >&-").returncode == 0
    assert shell("codec info none.qnt >&- 2>&-").returncode == 1
    for command, name in [("extract a.qnt - >&-", "output"), ("info - <&-", "input")]:
        done = shell(f"codec {command}")
        assert (done.returncode, done.stderr) == (2, f"codec: error: standard {name} is closed\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    done = shell("codec models >/dev/full")
    assert (done.returncode, done.stderr) == (2, "codec: error: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="this system has no pseudo-terminals")
@pytest.mark.parametrize("arguments", [("extract", "a.qnt", "-"), ("info", "-")])
def test_data_is_neither_written_to_a_terminal_nor_read_from_it(arguments: tuple[str, ...]) -> None:
    import pty

    Path("a.qnt").write_bytes(standard_file(b"\xff\xd8\xff"))
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*CODEC, *arguments], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=ENVIRONMENT, check=False
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert b"is a terminal, and - is for data" in done.stderr
