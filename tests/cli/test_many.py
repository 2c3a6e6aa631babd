"""Many files in one run of `codec`: their names, what is left out, what fails alone, several at a time."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from cli_files import files, foreign, one_line, picture, pictures
from conftest import ROOT, make_codec, wait_for
from PIL import Image
from torch import Tensor

from codec.checkpoint import save_weights
from codec.cli.console import UsageError
from codec.cli.paths import distinct
from codec.data.image_file import read_image
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

pytestmark = pytest.mark.usefixtures("here")


# ---- names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.gif", "b.gif"], ["a.qnt", "b.qnt"]),
        (["a.gif", "a.webp", "b.gif"], ["a.gif.qnt", "a.webp.qnt", "b.qnt"]),
        (["x/a.gif", "a.gif"], ["x/a.qnt", "a.qnt"]),
        (["a.gif", "a.webp", "a.gif.png"], ["f/a.gif.qnt", "a.webp.qnt", "a.gif.png.qnt"]),
    ],
)
def test_files_keep_their_suffix_where_they_would_be_one(names: list[str], expected: list[str]) -> None:
    made = distinct([(Path(name), "f") for name in names], ".qnt")
    assert [path.as_posix() for path in made] == expected


def test_files_of_one_name_get_their_folder_s() -> None:
    made = distinct([(Path("a.png"), "x"), (Path("a.png"), "y")], ".qnt")
    assert [path.as_posix() for path in made] == ["x/a.png.qnt", "y/a.png.qnt"]
    with pytest.raises(UsageError, match="give them different names"):
        distinct([(Path("a.png"), "x"), (Path("a.png"), "x")], ".qnt")


def test_two_sources_for_one_name_go_there_and_back(run) -> None:
    pictures("in/a.gif", "in/a.webp", "in/b.png", "a.gif")
    assert run("compress", "in", "files")[0] == 0
    assert files("files") == ["a.gif.qnt", "a.webp.qnt", "b.qnt"]
    assert run("decompress", "files", "back")[0] == 0
    assert files("back") == ["a.gif.png", "a.webp.png", "b.png"]
    assert run("compress", "in/a.gif", "a.gif", "in/a.gif", "both")[0] == 0  # named twice is done once
    assert len(files("both")) == 2


def test_linked_folders_are_followed_in_both_directions(run) -> None:
    picture("elsewhere/a.png")
    Path("in").mkdir()
    Path("in/link").symlink_to("../elsewhere")
    Path("in/loop").symlink_to(".")
    assert run("compress", "in", "files")[0] == 0
    assert files("files") == ["link/a.qnt"]
    Path("linked").mkdir()
    Path("linked/link").symlink_to("../files")
    assert run("decompress", "linked", "back")[0] == 0
    assert files("back") == ["link/link/a.png"]


def test_a_name_that_is_not_utf_8_is_a_name_like_others(run) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    picture("a.png").rename(name)
    status, out, err = run("compress", name, "out/")
    assert (status, err) == (0, "")
    assert out.startswith("caf\\xe9.png → out/caf\\xe9.qnt: 23×17")
    Path(name).write_text("no image")
    status, _, err = run("compress", name, "other/")
    assert status == 1
    assert one_line(err).startswith("codec: caf\\xe9.png: not an image")


# ---- what is left out, and what fails alone


def test_what_exists_is_left_out_when_asked(run) -> None:
    pictures("in/a.png", "in/b.png")
    Path("out").mkdir()
    Path("out/a.qnt").write_text("mine")
    status, out, err = run("compress", "in", "out", "--skip-existing")
    assert (status, err) == (0, "codec: 1 that exists already is left out\n")
    assert out.startswith("in/b.png → out/b.qnt: ")
    assert Path("out/a.qnt").read_text() == "mine"
    before = Path("out/b.qnt").stat()
    status, out, err = run("compress", "in", "out", "--skip-existing")
    assert (status, out, err) == (0, "", "codec: 2 that exist already are left out\n")
    assert Path("out/b.qnt").stat() == before
    Path("out/a.qnt").unlink()
    Path("out/a.qnt").symlink_to("nothing")
    assert run("compress", "in", "out", "--skip-existing")[0] == 2
    assert run("compress", "in", "out", "--skip-existing", "--force")[0] == 2


def test_a_new_input_of_the_same_name_has_both_written_and_takes_neither_for_the_other(
    run, codec: LearnedCodec
) -> None:
    pictures("in/a.png")
    run("compress", "in", "out")
    pictures("none.png", "in/a.webp")
    assert run("compress", "in", "out", "--skip-existing")[0] == 0
    assert files("out") == ["a.png.qnt", "a.qnt", "a.webp.qnt"]
    for name in ("a.png", "a.webp"):
        assert Path(f"out/{name}.qnt").read_bytes() == codec.encode(read_image(f"in/{name}"))


def test_inputs_that_cannot_be_read_fail_alone(run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures("good.png", "in/fault.png", "in/memory.png", "last.png")
    Path("in/text.png").write_text("no image")
    Path("in/folder.png").mkdir()
    Path("in/link.png").symlink_to("nothing")
    Path("empty").mkdir()
    encode, faults = type(codec).encode, iter([None, ValueError("a bug"), MemoryError(), None])

    def faulty(self: LearnedCodec, image: Tensor, metadata: Metadata) -> bytes:
        fault = next(faults)
        if fault is not None:
            raise fault
        return encode(self, image, metadata)

    monkeypatch.setattr(type(codec), "encode", faulty)
    inputs = ("good.png", "none.png", "n" * 300, "empty", "in", "last.png")
    status, out, err = run("compress", *inputs, "out")
    assert status == 1
    assert files("out") == ["good.qnt", "last.qnt"]
    assert [line.split(" ")[1] for line in out.splitlines()] == ["good.png", "last.png"]
    for line in (
        "codec: none.png: no such file or folder",
        f"codec: {'n' * 300}: File name too long",
        "codec: empty: nothing to do in this folder",
        "codec: in/fault.png: ValueError, a fault of this program, see above",
        "codec: in/memory.png: out of memory",
        "codec: in/text.png: not an image",
        "codec: 6 of 8 files failed",
    ):
        assert line in err
    assert "a bug" in err  # with its traceback
    assert "faulty" in err


def test_an_image_that_a_codec_has_no_file_for_is_told_in_one_line(run) -> None:
    save_weights(make_codec("comcnn_reccnn"), "jpeg.safetensors")
    Image.new("L", (140000, 1)).save("wide.png")
    status, _, err = run("compress", "wide.png", "a.qnt", "--checkpoint", "jpeg.safetensors")
    assert status == 1
    assert one_line(err) == "codec: wide.png: width=70000: JPEG allows 1 to 65500 pixels"


def test_an_output_whose_name_would_be_too_long_fails_alone(run) -> None:
    pictures("in/a.gif", "in/a.webp", f"in/{'b' * 250}.gif", f"in/{'b' * 250}.png")
    for options in ((), ("--force", "--strip"), ("--skip-existing",)):
        status, _, err = run("compress", "in", "out", *options)
        assert status == 1
        assert files("out") == ["a.gif.qnt", "a.webp.qnt"]
        assert err.count("bb.gif.qnt: File name too long") == 1


def test_a_line_names_its_file_also_where_the_reason_has_those_letters(run) -> None:
    Path("a").write_bytes(foreign("b.qnt").read_bytes()[:-1])
    assert one_line(run("decompress", "a", "a.png")[2]).startswith("codec: a: the file is cut or damaged")


def test_a_fault_of_the_program_before_any_file_shows_where_it_is(run, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("a.png")
    monkeypatch.setattr(LearnedCodec, "to", lambda *_: int("our bug"))
    with pytest.raises(ValueError, match="our bug"):
        run("compress", "a.png", "a.qnt")


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_an_input_that_is_not_there_costs_no_model(command: str, run) -> None:
    Path("empty").mkdir()
    out = "a.qnt" if command == "compress" else "a.png"
    for arguments, line in [(("none", out), "none: no such file"), (("empty", "out"), "empty: nothing to do")]:
        status, _, err = run(command, *arguments, "--checkpoint", "never read")
        assert status == 1
        assert one_line(err).startswith(f"codec: {line}")


# ---- several at a time


def test_several_files_are_done_at_a_time_and_told_in_order(
    run, codec: LearnedCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        picture(f"in/{n}.png", seed=n)
    Path("in/1.png").write_text("no image")
    encode, together = type(codec).encode, threading.Barrier(3)

    def waiting(self: LearnedCodec, image: Tensor, metadata: Metadata) -> bytes:
        together.wait(timeout=300)  # until all three that can be read are here
        return encode(self, image, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(type(codec), "encode", waiting)
        status, out, err = run("compress", "in", "out", "--jobs", 4)
    assert status == 1
    assert [line.split(" → ")[0] for line in out.splitlines()] == [
        "[1/4] in/0.png",
        "[3/4] in/2.png",
        "[4/4] in/3.png",
    ]
    assert err.startswith("codec: in/1.png: not an image")
    assert run("compress", "in", "alone")[0] == 1
    for name in files("alone"):
        assert Path("out", name).read_bytes() == Path("alone", name).read_bytes()
    threads = torch.get_num_threads()
    assert run("decompress", "out", "back", "--jobs", 2)[0] == 0
    assert torch.get_num_threads() == threads
    assert files("back") == ["0.png", "2.png", "3.png"]


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_a_number_of_jobs_that_is_none_is_refused(jobs: str, run) -> None:
    foreign("a.qnt")
    status, _, err = run("decompress", "a.qnt", "a.png", f"--jobs={jobs}")
    assert status == 2
    assert "--jobs" in err


def test_ctrl_c_ends_all_that_are_in_work_and_leaves_no_part(checkpoint: Path) -> None:
    for n in range(40):
        picture(f"in/{n:02}.png", (1600, 1200), seed=n)
    arguments = ["compress", "in", "out", "--jobs", "2", "--checkpoint", checkpoint]
    # Where these tests run in the background of a script, interrupts are ignored, and so they would be here.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from codec.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *arguments]
    log = Path("log")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=ENVIRONMENT)
    wait_for(lambda: "[1/40]" in log.read_text(), process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    said = log.read_text().splitlines()
    assert said[-1] == "codec: interrupted; finished files are whole, the others were not written"
    assert len(said) < 40
    assert all(name.endswith(".qnt") for name in files("out"))
    assert set(files("out")) >= {line.split("out/")[1].split(":")[0] for line in said[:-1] if "out/" in line}
