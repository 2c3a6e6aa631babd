"""Metadata: orientation is found and reset, bytes come back, damaged and huge ones are refused."""

import random
import re
import struct
import zlib

import pytest
import torch
from conftest import make_codec
from PIL import Image

from codec import bitstream
from codec.metadata import LARGEST_PART, Metadata, inflated

ALL = Metadata(b"profile" * 100, b"II*\0block", b"<x:xmpmeta/>")
TYPES = {1: "B", 3: "H", 4: "I"}


def exif_of(orientation: int, order: str = "<", kind: int = 3, before: int = 1) -> bytes:
    """A TIFF block with the orientation after `before` other fields."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    fields = [struct.pack(f"{order}HHII", 0x010F + n, 3, 1, 7) for n in range(before)]
    value = struct.pack(f"{order}{TYPES[kind]}", orientation).ljust(4, b"\0")
    fields.append(struct.pack(f"{order}HHI", 0x0112, kind, 1) + value)
    return head + struct.pack(f"{order}H", len(fields)) + b"".join(fields) + bytes(4) + b"maker's notes"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", "<>")
def test_exif_s_orientation_is_found_and_reset_and_no_other_byte_changes(order, kind, orientation):
    exif = exif_of(orientation, order, kind)
    assert Metadata(exif=exif).orientation() == orientation
    upright = Metadata(exif=exif).upright()
    assert upright.orientation() == 1
    assert upright.exif == exif_of(1, order, kind)


def test_the_orientation_is_the_one_that_pillow_finds():
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x010F], exif[0x0112], exif[0x8769] = "a maker", orientation, {0x9003: "2020:01:01 00:00:00"}
        assert Metadata(exif=exif.tobytes()[6:]).orientation() == orientation


@pytest.mark.parametrize(
    "said", ['tiff:Orientation="%d"', "tiff:Orientation='%d'", "<tiff:Orientation>%d</tiff:Orientation>"]
)
def test_xmp_s_orientation_is_reset_and_counts_where_exif_has_none(said):
    xmp = f"<rdf:Description {said % 6} tiff:Make='Six'/>".encode()
    assert Metadata(xmp=xmp).orientation() == 6
    assert Metadata(exif=exif_of(3), xmp=xmp).orientation() == 3
    assert Metadata(xmp=xmp).upright().xmp == xmp.replace(b"6", b"1")


def test_broken_exif_means_upright():
    whole = exif_of(6)
    endless = whole[:8] + b"\xff\xff" + whole[10:14]
    for exif in (b"", b"II*\0", b"junk", endless, whole[:20], exif_of(0), exif_of(9), exif_of(255)):
        assert Metadata(exif=exif).orientation() == 1
        assert Metadata(exif=exif).upright().orientation() == 1


def test_names_and_truth_say_what_is_there():
    assert ALL.names() == ("ICC profile", "EXIF", "XMP")
    assert Metadata(xmp=b"x").names() == ("XMP",)
    assert Metadata(xmp=b"x")
    assert not Metadata()
    assert not Metadata(b"", b"", b"")


@pytest.mark.parametrize("metadata", [Metadata(), ALL, Metadata(exif=b"e"), Metadata(icc=b"i", xmp=b"x")])
def test_bytes_come_back(metadata):
    assert Metadata.from_bytes(metadata.to_bytes()) == metadata


def test_the_bytes_are_the_documented_layout():
    assert zlib.decompress(Metadata(icc=b"abc", xmp=b"d").to_bytes()) == b"\1\0\0\0\3abc" + b"\3\0\0\0\1d"


def test_a_part_of_more_than_four_mebibytes_is_not_written():
    Metadata.from_bytes(Metadata(xmp=bytes(LARGEST_PART)).to_bytes())
    with pytest.raises(ValueError, match=rf"^XMP of {LARGEST_PART + 1} bytes: allowed are {LARGEST_PART}$"):
        Metadata(xmp=bytes(LARGEST_PART + 1)).to_bytes()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"\4\0\0\0\1a", "unknown kind 4"),
        (b"\0\0\0\0\1a", "unknown kind 0"),
        (b"\2\0\0\0\1a\1\0\0\0\1a", "wrong order"),
        (b"\2\0\0\0\1a\2\0\0\0\1a", "wrong order"),
        (b"\1\0\0\0\0", "0 bytes"),
        (b"\1\0\0\0\2a", "2 bytes"),
        (b"\1\xff\xff\xff\xffa", "4294967295 bytes"),
        (b"\1\0", "ends inside"),
    ],
)
def test_forged_parts_are_refused(text, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        Metadata.from_bytes(zlib.compress(text))


def test_a_bomb_a_cut_and_a_longer_stream_are_refused():
    with pytest.raises(ValueError, match="more than"):
        Metadata.from_bytes(zlib.compress(bytes(1 << 26)))
    for data in (ALL.to_bytes()[:-1], ALL.to_bytes() + b"x", b"", b"junk"):
        with pytest.raises(ValueError, match="damaged"):
            Metadata.from_bytes(data)
    assert inflated(zlib.compress(b"abc"), 3) == b"abc"


def test_any_damage_raises_nothing_but_value_errors():
    numbers = random.Random(0)
    data = ALL.to_bytes()
    text = zlib.decompress(data)
    for _ in range(2000):
        forged = bytearray(numbers.choice([data, text]))
        forged[numbers.randrange(len(forged))] = numbers.randrange(256)
        for attempt in (bytes(forged), zlib.compress(bytes(forged))):
            try:
                metadata = Metadata.from_bytes(attempt)
            except ValueError:
                continue
            assert metadata.upright().orientation() == 1


def test_a_learned_codec_s_file_carries_metadata_beside_the_same_image():
    options = ("model.widths=[4,4]", "model.latent_channels=2", "prior.filters=[2]")
    codec = make_codec("conv_baseline", overrides=options)
    image = torch.arange(3 * 20 * 30, dtype=torch.int32).reshape(3, 20, 30).to(torch.uint8)
    bare, full = codec.encode(image), codec.encode(image, metadata=ALL)
    assert codec.encode(image, metadata=Metadata()) == bare
    assert len(full) == len(bare) + len(ALL.to_bytes()) + 1  # its length
    assert bitstream.metadata_of(full) == ALL
    assert bitstream.metadata_of(bare) == Metadata()
    assert torch.equal(codec.decode(full), codec.decode(bare))
