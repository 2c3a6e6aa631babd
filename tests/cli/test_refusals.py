"""What `codec` refuses, and files that fail on their own: one line says why, and no part of a file is left."""

import itertools
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from cli_files import files, foreign, one_line, picture, pictures
from PIL import Image
from torch import Tensor

from codec import bitstream
from codec.errors import EncodeError
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata

pytestmark = pytest.mark.usefixtures("here")


# ---- what is refused before any work


def refused(run, *arguments: str) -> str:
    """The one line that says why; nothing has been written and no model has been loaded."""
    before = files()
    command, *rest = arguments
    status, out, err = run(command, *rest, "--checkpoint", "never read")
    assert status == 2
    assert out == ""
    assert files() == before
    assert err.startswith("codec: error: ")
    return one_line(err)


def test_what_exists_is_refused_up_front_and_overwritten_with_force(run) -> None:
    pictures("a.png", "b.png")
    Path("out").mkdir()
    Path("out/b.qnt").write_text("mine")
    line = refused(run, "compress", "a.png", "b.png", "out")
    assert line.endswith("out/b.qnt exists already: --force overwrites it, --skip-existing leaves it")
    assert files("out") == ["b.qnt"]
    assert run("compress", "a.png", "b.png", "out", "--force")[0] == 0
    assert Path("out/b.qnt").read_bytes()[:3] == bitstream.MAGIC


def test_files_that_no_name_tells_apart_are_refused(run) -> None:
    pictures("x/y/a.png", "z/y/a.png")
    line = refused(run, "compress", "x/y/a.png", "z/y/a.png", "out")
    assert line.endswith("2 inputs would all become y/a.png.qnt: give them different names")


def test_a_link_to_nothing_is_not_replaced_unless_it_is_said(run) -> None:
    picture("a.png")
    Path("a.qnt").symlink_to("none")
    Path("out").symlink_to("nowhere")
    assert "a.qnt is a link to what is not there: --force overwrites it" in refused(
        run, "compress", "a.png", "a.qnt"
    )
    assert "out/a.qnt: out is no folder" in refused(run, "compress", "a.png", "out/", "--force")
    assert run("compress", "a.png", "a.qnt", "--force")[0] == 0
    assert not Path("a.qnt").is_symlink()
    assert not Path("none").exists()


def test_several_inputs_and_a_file_as_output_are_refused(run) -> None:
    pictures("a.png", "b.png")
    Path("c").write_text("")
    assert "c is a file: several inputs need a folder" in refused(run, "compress", "a.png", "b.png", "c")
    assert "c.qnt is a file's name" in refused(run, "compress", "a.png", "b.png", "c.qnt")


def test_an_image_is_never_overwritten_by_its_file(run) -> None:
    """`codec compress *.png --force`, the output forgotten, would take the last image for it."""
    pictures("a.png", "b.png")
    assert "b.png: compress writes e.g. b.qnt" in refused(run, "compress", "a.png", "b.png", "--force")
    shutil.move("a.png", "a")
    assert "is an input and would be overwritten" in refused(run, "compress", "a", "a", "--force")


def test_an_output_that_is_no_image_name_is_refused(run) -> None:
    foreign("a.qnt")
    assert "out: decompress writes e.g. out.png" in refused(run, "decompress", "a.qnt", "out")
    assert "b.qnt: decompress writes e.g. b.png" in refused(run, "decompress", "a.qnt", "b.qnt")


def test_a_folder_and_a_device_are_never_overwritten(run) -> None:
    picture("a.png")
    Path("out/a.qnt").mkdir(parents=True)
    assert "out/a.qnt exists already and is no file" in refused(run, "compress", "a.png", "out", "--force")
    assert "is no file" in refused(run, "compress", "a.png", os.devnull, "--force")


def test_a_file_in_place_of_a_folder_is_named(run) -> None:
    picture("a.png")
    Path("out").write_text("")
    assert "out/deep/a.qnt: out is no folder" in refused(run, "compress", "a.png", "out/deep/a.qnt")
    assert "out/a.qnt: out is no folder" in refused(run, "compress", "a.png", "out/")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_cannot_be_written_is_named(run) -> None:
    picture("a.png")
    Path("locked").mkdir(mode=0o555)
    assert "locked/a.qnt: locked is not writable" in refused(run, "compress", "a.png", "locked")
    assert "locked/x/a.qnt: locked is not writable" in refused(run, "compress", "a.png", "locked/x/")


