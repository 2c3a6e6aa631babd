"""`codec decompress --crop | --scale | --partial`: a part of an image is that part, and what is none is refused."""

from pathlib import Path

import pytest
from cli_files import one_line
from conftest import crop, make_codec
from torch import Tensor

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
    assert "--crop 50,0,41,10: allowed are parts X,Y,W,H of the image's 90×70 pixels" in one_line(err)


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
    assert "90×70; cut: as much of it as is there" in out
    assert read_image("part.png").shape == (3, 70, 90)


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
