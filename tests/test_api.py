"""`import codec`: images of every kind to files and back, by the same way as the command `codec`."""

import doctest
import io
import re
import warnings
from pathlib import Path, PurePath

import numpy as np
import pytest
import torch
from cli_files import picture, tiny_checkpoint
from conftest import ROOT, crop, run_python
from PIL import Image
from torch import Tensor

import codec
from codec import api, bitstream
from codec.bitstream import BitstreamError
from codec.checkpoint import load_codec
from codec.cli import main
from codec.data.image_file import ImageFileError, LossyInputError, read_picture, write_image
from codec.errors import ArgumentError
from codec.metadata import Metadata

SMALL = 32, 24  # (width, height) of the pictures here


@pytest.fixture(scope="module")
def default() -> api.Codec:
    return codec.load("diffusion_wavelet", quality=30)


@pytest.fixture(scope="module")
def lossless() -> api.Codec:
    return codec.load("lossless_unet_polyphase")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(autouse=True)
def photo(here: Path, photograph: Tensor) -> Path:
    """`photo.png`, with a profile of its colours."""
    width, height = SMALL
    pixels = photograph[:, 100 : 100 + height, 100 : 100 + width].permute(1, 2, 0).numpy()
    profile = bytes(16) + b"RGB XYZ " + bytes(12) + b"acsp" + bytes(100)
    Image.fromarray(pixels).save("photo.png", icc_profile=profile)
    return here / "photo.png"


def test_importing_it_imports_neither_torch_nor_numpy(here: Path) -> None:
    code = "import codec, sys; codec.models(); sys.exit([m for m in ('torch', 'numpy') if m in sys.modules] or 0)"
    run_python("-c", code, cwd=here)


def test_the_examples_of_the_docstrings_are_true() -> None:
    found = doctest.testmod(api, optionflags=doctest.ELLIPSIS)
    assert found.attempted > 10
    assert found.failed == 0


def test_every_kind_of_image_gives_the_file_that_the_command_writes(default: api.Codec, photo: Path) -> None:
    assert main(["compress", "photo.png", "photo.qnt", "--quality", "30"]) == 0
    written = Path("photo.qnt").read_bytes()
    with photo.open("rb") as file, Image.open(photo) as image:
        for kind in (photo, str(photo), file, io.BytesIO(photo.read_bytes()), image):
            assert default.encode(kind) == written
    pixels = np.array(Image.open(photo))
    bare = default.encode(photo, metadata=Metadata())
    for kind in (pixels, torch.from_numpy(pixels).permute(2, 0, 1), pixels[::-1, ::-1][::-1, ::-1]):
        assert default.encode(kind) == bare
    assert len(bare) < len(written)


def test_what_is_decoded_is_a_picture_an_array_or_a_tensor(default: api.Codec, photo: Path) -> None:
    data = default.encode(photo)
    Path("photo.qnt").write_bytes(data)
    assert main(["decompress", "photo.qnt", "back.png"]) == 0
    with Image.open("back.png") as expected:
        decoded = default.decode(data)
        assert (decoded.mode, decoded.size) == ("RGB", SMALL)
        assert decoded.tobytes() == expected.tobytes()
        assert decoded.info["icc_profile"] == expected.info["icc_profile"]
    array, tensor = default.decode(data, "numpy"), default.decode(data, "torch")
    assert (array.dtype, array.shape) == (np.uint8, (*SMALL[::-1], 3))
    assert (tensor.dtype, tensor.shape) == (torch.uint8, (3, *SMALL[::-1]))
    assert np.array_equal(array, np.array(decoded))
    assert np.array_equal(array, tensor.permute(1, 2, 0).numpy())
    with open("photo.qnt", "rb") as file:  # noqa: PTH123
        for source in ("photo.qnt", Path("photo.qnt"), file):
            assert default.decode(source).tobytes() == decoded.tobytes()
    assert codec.decode(data).tobytes() == decoded.tobytes()


