"""`codec compress | decompress | info` as users meet it: what is written, what is refused, in which words."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, make_codec, run_python
from PIL import Image
from torch import Tensor

from codec import bitstream, cli
from codec.bitstream import Header
from codec.checkpoint import load_codec, save_weights
from codec.cli import main
from codec.data.image_file import read_image
from codec.learned_codec import LearnedCodec

NARROW = ("model.widths=[8,8]", "model.latent_channels=4")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained codec for colour."""
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    codec = make_codec("conv_baseline", overrides=NARROW)
    codec.encode(torch.zeros(3, 4, 4, dtype=torch.uint8))  # compiles the coder where that has not been done
    save_weights(codec, path)
    return path


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> LearnedCodec:
    return load_codec(checkpoint)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(checkpoint: Path, capsys: pytest.CaptureFixture):
    """Runs a command with the checkpoint; gives the exit status and what it printed."""

    def run(command: str, *arguments: str | Path) -> tuple[int, str, str]:
        model = (
            []
            if command in ("info", "models") or "--checkpoint" in arguments
            else ["--checkpoint", str(checkpoint)]
        )
        try:
            status = main([command, *map(str, arguments), *model])
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return run


def picture(
    path: str | Path, size: tuple[int, int] = (23, 17), mode: str = "RGB", seed: int = 0, **options
) -> Path:
    """An image file of smooth random content; `size` is (width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    few = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(few).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, **options)
    return path


def pictures(*paths: str) -> None:
    for seed, path in enumerate(paths):
        picture(path, seed=seed)


def files(folder: str | Path = ".") -> list[str]:
    """Every file below `folder`, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir())


def foreign(path: str | Path, data: bytes | None = None, **changes: object) -> Path:
    """A whole file that no codec of ours wrote."""
    fields = {"scheme": "cvb1", "fingerprint": bytes(4), "height": 16, "width": 16, "channels": 3, **changes}
    path = Path(path)
    path.write_bytes(bitstream.pack(Header(**fields), [b"abc"]) if data is None else data)
    return path


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


# ---- what is written


def test_an_image_goes_to_a_file_and_comes_back_as_the_codec_decodes_it(run, codec: LearnedCodec) -> None:
    image = read_image(picture("a.png"))
    status, out, err = run("compress", "a.png", "a.qnt")
    assert (status, err) == (0, "")
    size = Path("a.qnt").stat().st_size
    assert one_line(out).startswith(f"a.png → a.qnt: 23×17, {size} bytes, {8 * size / (23 * 17):.3f} bpp")
    assert Path("a.qnt").read_bytes() == codec.encode(image)
    status, out, err = run("decompress", "a.qnt", "b.png")
    assert (status, out, err) == (0, "a.qnt → b.png: 23×17\n", "")
    assert torch.equal(read_image("b.png"), codec.decode(Path("a.qnt").read_bytes()))


def test_many_inputs_go_to_a_folder_that_is_made(run) -> None:
    pictures("a.png", "b.jpg", "c.webp")
    status, out, err = run("compress", "a.png", "b.jpg", "c.webp", "made/for them")
    assert (status, err) == (0, "")
    assert [line.split("]")[0] for line in out.splitlines()] == ["[1/3", "[2/3", "[3/3"]
    assert files("made") == ["for them/a.qnt", "for them/b.qnt", "for them/c.qnt"]


def test_a_folder_keeps_its_sub_folders_there_and_back(run) -> None:
    for name in ("in/a.png", "in/x/a.png", "in/x/y/b.bmp"):
        picture(name)
    (Path("in") / "notes.txt").write_text("not an image")
    assert run("compress", "in", "files")[0] == 0
    assert files("files") == ["a.qnt", "x/a.qnt", "x/y/b.qnt"]
    assert run("decompress", "files", "back")[0] == 0
    assert files("back") == ["a.png", "x/a.png", "x/y/b.png"]


def test_one_input_goes_into_a_folder_that_exists(run) -> None:
    picture("a.png")
    Path("out").mkdir()
    assert run("compress", "a.png", "out")[0] == 0
    assert files("out") == ["a.qnt"]


def test_a_slash_at_the_end_means_a_folder(run) -> None:
    picture("a.png")
    assert run("compress", "a.png", "out/")[0] == 0
    assert files("out") == ["a.qnt"]


def test_a_file_goes_into_a_folder_that_is_made(run) -> None:
    picture("a.png")
    assert run("compress", "a.png", "new/deep/a.qnt")[0] == 0
    assert files("new") == ["deep/a.qnt"]


