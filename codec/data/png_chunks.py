"""PNG files, chunk by chunk: Pillow is given those that hold the pixels, the metadata is read here.

Pillow refuses the whole picture for a text of more than a megabyte and for a wrong checksum of a chunk that no
pixel depends on, and it comes upon EXIF behind the pixels only when those are decoded.
"""

import io
import struct
import zlib
from typing import BinaryIO, NamedTuple

from codec.data import colour_spaces
from codec.data.not_kept import Loss
from codec.metadata import LARGEST_PART, Metadata, inflated

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEAD = struct.Struct(">I4s")
_PIXELS = (b"IHDR", b"PLTE", b"IDAT")
_OTHERS = frozenset(b"tRNS acTL fcTL iCCP eXIf tEXt zTXt iTXt cICP sRGB gAMA cHRM".split())
_PIXELS_LOST = {b"tRNS": "transparency", b"acTL": "other frames"}  # with a chunk that is damaged
_RAW_PROFILES = {b"Raw profile type exif": "EXIF", b"Raw profile type xmp": "XMP"}  # as ImageMagick writes them


class Png(NamedTuple):
    """`file`: the same picture, its first frame, without any chunk that no pixel depends on.

    `frames` of an animation, else 1. `losses`: what cannot be read or kept.
    """

    file: io.BytesIO
    metadata: Metadata
    frames: int
    losses: tuple[Loss, ...]


def read_png(file: BinaryIO, pixels: bool = True) -> Png:
    """Reads a PNG file, whose signature has been seen. Without `pixels`, the result can be opened only."""
    out = io.BytesIO()
    out.write(SIGNATURE)
    file.seek(len(SIGNATURE))
    chunks: list[tuple[bytes, bytes]] = []  # those beside the pixels, in order; IDAT once, without its bytes
    losses: list[Loss] = []
    grey_depth, grey, pixels_begun = 8, False, False
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, name = _HEAD.unpack(head)
        if name == b"IEND" or not name.isalpha():
            out.write(head)
            break
        if name == b"IDAT" and not pixels_begun:
            pixels_begun = True
            chunks.append((b"IDAT", b""))
            if not pixels:
                out.write(head)
        if name in _PIXELS and (pixels or name != b"IDAT"):
            data = file.read(length + 4)
            out.write(head + data)
            if name == b"IHDR":
                grey = data[9:10] in (b"\0", b"\4")
                grey_depth = data[8] if data[9:10] == b"\0" else 8
        elif name in _OTHERS:
            data = file.read(length)
            if file.read(4) != _crc(name, data):
                losses.append(Loss(f"a damaged {name.decode()} chunk left out", _PIXELS_LOST.get(name)))
            elif name == b"tRNS":
                out.write(_chunk(name, _as_8_bit(data, grey_depth)))
            else:
                chunks.append((name, data))
        else:
            file.seek(length + 4, io.SEEK_CUR)
    out.seek(0)
    metadata, unreadable = _metadata(chunks)
    if not metadata.icc:
        icc, lost = colour_spaces.profile_of_png(dict(chunks), grey)
        metadata = metadata._replace(icc=icc)
        losses += lost
    return Png(out, metadata, _frames(chunks), (*losses, *unreadable))


def _frames(chunks: list[tuple[bytes, bytes]]) -> int:
    count = max((int.from_bytes(data[:4]) for name, data in chunks if name == b"acTL"), default=1)
    names = [name for name, _ in chunks]
    # What is in IDAT is a picture of its own for programs without animation, unless a frame is announced before it.
    apart = b"acTL" in names and b"fcTL" not in names[: names.index(b"IDAT") if b"IDAT" in names else None]
    return max(1, count + apart)


def _metadata(chunks: list[tuple[bytes, bytes]]) -> tuple[Metadata, list[Loss]]:
    """What the chunks hold of it, and what of that cannot be read."""
    # Of each part the first one counts, and the chunk made for EXIF before text; no other is even inflated.
    first: dict[str, tuple[bytes, bytes]] = {}
    for name, data in sorted(chunks, key=lambda chunk: chunk[0] != b"eXIf"):
        if part := _part(name, data):
            first.setdefault(part, (name, data))
    parts: dict[str, bytes] = {}
    unreadable: list[Loss] = []
    for part, (name, data) in first.items():
        try:
            parts[part] = _text(name, data)
        except ValueError as error:
            unreadable.append(Loss(f"{part} left out: {error}"))
    return Metadata(parts.get("ICC profile"), parts.get("EXIF"), parts.get("XMP")), unreadable


def _part(name: bytes, data: bytes) -> str | None:
    """Which metadata a chunk holds."""
    if name in (b"iCCP", b"eXIf"):
        return {b"iCCP": "ICC profile", b"eXIf": "EXIF"}[name]
    keyword = data.split(b"\0", 1)[0]
    if name == b"iTXt" and keyword == b"XML:com.adobe.xmp":
        return "XMP"
    return _RAW_PROFILES.get(keyword) if name in (b"tEXt", b"zTXt", b"iTXt") else None


def _text(name: bytes, data: bytes) -> bytes:
    """The bytes of metadata in a chunk. Raises ValueError."""
    if name == b"eXIf":
        return data
    keyword, _, rest = data.partition(b"\0")
    compressed = name in (b"iCCP", b"zTXt")
    if compressed:
        rest = rest[1:]  # the method; there is one
    elif name == b"iTXt":
        compressed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # language, translated keyword, text
    text = inflated(rest, 2 * LARGEST_PART + 1024) if compressed else rest
    if keyword in _RAW_PROFILES:  # a line feed, a name, a length, then hexadecimal digits in lines
        text = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    return text


def _as_8_bit(transparent: bytes, grey_depth: int) -> bytes:
    """Pillow scales grey samples of 1, 2 and 4 bits to 8, but not the one that tRNS makes transparent."""
    if grey_depth >= 8 or len(transparent) != 2:
        return transparent
    most = (1 << grey_depth) - 1
    return ((int.from_bytes(transparent) & most) * 255 // most).to_bytes(2)


def _chunk(name: bytes, data: bytes) -> bytes:
    return _HEAD.pack(len(data), name) + data + _crc(name, data)


def _crc(name: bytes, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(name)).to_bytes(4)
