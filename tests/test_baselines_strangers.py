"""Files that no standard codec of ours wrote, and damaged ones: refused in one line, before they cost much."""

import io

import pytest
import torch
from baseline_codecs import CODECS, every_codec, grey_and_rgb, needs_jpeg_xl, noise, photograph
from PIL import Image

from codec.baselines import Jpeg, JpegXL, Png, WebP, _codestream_size
from codec.bitstream import BitstreamError


@every_codec
@grey_and_rgb
def test_cut_or_damaged_bytes_are_refused_in_one_line_or_give_some_image(name, channels):
    codec = CODECS[name]
    whole = codec.encode(photograph(40, 56, channels))
    middle = len(whole) // 2
    flipped = [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(0, len(whole), 37)]
    zeroed = whole[:middle] + bytes(32) + whole[middle + 32 :]
    for data in [whole[:20], whole[:middle], whole[:-1], zeroed, *flipped]:
        try:
            image = codec.decode(data)
        except BitstreamError as error:
            assert "\n" not in str(error)
        else:
            assert image.dtype == torch.uint8
            assert image.shape[0] in (1, 3)


@every_codec
def test_bytes_of_no_image_are_refused(name):
    for data in (b"", b"\x00", b"no image at all", bytes(1000), noise(1, 1000, 1).numpy().tobytes()):
        with pytest.raises(BitstreamError, match="not a"):
            CODECS[name].decode(data)


@every_codec
def test_a_file_of_another_format_is_refused(name):
    image = photograph(16, 16)
    for other in CODECS.values():
        if other.format != CODECS[name].format:
            with pytest.raises(BitstreamError, match=f"not a {CODECS[name].format} file"):
                CODECS[name].decode(other.encode(image))


def test_a_lack_of_memory_is_not_taken_for_a_damaged_file(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        Jpeg(50).decode(b"")


def test_a_jpeg_of_endless_scans_is_refused_before_they_are_decoded():
    whole = Jpeg(50, progressive=True).encode(photograph(64, 64))
    last = whole.rindex(b"\xff\xda")
    repeated = whole[:last] + 500 * whole[last:-2] + whole[-2:]
    with pytest.raises(BitstreamError, match=r"50\d scans: at most 100 are read"):
        Jpeg(50).decode(repeated)


def test_a_webp_with_damaged_exif_is_refused_in_one_line():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP", exif=b"Exif\0\0MM\0*\0\0")
    with pytest.raises(BitstreamError, match="EXIF tags cannot be read"):
        WebP(50).decode(file.getvalue())


@pytest.mark.parametrize(
    ("codec", "mode"), [(Png(), "RGBA"), (Png(), "P"), (Png(), "I;16"), (Jpeg(50), "CMYK"), (WebP(50), "RGBA")]
)
def test_a_file_that_is_neither_greyscale_nor_rgb_is_refused(codec, mode):
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, codec.format)
    with pytest.raises(BitstreamError, match=f"holds {mode} samples: allowed are L and RGB"):
        codec.decode(file.getvalue())


@every_codec
def test_a_file_with_more_pixels_than_pillow_allows_is_refused(name, monkeypatch):
    image = photograph(40, 40)
    data = CODECS[name].encode(image)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)
    with pytest.raises(BitstreamError, match="pixels"):
        CODECS[name].decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert CODECS[name].decode(data).shape == image.shape


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (1, 1),
        (8, 8),
        (8, 256),
        (256, 256),
        (40, 48),
        (300, 400),
        (399, 601),
        (400, 600),
        (9, 16),
        (1, 9000),
        (64, 128),
    ],
)
@needs_jpeg_xl
def test_the_size_of_a_jpeg_xl_is_read_without_decoding_it(height, width):
    data = JpegXL(90, effort=1).encode(torch.zeros(1, height, width, dtype=torch.uint8))
    assert _codestream_size(data) == (width, height)
