"""Colours that JPEG 2000 and AVIF files declare where Pillow does not look; and damaged EXIF of AVIF."""

import io

import numpy as np
import pytest
from PIL import Image

from codec.data.image_file import image_size, read_picture

COLOURS = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
PROFILE = bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(200)


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
