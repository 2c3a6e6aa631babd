"""PNG files as other programs write and break them: what no pixel depends on costs no picture."""

import io
import struct
import zlib

import pytest
from PIL import Image
from png_files import SIGNATURE, chunk, header, pixels, png

from codec.data.image_file import ImageFileError, image_size, read_picture
from codec.metadata import LARGEST_PART

ROWS = (bytes(range(9)), bytes(range(100, 109)))
XMP = b"<x:xmpmeta/>"
EXIF = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6


def damaged(whole):
    return whole[:-4] + bytes([whole[-4] ^ 1]) + whole[-3:]


@pytest.fixture
def read(tmp_path):
    def read(*chunks):
        path = tmp_path / "a.png"
        path.write_bytes(png(header(3, 2), *chunks))
        found = read_picture(path)
        assert tuple(found.image.shape[1:]) == image_size(path)
        if found.image.shape == (3, 2, 3):
            assert found.image.permute(1, 2, 0).numpy().tobytes() == b"".join(ROWS)
        return found

    return read


def test_a_text_that_decompresses_to_megabytes_is_left_out(read):
    large = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20)))
    found = read(large, pixels(*ROWS), large)
    assert (found.dropped, found.metadata.names()) == ((), ())


def test_many_texts_together_are_left_out(read):
    texts = [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20)))] * 70
    assert read(*texts, pixels(*ROWS)).dropped == ()


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        *((name, ()) for name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA")),
        (b"tRNS", ("transparency",)),
        (b"acTL", ("other frames",)),
    ],
)
def test_a_wrong_checksum_beside_the_colours_is_named_and_what_is_lost_with_it(read, name, lost):
    data = b"\0\0\0\2\0\0\0\0" if name == b"acTL" else b"abc\0\0def"
    found = read(damaged(chunk(name, data)), pixels(*ROWS))
    assert found.dropped == (f"a damaged {name.decode()} chunk left out",)
    assert (found.not_kept, found.metadata.names()) == (lost, ())


@pytest.mark.parametrize("name", [b"pHYs", b"tIME", b"bKGD", b"sBIT", b"abCd", b"vpAg"])
def test_other_chunks_that_are_cut_damaged_or_unknown_cost_nothing(read, name):
    for broken in (chunk(name, b""), damaged(chunk(name, b"abc"))):
        assert read(broken, pixels(*ROWS), broken).dropped == ()


def test_metadata_is_found_before_and_behind_the_pixels(read):
    parts = [chunk(b"eXIf", EXIF), chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))]
    for chunks in ((*parts, pixels(*ROWS)), (pixels(*ROWS), *parts)):
        found = read(*chunks)
        assert found.image.shape == (3, 3, 2)  # upright
        assert found.metadata.names() == ("EXIF", "XMP")
        assert found.metadata.xmp == XMP


def test_exif_in_the_text_of_older_programs_turns_the_picture_too(read):
    digits = EXIF.hex().encode()
    raw = b"\nexif\n%8d\n%s\n%s\n" % (len(EXIF), digits[:20], digits[20:])
    for text in (
        chunk(b"tEXt", b"Raw profile type exif\0" + raw),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)),
    ):
        assert read(pixels(*ROWS), text).image.shape == (3, 3, 2)
        kept = EXIF[:-8] + b"\0\1" + EXIF[-6:]
        assert read(text, pixels(*ROWS)).metadata.exif == kept


def test_exif_s_own_chunk_counts_before_the_text(read):
    upright = EXIF.replace(b"\0\6", b"\0\1")
    raw = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 1\n" + EXIF.hex().encode())
    for chunks in ((raw, chunk(b"eXIf", upright)), (chunk(b"eXIf", upright), raw)):
        assert read(*chunks, pixels(*ROWS)).image.shape == (3, 2, 3)


def test_of_two_chunks_for_one_part_the_first_counts(read):
    upright = EXIF.replace(b"\0\6", b"\0\1")
    for first, shape in ((EXIF, (3, 3, 2)), (upright, (3, 2, 3))):
        second = upright if first is EXIF else EXIF
        assert read(chunk(b"eXIf", first), chunk(b"eXIf", second), pixels(*ROWS)).image.shape == shape


