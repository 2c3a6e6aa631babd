"""Pillow opens and saves our files, as it does those that it knows itself."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from cli_files import NARROW, foreign, picture
from conftest import make_codec, run_python
from PIL import Image, ImageOps, UnidentifiedImageError

import codec
from codec import bitstream
from codec.checkpoint import save_weights
from codec.data.image_file import LossyInputError
from codec.errors import ArgumentError, CheckpointError

MODEL = "conv_baseline"  # the quickest in colour
SIZE = 40, 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of a small picture with EXIF."""
    exif = Image.Exif()
    exif[0x010E] = "a picture"
    path = picture(tmp_path_factory.mktemp("pictures") / "a.jpg", size=SIZE, exif=exif)
    return codec.load(MODEL).encode(path)


@pytest.fixture(autouse=True)
def file(here: Path, data: bytes) -> Path:
    path = here / "a.qnt"
    path.write_bytes(data)
    return path


def test_a_file_is_opened_without_torch_and_decoded_when_its_pixels_are_asked_for(here: Path) -> None:
    code = (
        "import sys, codec; from PIL import Image; image = Image.open('a.qnt');"
        "assert (image.format, image.size, image.mode) == ('QNT', (40, 24), 'RGB');"
        "assert image.getexif()[0x010E] == 'a picture';"
        "assert 'torch' not in sys.modules; image.load(); assert 'torch' in sys.modules"
    )
    run_python("-c", code, cwd=here)


