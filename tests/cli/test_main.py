"""`codec compress | decompress | info` as users meet it: what is written, what is told, the program itself."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_files import NARROW, files, foreign, one_line, picture, pictures
from conftest import ROOT, make_codec, run_python
from PIL import Image

from codec import bitstream
from codec.checkpoint import save_weights
from codec.cli import main
from codec.cli.main import _parser
from codec.cli.paths import check_folder_of
from codec.data.image_file import read_image
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata

pytestmark = pytest.mark.usefixtures("here")


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
    status, out, err = run("compress", "a.png", "b.jpg", "c.webp", "made for them")
    assert (status, err) == (0, "")
    assert [line.split("]")[0] for line in out.splitlines()] == ["[1/3", "[2/3", "[3/3"]
    assert files("made for them") == ["a.qnt", "b.qnt", "c.qnt"]


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


def test_one_input_goes_to_where_one_is_and_comes_back_there(run) -> None:
    picture("in/a.png")
    assert run("compress", "in/a.png", ".")[0] == 0
    Path("in/a.png").unlink()
    assert run("decompress", "a.qnt", ".")[0] == 0
    assert files() == ["a.png", "a.qnt"]


def test_the_root_of_all_folders_is_in_none_that_could_be_missing() -> None:
    check_folder_of(Path("/"))


def test_a_slash_at_the_end_means_a_folder(run) -> None:
    picture("a.png")
    assert run("compress", "a.png", "out/")[0] == 0
    assert files("out") == ["a.qnt"]


@pytest.mark.parametrize("output", ["ouptut/a.qnt", "ouptut/deep/", "ouptut/deep/a.qnt"])
def test_a_misspelt_folder_is_told_and_not_made(output: str, run) -> None:
    picture("a.png")
    status, _, err = run("compress", "a.png", output)
    assert status == 2
    assert f"{Path(output)}: there is no folder {Path(output).parent}: correct its name, or make it" in err
    assert files(".") == ["a.png"]


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
    assert (second, third) == (
        "codec: none.qnt: No such file or directory",
        "codec: folder: is a folder: name a file in it",
    )


def test_info_says_what_there_is_of_a_cut_file(run, codec: LearnedCodec) -> None:
    metadata = Metadata(exif=bytes(range(256)) * 2)
    whole = codec.encode(torch.zeros(3, 30, 40, dtype=torch.uint8), metadata)
    lost = len(whole) - 100
    Path("in").mkdir()
    foreign("in/a.qnt", whole[:100])
    foreign("in/b.qnt", whole[:-1])
    foreign("in/c.qnt", whole[:13])
    status, out, err = run("info", "in/a.qnt", "in/b.qnt", "in/c.qnt")
    assert status == 1
    a, b = out.split("in/b.qnt")
    assert a.startswith("in/a.qnt: 40×30, 3 channels\n")
    assert codec.fingerprint().hex() in a
    for told in (a, b):
        assert "  checksum     not that of these bytes: the file is cut or damaged\n" in told
    assert re.search("  sections .* bytes are there\n", a)
    assert re.search("  sections .* bytes are there, up to 4 of them the checksum\n", b)
    missing = int(re.search("  size +100 bytes are there, at least ([0-9]+) are missing\n", a)[1])
    assert 0 < missing <= lost
    assert f" {len(whole) - 1} bytes are there, the header does not tell how many there were\n" in b
    assert [line.split(": ")[1:2] for line in err.splitlines()] == [["in/a.qnt"], ["in/b.qnt"], ["in/c.qnt"]]
    assert "ends inside the header" in err.splitlines()[2]


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
        "heavy = {'torch', 'torchac', 'numpy', 'lightning', 'rich'} & set(sys.modules); "
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
    (commands,) = (action for action in _parser()._actions if action.choices)
    for action in commands.choices[command]._actions:
        assert action.help
        for name in action.option_strings or [action.metavar]:
            assert name in out


def test_of_a_model_that_is_named_its_card_is_shown(capsys: pytest.CaptureFixture) -> None:
    assert main(["models", "diffusion_wavelet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("# diffusion_wavelet\n")
    assert ("## Limits" in out, err) == (True, "")
    assert main(["models", "diffusion_wavelt"]) == 2
    assert capsys.readouterr().err.endswith("; did you mean diffusion_wavelet?\n")


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