def test_a_folder_that_the_system_calls_unwritable_is_named(run, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("a.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "out/a.qnt: . is not writable" in refused(run, "compress", "a.png", "out/")


@pytest.mark.parametrize("arguments", [("", "out"), ("a.png", "")])
def test_an_empty_path_is_not_the_current_folder(arguments: tuple[str, str], run) -> None:
    picture("a.png")
    status, _, err = run("compress", *arguments)
    assert status == 2
    assert "the path is empty" in err
    assert files() == ["a.png"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--device", "abacus"), "--device abacus: "),
        (("--max-pixels", "0"), "--max-pixels 0: allowed are integers from 1"),
        (("--checkpoint", "none"), "no checkpoint at none"),
        (("--checkpoint", "a.png"), "a.png is not a checkpoint"),
    ],
)
def test_an_option_that_cannot_be_met_is_one_line(option: tuple[str, str], message: str, run) -> None:
    picture("a.png")
    status, out, err = run("compress", "a.png", "a.qnt", *option)
    assert (status, out) == (2, "")
    assert message in one_line(err)
    assert files() == ["a.png"]


# ---- files that fail, one by one


def test_a_file_that_fails_leaves_nothing_and_the_others_are_done(
    run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        picture(f"in/{name}.png")
    count = itertools.count()

    def encode(self: LearnedCodec, image: Tensor, metadata: Metadata) -> bytes:
        if next(count) == 1:
            raise EncodeError("the coder\nstumbled")
        return b"file"

    monkeypatch.setattr(type(codec), "encode", encode)
    status, out, err = run("compress", "in", "out")
    assert status == 1
    assert [line.split(" ")[1] for line in out.splitlines()] == ["in/a.png", "in/c.png"]
    assert err.splitlines() == ["codec: in/b.png: the coder", "codec: 1 of 3 files failed"]
    assert files("out") == ["a.qnt", "c.qnt"]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] can't allocate memory: 9 bytes"), OSError(28, "disk is full")],
)
def test_what_the_machine_lacks_is_one_line(
    error: Exception, run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: LearnedCodec, image: Tensor, metadata: Metadata) -> bytes:
        raise error

    picture("a.png")
    monkeypatch.setattr(type(codec), "encode", encode)
    status, _, err = run("compress", "a.png", "a.qnt")
    assert status == 1
    assert one_line(err).startswith("codec: a.png: ")
    assert "memory" in err or "disk is full" in err
    assert files() == ["a.png"]


def test_a_disk_that_fills_up_while_writing_leaves_no_part(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(self))

    picture("a.png")
    run("compress", "a.png", "a.qnt")
    monkeypatch.setattr(Path, "replace", replace)
    for arguments in (("compress", "a.png", "b.qnt"), ("decompress", "a.qnt", "b.png")):
        status, _, err = run(*arguments)
        assert status == 1
        assert "No space left on device" in one_line(err)
    assert files() == ["a.png", "a.qnt"]


def test_an_interrupt_leaves_no_part_and_says_so(run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(self: LearnedCodec, image: Tensor, metadata: Metadata) -> bytes:
        raise KeyboardInterrupt

    picture("a.png")
    monkeypatch.setattr(type(codec), "encode", encode)
    status, _, err = run("compress", "a.png", "a.qnt")
    assert status == 130
    assert one_line(err).startswith("codec: interrupted")
    assert files() == ["a.png"]


def test_what_is_no_image_is_named(run) -> None:
    Path("a.png").write_text("not an image")
    status, _, err = run("compress", "a.png", "a.qnt")
    assert status == 1
    assert one_line(err).startswith("codec: a.png: not an image we read")
    assert files() == ["a.png"]


def test_what_is_coded_already_is_not_coded_again(run) -> None:
    picture("a.png")
    assert run("compress", "a.png", "a.qnt")[0] == 0
    status, _, err = run("compress", "a.qnt", "b.qnt")
    assert (status, one_line(err)) == (1, "codec: a.qnt: coded already: `codec decompress` makes an image of it")


def test_a_file_of_other_weights_a_damaged_and_a_cut_one_are_named(run, codec: LearnedCodec) -> None:
    whole = codec.encode(torch.zeros(3, 16, 16, dtype=torch.uint8))
    Path("in").mkdir()
    foreign("in/damaged.qnt", whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    foreign("in/cut.qnt", whole[:-1])
    foreign("in/text.qnt", b"hello, world")
    foreign("in/weights.qnt", scheme=codec.tag)
    foreign("in/scheme.qnt", scheme="none")
    status, out, err = run("decompress", "in", "out")
    assert (status, out) == (1, "")
    cut, damaged, scheme, text, weights, count = err.splitlines()
    assert cut.startswith("codec: in/cut.qnt: the file is cut or damaged")
    assert damaged.startswith("codec: in/damaged.qnt: the file is cut or damaged")
    assert scheme.startswith("codec: in/scheme.qnt: the file was written by scheme none")
    assert text.startswith("codec: in/text.qnt: not a Quintet file")
    assert weights.startswith("codec: in/weights.qnt: the file was written with weights 00000000")
    assert count == "codec: 5 of 5 files failed"
    assert files("out") == []


# ---- large images


def test_a_claim_of_a_huge_image_is_refused_with_little_memory(
    run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(codec), "decompress", lambda *_: pytest.fail("decoding has begun"))
    foreign("a.qnt", scheme=codec.tag, fingerprint=codec.fingerprint(), height=100_000, width=100_000)
    tracemalloc.start()
    try:
        status, _, err = run("decompress", "a.qnt", "b.png")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert status == 1
    assert "claims 100000×100000 pixels: the limit is" in one_line(err)
    assert "--max-pixels" in err
    assert peak < 16 << 20
    assert files() == ["a.qnt"]


def test_the_largest_image_is_what_max_pixels_says_in_both_directions(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    picture("a.png", (40, 30))
    status, _, err = run("compress", "a.png", "a.qnt")
    assert status == 1
    assert "1200 pixels" in one_line(err)
    assert "--max-pixels" in err
    assert run("compress", "a.png", "a.qnt", "--max-pixels", "2000")[0] == 0
    status, _, err = run("decompress", "a.qnt", "b.png")
    assert status == 1
    assert "--max-pixels" in one_line(err)
    assert run("decompress", "a.qnt", "b.png", "--max-pixels", "2000")[0] == 0
    assert Image.MAX_IMAGE_PIXELS == 1000