def test_what_does_not_count_is_not_even_inflated(read):
    junk = chunk(b"zTXt", b"Raw profile type exif\0\0junk")
    assert read(chunk(b"eXIf", EXIF), junk, pixels(*ROWS), junk).dropped == ()


def test_a_file_of_a_hundred_thousand_chunks_is_read_at_once():
    """Were each compared with those before it, this would take hours."""
    count = 100_000
    chunks = [*[chunk(b"tEXt", b"")] * count, *[chunk(b"IDAT", b"")] * count]
    assert image_size(io.BytesIO(png(header(1, 1), *chunks))) == (1, 1)


@pytest.mark.parametrize(
    ("broken", "part"),
    [
        (chunk(b"iCCP", b"name\0\0junk"), "ICC profile"),
        (chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1 << 24))), "ICC profile"),
        (chunk(b"iCCP", b"name\0\0" + zlib.compress(b"short")), "ICC profile"),
        (chunk(b"iCCP", b""), "ICC profile"),
        (chunk(b"eXIf", b"junk"), "EXIF"),
        (chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzzzz"), "EXIF"),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0junk"), "XMP"),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + bytes(LARGEST_PART + 1)), "XMP"),
    ],
)
def test_metadata_that_cannot_be_read_or_kept_is_named(read, broken, part):
    found = read(broken, pixels(*ROWS))
    assert found.metadata.names() == ()
    assert len(found.dropped) == 1
    assert part in found.dropped[0]
    assert "left out" in found.dropped[0]
    assert found.not_kept == ()


def test_a_profile_of_two_megabytes_is_kept(read):
    profile = bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(2 << 20)
    assert read(chunk(b"iCCP", b"n\0\0" + zlib.compress(profile)), pixels(*ROWS)).metadata.icc == profile


@pytest.mark.parametrize(("depth", "row"), [(1, b"\x40"), (2, b"\x1b"), (4, b"\x01\x23"), (8, b"\0\1\2\3")])
def test_the_transparent_grey_of_few_bits_is_the_one_that_is_meant(tmp_path, depth, row):
    path = tmp_path / "a.png"
    width = min(4, 1 << depth)
    path.write_bytes(png(header(width, 1, depth, 0), chunk(b"tRNS", b"\0\1"), pixels(row)))
    found = read_picture(path)
    step = 255 // ((1 << depth) - 1)
    assert found.image.flatten().tolist() == [0, 255, 2 * step, 3 * step][:width]
    assert found.not_kept == ("transparency",)


@pytest.mark.parametrize(("colour", "samples"), [(0, 1), (2, 3)])
def test_the_transparent_value_of_16_bits_is_compared_whole(tmp_path, colour, samples):
    path = tmp_path / "a.png"
    value, near = struct.pack(">H", 1000) * samples, struct.pack(">H", 1001) * samples
    path.write_bytes(png(header(2, 1, 16, colour), chunk(b"tRNS", value), pixels(value + near)))
    assert read_picture(path).image[0].flatten().tolist() == [255, 1001 >> 8]
    assert read_picture(path).not_kept == ("16-bit samples", "transparency")
    path.write_bytes(png(header(2, 1, 16, colour), chunk(b"tRNS", value), pixels(near + near)))
    assert read_picture(path).not_kept == ("16-bit samples",)


def test_a_picture_apart_from_the_animation_counts_as_one_more(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "lime")]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], default_image=True)
    assert read_picture(path).dropped == ("first of 3 frames",)
    assert read_picture(path).image[:, 0, 0].tolist() == [255, 0, 0]


def test_pixels_that_are_cut_or_damaged_are_still_refused(tmp_path):
    path = tmp_path / "a.png"
    whole = png(header(3, 2), pixels(*ROWS))
    for broken in (
        SIGNATURE,
        whole[:40],
        whole[:50],
        SIGNATURE + damaged(header(3, 2)) + pixels(*ROWS),
        png(header(3, 2)),
    ):
        path.write_bytes(broken)
        with pytest.raises(ImageFileError) as caught:
            read_picture(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