def test_grey_stays_grey(default: api.Codec) -> None:
    grey = np.arange(40 * 30, dtype=np.uint8).reshape(30, 40)
    data = default.encode(grey)
    assert data == default.encode(grey[..., None]) == default.encode(torch.from_numpy(grey)[None])
    assert codec.open(data).mode == "L"
    assert default.decode(data, "numpy").shape == (30, 40)
    assert default.decode(data, "torch").shape == (1, 30, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_pillow_is_coded_as_its_file_is(orientation: int, lossless: api.Codec) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = picture("turned.jpg", size=(20, 12), exif=exif)
    with Image.open(path) as image:
        data = lossless.encode(image)
    assert data == lossless.encode(path)
    back = lossless.decode(data)
    assert back.getexif()[0x0112] == 1
    assert np.array_equal(np.array(back), read_picture(path).image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_modes_of_pillow_are_coded_as_files_of_them_are(mode: str, default: api.Codec) -> None:
    image = Image.open(picture("rgb.png", size=(24, 16)))
    if mode == "I;16":
        image = image.convert("L").convert("I").point(lambda value: 200 * value)
    image = image.convert(mode)
    image.save("of_mode.tif")
    files = []
    for source in (image, "of_mode.tif"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            files.append(default.encode(source, metadata=Metadata()))
    assert files[0] == files[1]


def test_what_is_not_kept_is_warned_of_or_refused(default: api.Codec, lossless: api.Codec) -> None:
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 100))

    def code_it_in_every_way() -> None:
        default.encode(clear)
        default.encode_batch([clear, clear], jobs=2)
        clear.save("clear.qnt", quality=10)

    with pytest.warns(UserWarning, match="^transparency laid over white$") as warned:
        code_it_in_every_way()
    assert [one.filename for one in warned] == [__file__] * 4
    with pytest.raises(LossyInputError, match="^the image: a lossless model cannot keep its transparency: "):
        lossless.encode(clear)
    with pytest.raises(ImageFileError, match="floating-point samples have no defined white"):
        default.encode(Image.new("F", (16, 16)))


def test_lossless_gives_every_pixel_back(lossless: api.Codec, photo: Path) -> None:
    assert lossless.lossless
    pixels = np.array(Image.open(photo))
    assert np.array_equal(lossless.decode(lossless.encode(pixels), "numpy"), pixels)


def test_a_quality_or_a_target_is_for_one_file(default: api.Codec, photo: Path) -> None:
    own = default.encode(photo)
    high = default.encode(photo, quality=80)
    assert codec.open(high).quality == 80
    assert len(high) > len(own)
    assert default.encode(photo, effort=0) != own
    assert default.quality == 30
    grey = codec.load("comcnn_reccnn")
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32), np.uint8)
    assert codec.open(grey.encode(pixels)).bpp > codec.open(grey.encode(pixels, bpp=4)).bpp
    assert codec.open(grey.encode(pixels, bpp=4)).bpp <= 4
    assert len(grey.encode(pixels, max_bytes=400)) <= 400


def test_a_file_says_what_it_is_without_being_decoded(default: api.Codec, photo: Path) -> None:
    Path("photo.qnt").write_bytes(default.encode(photo))
    for source in ("photo.qnt", Path("photo.qnt"), Path("photo.qnt").read_bytes()):
        file = codec.open(source)
        assert (file.size, file.width, file.height, file.channels, file.mode) == (SMALL, *SMALL, 3, "RGB")
        assert (file.model, file.quality, file.bytes) == ("diffusion_wavelet", 30, Path("photo.qnt").stat().st_size)
        assert file.bpp == 8 * file.bytes / (SMALL[0] * SMALL[1])
        assert file.metadata == read_picture(photo).metadata
        assert not file.damaged
    of_jpeg = codec.load("comcnn_reccnn", quality=20).encode(np.zeros((8, 8), np.uint8))
    assert codec.open(of_jpeg).quality == 20
    assert codec.open(codec.load("conv_baseline").encode(photo)).quality is None


