"""EXIF of TIFF files, which mix it with tags that say how the samples lie in the file."""

import contextlib

from PIL import Image
from PIL.ExifTags import IFD, Base

DESCRIPTIVE = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.Copyright,
)
XMP_TAG = 700


def exif_from_tiff(exif: Image.Exif) -> bytes | None:
    """Of a TIFF file's tags those that describe the picture, as EXIF's TIFF block. None if none can be read."""
    return _descriptive(exif) or None


def tags_for_tiff(exif: bytes | None, xmp: bytes | None) -> Image.Exif:
    """What may be written into a TIFF file, of EXIF what describes the picture; empty if none can be read."""
    tags, kept = Image.Exif(), Image.Exif()
    with contextlib.suppress(Exception):  # of every kind, from damaged directories
        tags.load(exif or b"")
    kept.load(_descriptive(tags))
    if xmp:
        kept[XMP_TAG] = xmp
    return kept


def _descriptive(exif: Image.Exif) -> bytes:
    kept = Image.Exif()
    try:
        for tag in DESCRIPTIVE:
            if tag in exif:
                kept[tag] = exif[tag]
        for directory in (IFD.Exif, IFD.GPSInfo):
            if values := dict(exif.get_ifd(directory)):
                kept[directory] = values
        return kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else b""
    except Exception:  # of every kind, from damaged directories
        return b""
