"""The file format: what is packed comes back, and every other string of bytes is refused in one line."""

import random
import re
import zlib

import pytest
from PIL import Image

from codec.bitstream import BitstreamError, Header, metadata_of, pack, unpack
from codec.metadata import Metadata

HEADER = Header(scheme="TEST", fingerprint=b"\x00\xff\x80\n", height=300, width=20_000, channels=3)
SECTIONS = [b"", b"\x00" * 200, bytes(range(256)), b"last"]


def header(**changes: object) -> Header:
    return Header(**{**vars(HEADER), **changes})


def with_checksum(body: bytes) -> bytes:
    """What a stranger would write: any bytes under a checksum that fits, so that the fields are looked at."""
    return body + zlib.crc32(body).to_bytes(4, "big")


def crafted(
    tag: bytes = b"TEST",
    height: bytes = b"\x08",
    width: bytes = b"\x08",
    channels: int = 3,
    count: int = 1,
    rest: bytes = b"section",
) -> bytes:
    return with_checksum(b"QNT\x02" + tag + b"1234" + height + width + bytes([channels, count]) + rest)


def refusal(data: bytes) -> str:
    """Why `data` is refused; a different exception, or none, fails the test."""
    with pytest.raises(BitstreamError) as caught:
        unpack(data)
    text = str(caught.value)
    assert text
    assert text.isprintable(), f"not one line of readable text: {text!r}"
    return text


@pytest.mark.parametrize("sections", [[b""], [b"one"], SECTIONS, [bytes([n]) * n for n in range(255)]])
def test_header_and_sections_come_back(sections):
    assert unpack(pack(HEADER, sections)) == (HEADER, sections)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 2**28 - 1])
def test_every_size_comes_back_at_the_edges_of_the_varint(monkeypatch, side, channels):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    for height, width in [(side, 1), (1, side), (side, side)]:
        written = header(height=height, width=width, channels=channels)
        assert unpack(pack(written, [b"x"])) == (written, [b"x"])


@pytest.mark.parametrize(
    ("side", "overhead"),
    [(1, 20), (127, 20), (128, 22), (16_383, 22), (16_384, 24), (2_097_151, 24), (2_097_152, 26)],
)
def test_a_one_section_file_costs_22_bytes_up_to_16383_pixels_a_side_and_24_up_to_2097151(side, overhead):
    section = b"s" * 1000
    assert len(pack(header(height=side, width=side), [section])) - len(section) == overhead


def test_each_further_section_costs_its_length_field_only():
    one, two = pack(HEADER, [b"a" * 127]), pack(HEADER, [b"a" * 127, b""])
    assert len(two) == len(one) + 1
    assert len(pack(HEADER, [b"a" * 128, b""])) == len(two) + 2


def test_the_bytes_are_the_documented_layout():
    file = pack(Header("CONB", b"\xde\xad\xbe\xef", 300, 5, 1), [b"ab", b"c"])
    body = b"QNT\x02CONB\xde\xad\xbe\xef" + b"\xac\x02" + b"\x05" + b"\x01\x02" + b"\x02" + b"abc"
    assert file == with_checksum(body)


def test_a_file_cut_at_any_length_is_refused():
    file = pack(HEADER, SECTIONS)
    for length in range(len(file)):
        refusal(file[:length])


def test_a_file_with_bytes_added_is_refused():
    file = pack(HEADER, SECTIONS)
    refusal(file + b"\x00")
    refusal(b"\x00" + file)
    refusal(file + file)


def test_any_single_byte_changed_is_refused():
    file = pack(HEADER, SECTIONS)
    for position in range(len(file)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(file)
            damaged[position] ^= flip
            refusal(bytes(damaged))


@pytest.mark.parametrize("version", [0, 1, 255])
def test_another_format_version_is_named(version):
    text = refusal(with_checksum(b"QNT" + bytes([version]) + b"TEST1234\x08\x08\x03\x01section"))
    assert f"version {version}" in text
    assert "version 2" in text


@pytest.mark.parametrize("data", [b"", b"Q", b"QNT", b"PNG" * 20, b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_file_of_ours_is_called_so(data):
    assert "not a Quintet file" in refusal(data)


def test_a_well_made_file_is_accepted():
    """Guards the tests below: what they change is the only thing wrong with it."""
    assert unpack(crafted()) == (Header("TEST", b"1234", 8, 8, 3), [b"section"])


HUGE = b"\xff\xff\xff\x7f"  # 268,435,455


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"height": HUGE, "width": HUGE}, "268435455×268435455"),
        ({"height": b"\x00"}, "8×0"),
        ({"width": b"\x00"}, "0×8"),
        ({"count": 0}, "0 sections"),
        ({"channels": 0}, "0 channels"),
        ({"channels": 2}, "2 channels"),
        ({"channels": 255}, "255 channels"),
        ({"count": 2, "rest": b"\x08section"}, "8 bytes"),
        ({"count": 2, "rest": HUGE + b"section"}, "268435455 bytes"),
        ({"count": 255, "rest": b""}, "section length"),
        ({"count": 255, "rest": b"\x01" * 254}, "ends sooner"),
        ({"height": b"\x80\x80\x80\x80\x00"}, "height"),
        ({"width": b"\x80\x80\x80\x80\x00"}, "width"),
        ({"count": 2, "rest": b"\xff\xff\xff\xff\x01section"}, "section length"),
        ({"tag": b"\xff\xfe\xfd\xfc"}, "tag"),
    ],
)
def test_a_header_that_lies_under_a_right_checksum_is_refused(changes, named):
    assert named in refusal(crafted(**changes))