def test_damaged_metadata_costs_no_picture(default: api.Codec, photo: Path) -> None:
    header, sections = bitstream.unpack(default.encode(photo, metadata=Metadata()))

    class Broken(Metadata):
        def to_bytes(self) -> bytes:
            return b"no zlib stream"

    data = bitstream.pack(header, sections, Broken(exif=b"x"))
    assert codec.open(data).damaged
    ways = (default.decode, codec.decode, lambda data: codec.open(data).decode())
    with pytest.warns(UserWarning, match="metadata is damaged") as warned:
        images = [way(data) for way in ways]
    assert [one.filename for one in warned] == [__file__] * 3
    with pytest.warns(UserWarning, match="metadata is damaged") as warned:
        default.decode_batch([data, data], jobs=2)
    assert [one.filename for one in warned] == [__file__] * 2
    assert images[0].tobytes() == default.decode(default.encode(photo, metadata=Metadata())).tobytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_batch_is_what_its_images_are(jobs: int, default: api.Codec, photo: Path) -> None:
    pixels = np.array(Image.open(photo))
    batch = np.stack([pixels, 255 - pixels])
    files = default.encode_batch(batch, jobs, quality=20)
    assert files == [default.encode(image, quality=20) for image in batch]
    assert default.encode_batch(torch.from_numpy(batch).permute(0, 3, 1, 2), quality=20) == files
    assert default.encode_batch(iter(batch), jobs, batch=2, quality=20) == files
    assert default.encode_batch(batch, jobs, batch=2, bpp=4) == [default.encode(image, bpp=4) for image in batch]
    with pytest.raises(ArgumentError, match="batch=0: allowed are the integers from 1"):
        default.encode_batch(batch, batch=0)
    with pytest.raises(TypeError, match="qualty"):
        default.encode_batch(batch, batch=2, qualty=20)
    back = default.decode_batch(files, "numpy", jobs)
    assert [image.tobytes() for image in back] == [default.decode(file).tobytes() for file in files]


def test_a_path_of_any_kind_is_read(default: api.Codec, photo: Path) -> None:
    data = default.encode(PurePath(photo))
    assert data == default.encode(photo)
    Path("photo.qnt").write_bytes(data)
    assert codec.open(PurePath("photo.qnt")).size == SMALL


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_batch_that_is_refused_has_warned_of_the_images_before(jobs: int, default: api.Codec) -> None:
    transparent = Image.new("RGBA", SMALL)
    with pytest.warns(UserWarning, match="transparency") as warned, pytest.raises(ImageFileError, match="^none"):
        default.encode_batch([transparent, "none.png"], jobs)
    assert [one.filename for one in warned] == [__file__]


def test_an_own_codec_is_loaded_and_once_registered_found(checkpoint: Path, photo: Path) -> None:
    own = codec.load(checkpoint=checkpoint)
    data = own.encode(photo)
    assert data == load_codec(checkpoint).encode(*read_picture(photo)[:2])
    assert codec.open(data).model is None
    assert own.decode(data).size == SMALL
    with pytest.raises(BitstreamError, match="those of no pretrained model: name what wrote it"):
        codec.decode(data)
    codec.register(own)
    assert codec.decode(data).tobytes() == own.decode(data).tobytes()


def test_models_are_those_of_the_package() -> None:
    assert codec.models()[0].name == "diffusion_wavelet"
    assert {"comcnn_reccnn", "lossless_unet_polyphase"} <= {model.name for model in codec.models()}
    assert all(str(model).count("\n") == 0 and len(str(model)) < 80 for model in codec.models())


def test_what_its_page_shows_runs(here: Path, photograph: Tensor) -> None:
    write_image(here / "photo.png", crop(photograph, 64, 96))
    page = (ROOT / "docs/python_api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) > 5
    names: dict[str, object] = {}
    exec("\n".join(blocks), names)  # noqa: S102
    assert names["file"].model == "diffusion_wavelet"
    assert Image.open("smaller.qnt").size == (96, 64)
