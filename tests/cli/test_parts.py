"""`codec decompress --crop | --scale | --partial`: a part of an image is that part, and what is none is refused."""

import re
from pathlib import Path

import pytest
from cli_files import one_line, runner
from conftest import crop, make_codec
from torch import Tensor

from codec import bitstream
from codec.checkpoint import save_weights
from codec.data.image_file import read_image, write_image

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def file(here: Path, run, photograph: Tensor) -> Path:
    """A file of 90×70 pixels, and what it decodes to."""
    write_image(here / "a.png", crop(photograph, 70, 90))
    assert run("compress", "a.png", "a.qnt")[0] == 0
    assert run("decompress", "a.qnt", "whole.png")[0] == 0
    return here / "a.qnt"


def test_a_crop_is_a_part_of_the_image(run) -> None:
    status, out, _ = run("decompress", "a.qnt", "part.png", "--crop", "11,20,64,33")
    assert status == 0
    assert "64×33" in out
    part, image = read_image("part.png"), read_image("whole.png")
    assert int((part.int() - image[:, 20:53, 11:75].int()).abs().max()) <= 1


@pytest.mark.parametrize("text", ["1,2,3", "a,0,1,1", "0,0,-1,4", "1.5,0,4,4", ""])
def test_what_is_no_crop_is_refused_before_any_work(text: str, run) -> None:
    status, _, err = run("decompress", "a.qnt", "part.png", f"--crop={text}")
    assert (status, Path("part.png").exists()) == (2, False)
    assert f"--crop {text}: allowed are four whole numbers" in one_line(err)


def test_a_crop_outside_the_image_fails_that_file(run) -> None:
    status, _, err = run("decompress", "a.qnt", "part.png", "--crop", "50,0,41,10")
    assert status == 1
    allowed = "allowed are parts X,Y,W,H of the image's 90×70 pixels: X + W and Y + H are at most these"
    assert f"--crop 50,0,41,10: {allowed}" in one_line(err)


def test_a_scale_that_the_codec_has_not_fails_that_file(run) -> None:
    status, _, err = run("decompress", "a.qnt", "part.png", "--scale", "2")
    assert status == 1
    assert "--scale 2: this model decodes at full size only" in one_line(err)


def test_a_cut_file_is_shown_where_that_is_asked_for(run, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    status, _, err = run("decompress", "a.qnt", "part.png")
    assert status == 1
    assert "cut or damaged" in one_line(err)
    assert one_line(err).endswith("; if it is cut, --partial shows as much of it as is there")
    status, out, _ = run("decompress", "a.qnt", "part.png", "--partial")
    assert status == 0
    assert "90×70; cut or damaged: all that the image takes is there" in out
    assert read_image("part.png").shape == (3, 70, 90)


def test_of_a_cut_file_is_told_how_much_is_there(capsys: pytest.CaptureFixture, file: Path) -> None:
    run = runner(capsys)
    run("compress", "a.png", "b.qnt")
    whole = Path("b.qnt").read_bytes()
    Path("b.qnt").write_bytes(whole[: 2 * len(whole) // 3])
    _, out, _ = run("decompress", "b.qnt", "part.png", "--partial")
    told = re.search(
        r"90×70; cut or damaged: ([\d,]+) bytes are there, ([\d.]+) % of its levels, "
        r"and all of them at --scale (\d)",
        out,
    )
    assert int(told[1].replace(",", "")) == 2 * len(whole) // 3
    assert 1 < float(told[2]) < 50
    scale = int(told[3])
    _, out, _ = run("decompress", "b.qnt", "small.png", "--partial", "--scale", scale)
    assert out.endswith("; cut or damaged: all that the image takes is there\n")
    Path("c.qnt").write_bytes(whole)
    run("decompress", "c.qnt", "whole small.png", "--scale", scale)
    assert read_image("small.png").equal(read_image("whole small.png"))
    _, out, _ = run("decompress", "b.qnt", "crop.png", "--partial", "--crop", "0,0,64,33")
    assert re.search(r"64×33; cut or damaged: [\d,]+ bytes are there, [\d.]+ % of its levels$", out.strip())


def test_a_damaged_file_is_not_called_cut_alone(capsys: pytest.CaptureFixture, file: Path) -> None:
    run = runner(capsys)
    run("compress", "a.png", "b.qnt")
    damaged = bytearray(Path("b.qnt").read_bytes())
    _, (section,) = bitstream.unpack(bytes(damaged))
    damaged[damaged.index(section) + 1] ^= 1  # of a string's length, behind the quality
    Path("b.qnt").write_bytes(damaged)
    status, out, _ = run("decompress", "b.qnt", "part.png", "--partial")
    assert status == 0
    assert f"90×70; cut or damaged: {len(damaged):,} bytes are there, " in out


def test_a_pretrained_model_that_shows_no_part_is_refused_by_name(
    capsys: pytest.CaptureFixture, file: Path
) -> None:
    run = runner(capsys)
    run("compress", "a.png", "b.qnt", "--model", "comcnn_jpeg")
    Path("b.qnt").write_bytes(Path("b.qnt").read_bytes()[:-9])
    status, _, err = run("decompress", "b.qnt", "part.png", "--partial")
    assert (status, Path("part.png").exists()) == (1, False)
    assert "--partial: a cut file of comcnn_jpeg cannot be shown in part, those of diffusion_wav" in one_line(err)


def test_a_cut_file_that_cannot_be_shown_names_no_way_to(run, file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:14])  # inside the header
    assert "--partial" not in one_line(run("decompress", "a.qnt", "part.png")[2])
    save_weights(make_codec("comcnn_reccnn"), "jpeg.safetensors")
    jpeg = ("--checkpoint", "jpeg.safetensors")
    run("compress", "a.png", "b.qnt", *jpeg)
    Path("b.qnt").write_bytes(Path("b.qnt").read_bytes()[:-1])
    assert "--partial" not in one_line(run("decompress", "b.qnt", "part.png", *jpeg)[2])
    _, _, err = run("decompress", "b.qnt", "part.png", "--partial", *jpeg)
    assert one_line(err) == "codec: b.qnt: --partial: a cut file of this codec cannot be shown in part"
