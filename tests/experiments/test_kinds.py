"""Lossless coding by kind of picture: what the kinds are, and that nothing is counted that does not come back."""

import numpy as np
import pytest
from conftest import crop
from PIL import Image
from torch import Tensor

from codec.baselines import Jpeg, Png
from experiments.kinds import KINDS, bits_a_sample, page, picture_of, tensor_of


@pytest.fixture
def picture(photograph: Tensor) -> Image.Image:
    return picture_of(crop(photograph, 130, 110), 96)


def test_the_middle_is_taken(photograph: Tensor, picture: Image.Image) -> None:
    assert np.array_equal(np.asarray(picture), crop(photograph, 130, 110)[:, 17:113, 7:103].movedim(0, -1).numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_a_picture_of_its_own(kind: str, picture: Image.Image) -> None:
    made = KINDS[kind](picture)
    assert made.mode == ("L" if kind == "grey" else "RGB")
    assert (made.tobytes() == picture.tobytes()) == (kind == "as it is")
    assert made.size == ((48, 48) if "shrunk" in kind else (96, 96))
    if "colours" in kind:
        assert len(made.getcolors(1 << 16)) <= int(kind.split()[0])


def test_bits_are_those_of_the_files(picture: Image.Image) -> None:
    images = [tensor_of(picture), tensor_of(picture.convert("L"))]
    size = sum(len(Png().encode(image)) for image in images)
    assert bits_a_sample(Png(), images) == 8 * size / (4 * 96 * 96)


def test_a_codec_that_loses_is_refused(picture: Image.Image) -> None:
    with pytest.raises(RuntimeError, match="Jpeg: an image does not come back"):
        bits_a_sample(Jpeg(50), [tensor_of(picture)])


def test_the_page_compares_the_last_codec_with_the_one_before() -> None:
    text = page([("grey", [4.0, 2.0, 1.5])], ["a", "b", "c"], 3, 128, ["--images", "3"])
    assert "`python -m experiments.kinds --images 3`" in text
    assert "| grey | 4.000 | 2.000 | 1.500 (-25.0 %) |" in text