@pytest.mark.parametrize("name", ["two words", "ünï-çødé 图像", "-dash", "new\nline", "100%{}", "dot.dot"])
def test_odd_names_are_names_like_others(name: str, run) -> None:
    picture(f"./{name}.png")
    assert run("compress", f"./{name}.png", f"./{name}/")[0] == 0
    assert run("decompress", f"./{name}", "back")[0] == 0
    assert files("back") == [f"{name}.png"]


def test_links_to_images_and_folders_are_followed(run) -> None:
    picture("real/a.png")
    Path("link.png").symlink_to("real/a.png")
    Path("folder").symlink_to("real")
    assert run("compress", "link.png", "folder", "out")[0] == 0
    assert files("out") == ["a.qnt", "link.qnt"]


def test_a_link_as_output_is_replaced_and_what_it_named_is_kept(run) -> None:
    picture("a.png")
    Path("precious").write_text("kept")
    Path("a.qnt").symlink_to("precious")
    assert run("compress", "a.png", "a.qnt", "--force")[0] == 0
    assert Path("precious").read_text() == "kept"
    assert not Path("a.qnt").is_symlink()


def test_hidden_files_and_folders_named_like_files_are_passed_over(run, codec: LearnedCodec) -> None:
    Path("in/folder.qnt").mkdir(parents=True)
    for name in ("in/a.qnt", "in/.hidden.qnt", "in/folder.qnt/b.qnt"):
        Path(name).write_bytes(codec.encode(torch.zeros(1, 5, 5, dtype=torch.uint8)))
    assert run("decompress", "in", "out")[0] == 0
    assert files("out") == ["a.png", "folder.qnt/b.png"]


@pytest.mark.parametrize(
    ("name", "mode", "channels"),
    [("grey.png", "L", 1), ("alpha.png", "RGBA", 3), ("deep.png", "I;16", 1), ("palette.gif", "P", 3)],
)
def test_every_kind_of_image_comes_back_with_its_channels(name: str, mode: str, channels: int, run) -> None:
    if mode == "I;16":
        Image.fromarray(np.arange(17 * 23, dtype=np.uint16).reshape(17, 23) * 160).save(name)
    else:
        picture(name, mode=mode)
    assert run("compress", name, "a.qnt")[0] == 0
    assert run("decompress", "a.qnt", "b.png")[0] == 0
    assert read_image("b.png").shape == (channels, 17, 23)


def test_a_sideways_photograph_is_stored_upright(run, codec: LearnedCodec) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture("a.jpg", exif=exif)
    _, out, _ = run("compress", "a.jpg", "a.qnt")
    assert "17×23" in out
    assert codec.decode(Path("a.qnt").read_bytes()).shape == (3, 23, 17)


def test_a_greyscale_codec_makes_colour_grey(tmp_path: Path, run) -> None:
    save_weights(make_codec("conv_baseline", channels=1, overrides=NARROW), tmp_path / "grey.safetensors")
    picture("a.png")
    assert run("compress", "a.png", "a.qnt", "--checkpoint", "grey.safetensors")[0] == 0
    assert run("decompress", "a.qnt", "b.png", "--checkpoint", "grey.safetensors")[0] == 0
    assert read_image("b.png").shape == (1, 17, 23)


def test_an_image_is_written_in_the_format_of_its_name(run) -> None:
    picture("a.png")
    run("compress", "a.png", "a.qnt")
    assert run("decompress", "a.qnt", "b.WEBP")[0] == 0
    with Image.open("b.WEBP") as image:
        assert image.format == "WEBP"


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
    assert "out/b.qnt exists already: --force overwrites it" in refused(run, "compress", "a.png", "b.png", "out")
    assert files("out") == ["b.qnt"]
    assert run("compress", "a.png", "b.png", "out", "--force")[0] == 0
    assert Path("out/b.qnt").read_bytes()[:3] == bitstream.MAGIC


def test_inputs_that_would_become_the_same_file_are_refused(run) -> None:
    pictures("a.png", "a.jpg", "x/a.png")
    assert "a.png and a.jpg would both become out/a.qnt" in refused(run, "compress", "a.png", "a.jpg", "out")
    assert "would both become out/a.qnt" in refused(run, "compress", "a.png", "x", "out")


