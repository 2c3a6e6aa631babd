"""`import codec`: what it refuses, in one line that says what to do."""

from collections.abc import Callable
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
from conftest import crop
from PIL import Image
from torch import Tensor

import codec
from codec import api
from codec.bitstream import BitstreamError
from codec.data.image_file import ImageFileError, write_image
from codec.errors import ArgumentError, CheckpointError, EncodeError


@pytest.fixture(scope="module")
def default() -> api.Codec:
    return codec.load("diffusion_wavelet", quality=30)


@pytest.fixture(scope="module")
def lossless() -> api.Codec:
    return codec.load("lossless_unet_polyphase")


@pytest.fixture
def photo(here: Path, photograph: Tensor) -> Path:
    write_image(here / "photo.png", crop(photograph, 24, 32))
    return here / "photo.png"


@pytest.mark.parametrize(
    "one",
    [
        str,
        Path,
        PurePath,
        Path.read_bytes,
        Image.open,
        lambda path: path.open("rb"),
        lambda path: np.array(Image.open(path)),
        lambda path: np.array(Image.open(path))[..., :1],
        lambda path: np.array(Image.open(path).convert("L")),
        lambda path: torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1),
    ],
)
def test_one_image_is_no_batch(one: Callable[[Path], object], default: api.Codec, photo: Path) -> None:
    given = one(photo)
    with pytest.raises(ArgumentError, match=r"^images: (.*: )?this is one and not several: put it into a list, "):
        default.encode_batch(given)
    with pytest.raises(ArgumentError, match="^files: "):
        default.decode_batch(given)


def test_what_refuses_a_cut_file_names_partial_where_its_model_shows_a_part(
    default: api.Codec, photo: Path
) -> None:
    cut = default.encode(photo)[:-9]
    for refuses in (codec.open, codec.decode, default.decode):
        with pytest.raises(
            BitstreamError, match="checksum .*; if it is cut, partial=True gives as much of it as is"
        ):
            refuses(cut)
    assert codec.open(cut, partial=True).cut
    assert codec.decode(cut, partial=True).size == (32, 24)
    behind_jpeg = codec.load("comcnn_jpeg")
    cut = behind_jpeg.encode(photo)[:-9]
    with pytest.raises(BitstreamError, match="does not match its bytes$"):
        codec.open(cut)
    assert codec.open(cut, partial=True).model == "comcnn_jpeg"
    with pytest.raises(
        ArgumentError, match="a cut file of comcnn_jpeg cannot be shown in part, those of diffusion_w"
    ):
        codec.decode(cut, partial=True)


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ({"model": "nothing"}, CheckpointError, "no pretrained model is called nothing: "),
        ({"quality": 101}, CheckpointError, "quality 101: the model diffusion_wavelet has 0 to 100"),
        ({"quality": 30.3}, ArgumentError, r"quality=30\.3: allowed are 0 to 100 in steps of 0\.5"),
        ({"quality": "50"}, ArgumentError, "quality='50': allowed are finite numbers"),
        ({"quality": float("nan")}, ArgumentError, "quality=nan: allowed are finite numbers"),
        ({"quality": 10**400}, ArgumentError, "quality=10+: allowed are finite numbers"),
        ({"model": "conv_baseline", "quality": 3}, CheckpointError, "quality 3: the model conv_baseline has one"),
        ({"effort": 10}, ArgumentError, "effort=10: allowed are the integers 0 to 9"),
        ({"device": "cuda:99"}, ArgumentError, "device=cuda:99: torch finds no such device here"),
        ({"device": "abacus"}, ArgumentError, "device=abacus: allowed are"),
        ({"checkpoint": "runs/none"}, CheckpointError, "no checkpoint at runs/none: "),
        ({"model": "a", "checkpoint": "b"}, ArgumentError, "model=a and checkpoint=b: name one of them"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(arguments: dict, error: type, line: str) -> None:
    with pytest.raises(error, match=f"^{line}") as raised:
        codec.load(**arguments)
    assert "\n" not in str(raised.value)


def test_what_is_no_image_is_one_line(default: api.Codec) -> None:
    for wrong, said in (
        (np.zeros((8, 8, 3)), r"float64 \[8, 8, 3\]"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \[3, 8, 8\]"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"torch.uint8 \[8, 8, 3\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"torch.uint8 \[1, 3, 8, 8\]"),
        (np.zeros((0, 8, 3), np.uint8), r"uint8 \[0, 8, 3\]"),
    ):
        with pytest.raises(EncodeError, match=f"^{said}: allowed are arrays, uint8 .H, W. or"):
            default.encode(wrong)
    with pytest.raises(EncodeError, match="^list: allowed are images, arrays, tensors, paths and opened files$"):
        default.encode([1, 2])
    with pytest.raises(ImageFileError, match="^none.png: No such file or directory$"):
        default.encode("none.png")


def test_what_is_no_file_of_ours_is_one_line(default: api.Codec, lossless: api.Codec, photo: Path) -> None:
    data = default.encode(photo)
    for wrong, said in (
        (photo, "not a Quintet file"),
        (data[:-9], "the file is cut or damaged"),
        (data[:14], "the file is cut"),
        (b"", "not a Quintet file"),
    ):
        with pytest.raises(BitstreamError, match=said):
            codec.open(wrong)
        with pytest.raises(BitstreamError, match=said):
            codec.decode(wrong)
    with pytest.raises(BitstreamError, match="written by scheme"):
        lossless.decode(data)
    with pytest.raises(FileNotFoundError):
        codec.open("none.qnt")
    with pytest.raises(ArgumentError, match="^to=jpeg: allowed are pillow, numpy, torch$"):
        default.decode(data, "jpeg")


def test_numbers_that_are_not_allowed_are_one_line(default: api.Codec, photo: Path) -> None:
    for wrong, said in (
        ({"quality": 101}, "quality=101: allowed are numbers 0 to 100"),
        ({"quality": "high"}, "quality='high': allowed are finite numbers"),
        ({"quality": 30, "bpp": 1}, "quality=30: bpp given too: name one of them"),
        ({"bpp": 1, "psnr": 30}, "bpp and psnr given: name one of max_bytes, bpp and psnr"),
        ({"bpp": 0}, "bpp=0: allowed are numbers above 0"),
    ):
        with pytest.raises(ArgumentError, match=f"^{said}$"):
            default.encode(photo, **wrong)
    with pytest.raises(EncodeError, match="out of reach"):
        codec.load("comcnn_reccnn").encode(np.zeros((8, 8), np.uint8), max_bytes=1)
    with pytest.raises(ArgumentError, match="^quality=5: the codec of this checkpoint has one quality only$"):
        codec.load("conv_baseline").encode(photo, quality=5)


def test_a_picture_that_no_decoder_would_open_is_not_coded(
    default: api.Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(EncodeError, match="pixels to decode, padding included: the limit is 1000"):
        default.encode(np.zeros((40, 40), np.uint8))