def test_its_pixels_are_those_of_the_codec(file: Path, data: bytes) -> None:
    expected = codec.load(MODEL).decode(data, "numpy")
    with Image.open(file) as image:
        assert np.array_equal(np.array(image), expected)
        image.putpixel((0, 0), (1, 2, 3))
        assert image.getpixel((0, 0)) == (1, 2, 3)
        assert image.get_format_mimetype() == "image/x-quintet"
    with io.BytesIO(data) as stream, Image.open(stream) as image:
        assert np.array_equal(np.array(image.convert("RGB")), expected)
        assert np.array_equal(np.array(pickle.loads(pickle.dumps(image))), expected)  # noqa: S301
        assert not stream.closed
    with Image.open(file) as image:
        image.verify()
    with Image.open(file) as image:
        image.thumbnail((10, 10))
        assert image.size == (10, 6)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of a model that decodes at fractions of its sides."""
    path = picture(tmp_path_factory.mktemp("pictures") / "b.png", size=(250, 130))
    return codec.load("diffusion_wavelet", quality=20).encode(path)


@pytest.mark.parametrize(
    ("asked", "scale"), [((250, 130), 1), ((130, 60), 1), ((125, 65), 2), ((60, 30), 4), ((20, 10), 8), ((0, 0), 8)]
)
def test_a_draft_is_decoded_at_the_smallest_scale_that_is_no_smaller(
    scaled: bytes, asked: tuple, scale: int
) -> None:
    expected = codec.decode(scaled, "numpy", scale=scale)
    with Image.open(io.BytesIO(scaled)) as image:
        told = image.draft(None, asked)
        assert told == (None if scale == 1 else ("RGB", (0, 0, 250 / scale, 130 / scale)))
        assert image.size == (expected.shape[1], expected.shape[0])
        assert np.array_equal(np.array(image), expected)
        assert image.draft(None, (1, 1)) is None  # its pixels are there already


def test_a_thumbnail_is_made_of_a_draft(scaled: bytes) -> None:
    with Image.open(io.BytesIO(scaled)) as image:
        image.thumbnail((30, 30))
        assert image.size == (30, 16)
        quarter = codec.decode(scaled, scale=2)
    quarter = quarter.resize((30, 16), Image.Resampling.BICUBIC, box=(0, 0, 250 / 2, 130 / 2), reducing_gap=2.0)
    assert np.array_equal(np.array(image), np.array(quarter))


def test_of_a_model_without_scales_a_draft_is_the_whole_image(file: Path) -> None:
    assert codec.open(file).scales == ()
    with Image.open(file) as image:
        assert image.draft("L", (5, 3)) is None
        assert (image.size, image.mode) == (SIZE, "RGB")
    with Image.open(foreign("foreign.qnt")) as image, pytest.raises(OSError, match="those of no pretrained"):
        image.draft(None, (2, 2))


def test_a_grey_file_is_grey(here: Path) -> None:
    grey = Image.open(picture("grey.png", mode="L"))
    grey.save("grey.qnt", model=MODEL)
    with Image.open("grey.qnt") as image:
        assert image.mode == "L"
        assert image.tobytes() == codec.load(MODEL).decode("grey.qnt", "numpy").tobytes()


def test_what_is_saved_is_the_codecs_own_file(here: Path) -> None:
    with Image.open(picture("a.png", size=SIZE)) as image:
        for name, options in (("a", {"quality": 30}), ("b", {"quality": 70}), ("c", {})):
            image.save(f"{name}.qnt", **options)
            assert Path(f"{name}.qnt").read_bytes() == codec.load(**options).encode("a.png")
        stream = io.BytesIO()
        image.convert("L").save(stream, "QNT", model="comcnn_reccnn", max_bytes=600)
        assert codec.open(stream.getvalue()).model == "comcnn_reccnn"
        assert len(stream.getvalue()) <= 600
    with Image.open(stream) as back:
        assert (back.size, back.mode) == (SIZE, "L")


def test_an_option_that_there_is_not_is_refused_by_its_name(here: Path) -> None:
    with Image.open(picture("a.png", size=SIZE)) as image:
        for wrong in ({"qualty": 30}, {"quality": 30, "lossless": True}, {"append_images": [image]}):
            *_, name = wrong
            with pytest.raises(ArgumentError, match=rf"^{name}: there is no such option, allowed are model, codec"):
                image.save("b.qnt", **wrong)
            assert not Path("b.qnt").exists()
        image.encoderinfo = {"qualty": 30}
        with pytest.raises(ArgumentError, match="^qualty: there is no such option"):
            image.save("b.qnt")


def test_options_that_programs_name_for_every_kind_of_file_change_nothing(here: Path) -> None:
    for_others = {"optimize": True, "progressive": True, "subsampling": 0, "dpi": (72, 72)}
    with Image.open(picture("a.png", size=SIZE)) as image:
        image.save("b.qnt", model=MODEL, save_all=False, **for_others)
    assert Path("b.qnt").read_bytes() == codec.load(MODEL).encode("a.png")


def test_an_own_codec_saves_and_once_registered_opens(here: Path) -> None:
    save_weights(make_codec("conv_baseline", seed=3, overrides=NARROW), "own.safetensors")
    own = codec.load(checkpoint="own.safetensors")
    Image.open(picture("a.png")).save("own.qnt", codec=own)
    with Image.open("own.qnt") as image, pytest.raises(OSError, match="those of no pretrained model: name what"):
        image.load()
    codec.register(own)
    with Image.open("own.qnt") as image:
        assert image.tobytes() == own.decode("own.qnt").tobytes()


def test_metadata_is_that_of_the_image_unless_it_is_given(here: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "turned"
    profile = bytes(16) + b"RGB XYZ " + bytes(12) + b"acsp" + bytes(100)
    with Image.open(picture("turned.jpg", size=SIZE, exif=exif, icc_profile=profile)) as image:
        image.save("own.qnt", model="lossless_unet_polyphase")
        image.save("bare.qnt", model=MODEL, exif=b"", icc_profile=None)
        upright = ImageOps.exif_transpose(image)
        upright.save("given.qnt", model=MODEL, exif=image.getexif())
    with Image.open("own.qnt") as own:
        assert own.tobytes() == upright.tobytes()
        assert own.info["icc_profile"] == profile
        assert dict(own.getexif()) == {0x0112: 1, 0x010E: "turned"}
    with Image.open("bare.qnt") as bare:
        assert bare.size == SIZE
        assert not bare.info
    with Image.open("given.qnt") as given:
        assert given.getexif()[0x010E] == "turned"


@pytest.mark.parametrize("length", [5, 13, 20, -1])
def test_a_truncated_file_is_an_oserror(length: int, data: bytes) -> None:
    Path("cut.qnt").write_bytes(data[:length])
    with pytest.raises(UnidentifiedImageError):
        Image.open("cut.qnt")


def test_a_damaged_file_is_told_from_a_foreign_one(data: bytes) -> None:
    with pytest.raises(UnidentifiedImageError, match="^the file is cut or damaged: its checksum"):
        Image.open(io.BytesIO(data[:-9] + bytes(9)))
    with pytest.raises(UnidentifiedImageError, match="^format version 9: this program reads version"):
        Image.open(io.BytesIO(data[:3] + bytes([9]) + data[4:]))
    for strange in (b"QN", b"no picture at all"):
        with pytest.raises(UnidentifiedImageError, match="^cannot identify image file"):
            Image.open(io.BytesIO(strange))
    with Image.open(foreign("foreign.qnt")) as image:
        assert image.size == (16, 16)
        with pytest.raises(OSError, match="^the file was written with weights 00000000, those of no pretrained"):
            image.load()
    header, _ = bitstream.unpack(data)
    Path("empty.qnt").write_bytes(bitstream.pack(header, [b""]))
    with Image.open("empty.qnt") as image, pytest.raises(OSError, match="too short"):
        image.load()


def test_what_cannot_be_saved_leaves_no_file(here: Path) -> None:
    image = Image.open(picture("a.png"))
    for options, error in (
        ({"quality": 101}, CheckpointError),
        ({"quality": 30, "bpp": 1}, ArgumentError),
        ({"model": "nothing"}, CheckpointError),
        ({"model": MODEL, "effort": 10}, ArgumentError),
    ):
        with pytest.raises(error):
            image.save("b.qnt", **options)
        assert not Path("b.qnt").exists()
    with pytest.raises(LossyInputError):
        Image.new("RGBA", (8, 8)).save("b.qnt", model="lossless_unet_polyphase")