def test_a_missing_input_and_an_empty_folder_are_named(run) -> None:
    picture("a.png")
    Path("empty").mkdir()
    assert "none.png: no such file or folder" in refused(run, "compress", "a.png", "none.png", "out")
    assert "empty: nothing to do in this folder" in refused(run, "compress", "empty", "out")
    assert "empty: nothing to do in this folder" in refused(run, "decompress", "empty", "out")


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

    def encode(self: LearnedCodec, image: Tensor) -> bytes:
        if next(count) == 1:
            raise ValueError("the coder\nstumbled")
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
    def encode(self: LearnedCodec, image: Tensor) -> bytes:
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
    def encode(self: LearnedCodec, image: Tensor) -> bytes:
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
    assert (status, one_line(err)) == (1, "codec: a.png: not an image, or of an unknown kind")
    assert files() == ["a.png"]


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


# ---- info


def test_info_says_what_the_header_says(run, codec: LearnedCodec) -> None:
    picture("a.png", (40, 30))
    run("compress", "a.png", "a.qnt")
    size = Path("a.qnt").stat().st_size
    status, out, err = run("info", "a.qnt")
    assert (status, err) == (0, "")
    for text in (
        "a.qnt: 40×30, 3 channels",
        f"{codec.tag}, format version {bitstream.VERSION}",
        codec.fingerprint().hex(),
        f"{size} bytes, {8 * size / 1200:.4f} bpp",
    ):
        assert text in out


def test_info_goes_on_after_a_bad_file(run) -> None:
    foreign("a.qnt", b"hello, world")
    foreign("b.qnt")
    Path("folder").mkdir()
    status, out, err = run("info", "a.qnt", "none.qnt", "folder", "b.qnt")
    assert status == 1
    assert out.startswith("b.qnt: 16×16")
    first, second, third = err.splitlines()
    assert first.startswith("codec: a.qnt: not a Quintet file")
    assert (second, third) == ("codec: none.qnt: No such file or directory", "codec: folder: Is a directory")


def test_info_describes_an_image_too_large_to_open(run) -> None:
    foreign("a.qnt", height=100_000, width=100_000)
    status, out, _ = run("info", "a.qnt")
    assert status == 0
    assert "100000×100000" in out
    assert Image.MAX_IMAGE_PIXELS is not None


def test_info_needs_no_torch(here: Path) -> None:
    foreign("a.qnt")
    script = (
        "import json, sys; from codec.cli import main; status = main(['info', 'a.qnt']); "
        "heavy = {'torch', 'torchac', 'numpy', 'lightning'} & set(sys.modules); "
        "print(json.dumps([status, sorted(heavy)]))"
    )
    done = run_python("-c", script, cwd=here, PYTHONPATH=str(ROOT))
    assert "16×16" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


# ---- the program itself


def test_the_package_imports_at_once_and_says_nothing(here: Path) -> None:
    script = "import codec, sys; sys.exit('torch' in sys.modules or 'torchac' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT), "TORCH_EXTENSIONS_DIR": str(here / "compiled")}
    done = run_python("-c", script, cwd=here, **environment)
    assert (done.stdout, done.stderr) == ("", "")
    assert files() == []


def test_the_console_script_compresses_and_decompresses(checkpoint: Path, here: Path) -> None:
    script = shutil.which("codec", path=str(Path(sys.executable).parent))
    assert script, "the package is not installed beside this Python"
    picture("my photo.png")
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}  # a terminal without × and →

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [script, *arguments, "--checkpoint", str(checkpoint)]
        return subprocess.run(command, env=plain, capture_output=True, text=True, timeout=600, check=False)

    done = run("compress", "my photo.png", "files/")
    assert done.returncode == 0
    # A slow or a new machine says that it compiles the coder; nothing else may be said.
    assert all(line.startswith("compiling torchac") for line in done.stderr.splitlines())
    done = run("decompress", "files", "back")
    assert (done.returncode, done.stdout) == (0, "files/my photo.qnt ? back/my photo.png: 23?17\n")
    assert files("back") == ["my photo.png"]


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "models"])
def test_the_help_of_a_command_names_every_argument(command: str, run) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    (commands,) = (action for action in cli._parser()._actions if action.choices)
    for action in commands.choices[command]._actions:
        assert action.help
        for name in action.option_strings or [action.metavar]:
            assert name in out


def test_the_help_names_every_command_and_the_exit_status(run) -> None:
    status, out, _ = run("--help")
    assert status == 0
    for text in ("compress", "decompress", "info", "Exit status"):
        assert text in out


@pytest.mark.parametrize("arguments", [[], ["compress"], ["squeeze"], ["info"], ["decompress", "a.qnt"]])
def test_wrong_arguments_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err
