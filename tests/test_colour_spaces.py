"""Colours that JPEG 2000 and AVIF files declare where Pillow does not look; and damaged EXIF of AVIF."""

import io

import numpy as np
import pytest
from PIL import Image

from codec.data.image_file import image_size, read_picture

COLOURS = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
PROFILE = bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(200)


def inks_profile(lightness: int) -> bytes:
    """A CMYK profile whose cyan is grey, `lightness` 0 to 255, and whose other inks are black: one table, A2B0."""
    ramp = bytes(range(256))
    matrix = b"".join((65536 if n % 4 == 0 else 0).to_bytes(4) for n in range(9))
    mixtures = [255, *[0] * 7, lightness, *[0] * 7]  # by the four inks, cyan changing slowest
    cube = b"".join(bytes([light, 128, 128]) for light in mixtures)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + cube + 3 * ramp
    head = b"lcms" + b"\x02\x40\0\0" + b"prtrCMYKLab " + bytes(12) + b"acsp" + bytes(28)
    white = (0xF6D6).to_bytes(4) + (0x10000).to_bytes(4) + (0xD32D).to_bytes(4)  # D50
    tags = (1).to_bytes(4) + b"A2B0" + (144).to_bytes(4) + len(table).to_bytes(4)
    profile = (head + white).ljust(124, b"\0") + tags + table
    return (len(profile) + 4).to_bytes(4) + profile


def encoded(format, **options):
    file = io.BytesIO()
    COLOURS.save(file, format, **options)
    return file.getvalue()


def test_the_profile_of_a_jp2_is_kept():
    data = encoded("JPEG2000")
    colours = b"\0\0\0\x0fcolr\1\0\0\0\0\0\x10"
    assert data.count(colours) == 1
    box = (len(PROFILE) + 11).to_bytes(4) + b"colr\2\0\0" + PROFILE
    header = data.index(b"jp2h") - 4
    longer = (int.from_bytes(data[header : header + 4]) + len(box) - len(colours)).to_bytes(4)
    data = data[:header] + longer + data[header + 4 :].replace(colours, box)
    found = read_picture(io.BytesIO(data))
    assert found.metadata.icc == PROFILE
    assert found.dropped == ()
    assert (found.image.permute(1, 2, 0).numpy() == np.array(COLOURS)).all()


@pytest.mark.parametrize(
    ("primaries", "transfer", "named"),
    [
        (1, 13, None),
        (2, 2, None),
        (12, 13, "Display P3"),
        (9, 16, "BT.2020 PQ"),
        (200, 200, "primaries 200 transfer 200"),
    ],
)
def test_the_colour_space_of_an_avif_is_named(primaries, transfer, named):
    data = encoded("AVIF")
    at = data.index(b"colrnclx") + 8
    data = data[:at] + primaries.to_bytes(2) + transfer.to_bytes(2) + data[at + 4 :]
    assert read_picture(io.BytesIO(data)).dropped == ((f"colour space left out: {named}",) if named else ())


def test_an_avif_s_profile_counts_before_the_code_points():
    assert read_picture(io.BytesIO(encoded("AVIF", icc_profile=PROFILE))).metadata.icc == PROFILE


def test_an_avif_with_damaged_exif_is_read_without_it():
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    data = encoded("AVIF", exif=exif)
    head = exif.tobytes()[6:14]
    at = data.index(head)
    for damage in (b"junkjunk", head[:4] + b"\xff\xff\xff\xff"):
        broken = data[:at] + damage + data[at + 8 :]
        found = read_picture(io.BytesIO(broken))
        assert found.dropped == ("damaged EXIF left out",)
        assert tuple(found.image.shape[1:]) == image_size(io.BytesIO(broken)) == (8, 8)


def test_inks_become_the_colours_that_their_profile_says():
    cyan = io.BytesIO()
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(cyan, "TIFF", icc_profile=inks_profile(128))
    found = read_picture(cyan)
    assert found.dropped == ("CMYK → RGB by its profile",)
    assert found.metadata.icc is None
    assert int((found.image.int() - 119).abs().max()) <= 2  # sRGB of half the lightness
    assert found.not_kept == ("four inks",)