def test_a_header_that_ends_inside_a_field_under_a_right_checksum_is_refused():
    body = crafted()[:-4]
    for length in range(12, 16):
        refusal(with_checksum(body[:length]))


@pytest.mark.parametrize("tag", [b"A\nBC", b"A\x1b[m", b"\x00\x01\x02\x03"])
def test_a_tag_that_would_break_the_line_or_the_terminal_is_refused(tag):
    """The tag is printed when a file meets another scheme's codec."""
    refusal(crafted(tag=tag))


def test_a_varint_longer_than_it_need_be_is_refused():
    """The format says "the fewest bytes": else one image has many files."""
    refusal(crafted(height=b"\x88\x00"))


def test_the_pixel_limit_is_pillows(monkeypatch):
    file = crafted(height=b"\x0a", width=b"\x0a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert unpack(file)[0].height == 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    assert "99" in refusal(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert unpack(crafted(height=HUGE, width=HUGE))[0].width == 2**28 - 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scheme": "ABC"}, "scheme='ABC'"),
        ({"scheme": "ABCDE"}, "scheme='ABCDE'"),
        ({"scheme": "äBCD"}, "scheme='äBCD'"),
        ({"scheme": "A\nBC"}, "scheme="),
        ({"fingerprint": b"123"}, "fingerprint=313233"),
        ({"fingerprint": b"12345"}, "fingerprint="),
        ({"channels": 0}, "channels=0"),
        ({"channels": 2}, "channels=2"),
        ({"channels": 4}, "channels=4"),
        ({"height": 0}, "height=0"),
        ({"width": 0}, "width=0"),
        ({"height": -1}, "height=-1"),
        ({"height": 2**28}, f"height={2**28}"),
        ({"width": 2**28}, f"width={2**28}"),
    ],
)
def test_pack_names_the_field_that_is_out_of_range(changes, named):
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        pack(header(**changes), [b"x"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 256])
def test_pack_refuses_no_sections_and_too_many(count):
    with pytest.raises(ValueError, match=f"{count} sections"):
        pack(HEADER, [b"x"] * count)


def test_random_bytes_raise_nothing_but_bitstream_errors():
    numbers = random.Random(0)
    for _ in range(3000):
        noise = numbers.randbytes(numbers.randrange(48))
        refusal(noise)
        refusal(b"QNT\x02" + noise)
        try:  # with the right checksum some of them are files
            head, sections = unpack(with_checksum(b"QNT\x02TEST" + noise))
        except BitstreamError as error:
            assert str(error).isprintable()
        else:
            assert head.height * head.width <= Image.MAX_IMAGE_PIXELS
            assert len(sections) >= 1


METADATA = Metadata(icc=b"profile" * 20, exif=b"II*\0block", xmp=b"<x:xmpmeta/>")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sections", [[b""], SECTIONS, [bytes([n]) * n for n in range(255)]])
def test_metadata_comes_back_beside_the_same_header_and_sections(sections, channels):
    file = pack(header(channels=channels), sections, METADATA)
    assert unpack(file) == (header(channels=channels), sections)
    assert metadata_of(file) == METADATA


def test_a_file_without_metadata_has_not_one_byte_for_it():
    file = pack(HEADER, SECTIONS)
    assert pack(HEADER, SECTIONS, None) == pack(HEADER, SECTIONS, Metadata()) == file
    assert metadata_of(file) == Metadata()


def test_the_metadata_is_where_the_layout_says():
    metadata = Metadata(exif=b"e")
    packed = metadata.to_bytes()
    file = pack(Header("CONB", b"\xde\xad\xbe\xef", 300, 5, 1), [b"ab", b"c"], metadata)
    lengths = bytes([len(packed), 2])
    assert file == with_checksum(
        b"QNT\x02CONB\xde\xad\xbe\xef" + b"\xac\x02" + b"\x05" + b"\x81\x02" + lengths + packed + b"abc"
    )


def test_damaged_metadata_is_refused_and_the_pixels_are_not_lost_for_it():
    bomb = zlib.compress(bytes(1 << 26))
    for data in (b"", b"junk", bomb, zlib.compress(b"\x09\0\0\0\1a"), METADATA.to_bytes()[:-1]):
        length = bytes([len(data) & 0x7F | 0x80, len(data) >> 7 & 0x7F | 0x80, len(data) >> 14])
        short = bytes([len(data)]) if len(data) < 128 else length
        file = crafted(channels=0x83, rest=short + data + b"section")
        assert unpack(file)[1] == [b"section"]
        with pytest.raises(BitstreamError, match="metadata") as caught:
            metadata_of(file)
        assert str(caught.value).isprintable()


def test_metadata_that_is_longer_than_the_file_is_refused():
    refusal(crafted(channels=0x83, rest=b"\x08section"))
    refusal(crafted(channels=0x82))
