"""Colours that JPEG 2000 and AVIF files declare where Pillow does not look; and damaged EXIF of AVIF."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms
from png_files import chunk, header, pixels, png

from codec.data.colour_spaces import PRIMARIES, coded
from codec.data.icc_profile import SRGB_CURVE, profile
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


def declared(primaries, transfer):
    """An AVIF file with these code points."""
    data = encoded("AVIF")
    at = data.index(b"colrnclx") + 8
    return io.BytesIO(data[:at] + primaries.to_bytes(2) + transfer.to_bytes(2) + data[at + 4 :])


def described(picture):
    return ImageCms.ImageCmsProfile(io.BytesIO(picture.metadata.icc)).profile.profile_description


@pytest.mark.parametrize(
    ("primaries", "transfer", "named"),
    [(1, 13, None), (2, 2, None), (12, 13, "Display P3"), (9, 14, "BT.2020"), (1, 8, "linear")],
)
def test_the_colour_space_of_an_avif_becomes_a_profile(primaries, transfer, named):
    found = read_picture(declared(primaries, transfer))
    assert (found.dropped, found.not_kept) == ((), ())
    assert (found.metadata.icc and described(found)) == named


@pytest.mark.parametrize(
    ("primaries", "transfer", "named"), [(9, 16, "BT.2020 PQ"), (200, 200, "primaries 200 transfer 200")]
)
def test_a_colour_space_without_a_profile_is_a_loss(primaries, transfer, named):
    found = read_picture(declared(primaries, transfer))
    assert found.dropped == (f"colour space left out: {named}",)
    assert found.not_kept == (f"colour space, {named}",)
    assert found.metadata.icc is None


def png_file(*chunks, grey=False):
    head = header(3, 1, colour=0 if grey else 2)
    row = pixels(bytes(3)) if grey else pixels(bytes(9))
    return io.BytesIO(png(head, *(chunk(*part) for part in chunks), row))


GAMMA = {gamma: (b"gAMA", gamma.to_bytes(4)) for gamma in (45455, 55556)}
SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
ADOBE = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)


@pytest.mark.parametrize(
    ("chunks", "named"),
    [
        ([(b"cICP", b"\x0c\x0d\0\1")], "Display P3"),
        ([(b"cICP", b"\1\x0d\0\1")], None),
        ([GAMMA[45455], (b"cHRM", SRGB)], None),
        ([GAMMA[55556]], "gamma 1.8"),
        ([(b"cHRM", ADOBE), GAMMA[45455]], "cHRM"),
        ([(b"sRGB", b"\0"), GAMMA[55556]], None),
        ([(b"gAMA", bytes(4)), (b"cICP", b"abc"), (b"cHRM", b"abc")], None),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_the_colour_space_of_a_png_becomes_a_profile(chunks, named, grey):
    found = read_picture(png_file(*chunks, grey=grey))
    assert (found.dropped, found.not_kept) == ((), ())
    assert (found.metadata.icc and described(found)) == named
    assert named is None or found.metadata.icc[16:20] == (b"GRAY" if grey else b"RGB ")


@pytest.mark.parametrize(
    "part",
    [
        (b"cICP", b"\x09\x10\0\1"),
        (b"cICP", b"\1\x12\0\1"),
        (b"cHRM", bytes(32)),
        (b"cHRM", struct.pack(">8I", *[33333] * 8)),
        (b"gAMA", b"\0\0\0\1"),
    ],
)
def test_a_png_s_colours_of_which_no_profile_can_be_made_are_a_loss(part):
    found = read_picture(png_file(part))
    assert found.dropped[0].startswith("colour space left out: ")
    assert found.not_kept[0].startswith("colour space, ")
    assert found.metadata.icc is None


def converted(colour, source, target):
    image = Image.new("RGB", (1, 1), colour)
    return ImageCms.profileToProfile(image, source, target).getpixel((0, 0))


def test_a_made_profile_says_the_colours_that_are_meant():
    p3 = ImageCms.ImageCmsProfile(io.BytesIO(coded(12, 13)[0]))
    srgb = ImageCms.createProfile("sRGB")
    for colour, in_p3 in {  # as CSS Color 4 converts them
        (255, 0, 0): (234, 51, 35),
        (0, 255, 0): (117, 251, 76),
        (0, 0, 255): (0, 0, 245),
        (255, 255, 255): (255, 255, 255),
        (128, 128, 128): (128, 128, 128),
    }.items():
        assert converted(colour, srgb, p3) == pytest.approx(in_p3, abs=1)
        assert converted(in_p3, p3, srgb) == pytest.approx(colour, abs=4)  # near black, 8 bits are few
    assert converted((255, 0, 0), p3, srgb) == (255, 0, 0)  # more than sRGB has
    made = ImageCms.ImageCmsProfile(io.BytesIO(profile("sRGB", PRIMARIES[1][1], SRGB_CURVE, False)))
    for colour in ((1, 20, 255), (200, 100, 50), (90, 91, 92)):
        assert converted(colour, made, srgb) == pytest.approx(colour, abs=1)
    linear = ImageCms.ImageCmsProfile(io.BytesIO(coded(1, 8)[0]))
    assert converted((128, 128, 128), srgb, linear) == pytest.approx((55, 55, 55), abs=1)
    grey = ImageCms.ImageCmsProfile(io.BytesIO(coded(1, 8, grey=True)[0]))
    half = ImageCms.profileToProfile(Image.new("L", (1, 1), 55), grey, srgb, outputMode="RGB")
    assert half.getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=1)


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


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_colours_of_another_kind_are_converted_and_that_is_a_loss(mode):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 100, 50)).convert("YCbCr").save(file, "TIFF")
    if mode == "LAB":
        file = io.BytesIO()
        Image.new("LAB", (8, 8), (140, 30, 40)).save(file, "TIFF")
    found = read_picture(file)
    assert found.dropped == (f"{mode} → RGB",)
    assert found.not_kept == (f"{mode} colours",)


def test_the_colours_of_a_jpeg_are_no_loss():
    assert read_picture(io.BytesIO(encoded("JPEG"))).not_kept == ()
