"""Where `codec compress` takes pictures from: named pipes, `-` without a suffix, folders that cannot be opened."""

import io
import os
import sys
import threading
from pathlib import Path
from zlib import crc32

import pytest
from cli_files import files, one_line, picture
from PIL import Image

from codec.data.image_file import ImageFileError, image_size, read_image

pytestmark = pytest.mark.usefixtures("here")


def pipe(name: str, data: bytes) -> threading.Thread:
    """A named pipe into which `data` is written as soon as it is opened."""
    os.mkfifo(name)
    writer = threading.Thread(target=Path(name).write_bytes, args=(data,))
    writer.start()
    return writer


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_read_like_a_file(run) -> None:
    for n, suffix in enumerate((".png", ".tif")):
        data = picture(f"a{suffix}", (64, 64)).read_bytes()
        run("compress", f"a{suffix}", f"a{n}.qnt")
        writer = pipe(f"pipe{n}", data)
        status, out, err = run("compress", f"pipe{n}", f"b{n}.qnt")
        writer.join()
        assert (status, err) == (0, "")
        assert "larger than its source" not in out
        assert Path(f"a{n}.qnt").read_bytes() == Path(f"b{n}.qnt").read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_reading_and_asking_for_a_size_take_named_pipes() -> None:
    picture("a.tif", (6, 4))
    for n, read in enumerate((lambda path: tuple(read_image(path).shape[1:]), image_size)):
        writer = pipe(f"pipe{n}", Path("a.tif").read_bytes())
        assert read(f"pipe{n}") == (4, 6)
        writer.join()


def test_a_tga_is_known_by_its_end_and_an_older_one_by_its_suffix(run, monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture("a.tga").read_bytes()
    run("compress", "a.tga", "a.qnt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    status, _, err = run("compress", "-", "b.qnt")
    assert (status, err) == (0, "")
    assert Path("a.qnt").read_bytes() == Path("b.qnt").read_bytes()
    Path("old.tga").write_bytes(data[:-26])
    with Path("old.tga").open("rb") as file:
        assert (read_image(file) == read_image("a.tga")).all()
    with pytest.raises(ImageFileError, match="JXL, TGA"):
        read_image(io.BytesIO(data[:-26]))


def test_what_is_no_image_is_named_once(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no image")))
    status, _, err = run("compress", "-", "a.qnt")
    assert status == 1
    assert one_line(err).startswith("codec: -: not an image we read")


@pytest.mark.skipif(sys.platform != "linux", reason="how long a path may be differs")
def test_a_folder_that_cannot_be_looked_into_is_a_fault_and_the_others_are_done(run) -> None:
    picture("in/a.png")
    here = os.open("in", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=here)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    status, _, err = run("compress", "in", "out")
    assert status == 1
    assert files("out") == ["a.qnt"]
    fault, count = err.splitlines()
    assert fault.startswith("codec: in/xxx")
    assert fault.endswith(": File name too long")
    assert count == "codec: 1 of 2 files failed"


def test_a_picture_whose_colours_travel_only_as_a_profile_keeps_them(run) -> None:
    picture("a.png")
    gamma = b"gAMA" + (55556).to_bytes(4)
    data = Path("a.png").read_bytes()
    at = data.index(b"IDAT") - 4
    Path("a.png").write_bytes(data[:at] + bytes([0, 0, 0, 4]) + gamma + crc32(gamma).to_bytes(4) + data[at:])
    assert run("compress", "a.png", "a.qnt")[0] == 0
    assert run("decompress", "a.qnt", "b.png")[0] == 0
    with Image.open("b.png") as image:
        assert image.info["icc_profile"][36:40] == b"acsp"
