"""What travels with a picture beside its pixels: ICC profile, EXIF, XMP. Bytes only: neither torch nor Pillow.

Serialised, it is a zlib stream of its parts, each after one byte that names it (1 ICC profile, 2 EXIF, 3 XMP) and
its length in four, big-endian; in this order, the absent ones left out.
"""

import re
import struct
import zlib
from typing import NamedTuple

from codec.errors import EncodeError

LARGEST_PART = 1 << 22  # bytes; the profiles of printers reach two million

_PART = struct.Struct(">BI")
_NAMES = ("ICC profile", "EXIF", "XMP")
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION = 0x0112
_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I"}  # EXIF's types by number, as struct's
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)([1-8])""")


class Metadata(NamedTuple):
    """`icc`: an ICC profile. `exif`: its TIFF block, without the word Exif before it. `xmp`: the packet.

    False where it is empty.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __bool__(self) -> bool:
        return any(self)

    def names(self) -> tuple[str, ...]:
        """What there is, in words: of "ICC profile", "EXIF", "XMP"."""
        return tuple(name for name, part in zip(_NAMES, self, strict=True) if part)

    def orientation(self) -> int:
        """1 to 8, as EXIF numbers the eight ways to turn a picture upright; 1, it is, where nothing valid is said.

        XMP is asked where EXIF does not say, as most programs do.
        """
        field = _orientation_field(self.exif or b"")
        if field is not None:
            position, form = field
            (value,) = struct.unpack_from(form, self.exif, position)
            return value if 1 <= value <= 8 else 1
        found = _XMP_ORIENTATION.search(self.xmp or b"")
        return int(found[2]) if found else 1

    def upright(self) -> "Metadata":
        """The same for the picture turned upright: both orientations are 1, every other byte is as it was."""
        exif, xmp = self.exif, self.xmp
        field = _orientation_field(exif or b"")
        if field is not None:
            position, form = field
            changed = bytearray(exif)
            struct.pack_into(form, changed, position, 1)
            exif = bytes(changed)
        if xmp is not None:
            xmp = _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)
        return Metadata(self.icc, exif, xmp)

    def to_bytes(self) -> bytes:
        """Serialised. Raises EncodeError for a part of more than LARGEST_PART bytes."""
        out = bytearray()
        for kind, part in enumerate(self, 1):
            if part:
                if len(part) > LARGEST_PART:
                    raise EncodeError(f"{_NAMES[kind - 1]} of {len(part)} bytes: allowed are {LARGEST_PART}")
                out += _PART.pack(kind, len(part)) + part
        return zlib.compress(bytes(out), 9)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Metadata":
        """The inverse of `to_bytes`. Raises ValueError, before much memory is taken, if it is not."""
        text = inflated(data, len(_NAMES) * (_PART.size + LARGEST_PART))
        parts: dict[int, bytes] = {}
        position = 0
        while position < len(text):
            if len(text) - position < _PART.size:
                raise ValueError("the metadata ends inside a part's length")
            kind, length = _PART.unpack_from(text, position)
            position += _PART.size
            if not max(parts, default=0) < kind <= len(_NAMES):
                raise ValueError(f"the metadata has a part of the unknown kind {kind}, or in the wrong order")
            if not 1 <= length <= min(LARGEST_PART, len(text) - position):
                raise ValueError(f"the metadata claims a part of {length} bytes")
            parts[kind] = text[position : position + length]
            position += length
        return cls(*(parts.get(kind) for kind in range(1, len(_NAMES) + 1)))


def inflated(data: bytes, limit: int) -> bytes:
    """A whole zlib stream decompressed. Raises ValueError if it is damaged or longer than `limit` bytes."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if len(text) > limit:
        raise ValueError(f"more than {limit} bytes when decompressed")
    if not stream.eof or stream.unused_data:
        raise ValueError("damaged: the compressed stream does not end where it should")
    return text


def is_exif(data: bytes) -> bool:
    """Whether these bytes are a TIFF block with a whole first directory."""
    order = _BYTE_ORDERS.get(data[:4])
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
    except struct.error:
        return False
    return start + 2 + 12 * count <= len(data)


def _orientation_field(exif: bytes) -> tuple[int, str] | None:
    """Where EXIF has its orientation, and the number's `struct` format; None if it has none, or is damaged."""
    order = _BYTE_ORDERS.get(exif[:4])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for position in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", exif, position)
            if tag == _ORIENTATION and kind in _WHOLE_NUMBERS and number == 1:
                form = order + _WHOLE_NUMBERS[kind]
                struct.unpack_from(form, exif, position + 8)
                return position + 8, form
    except struct.error:
        pass
    return None
