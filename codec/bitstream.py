"""The file format: one header, one or more sections, one checksum.

    offset  bytes  field
    0       3      magic, ASCII "QNT"
    3       1      format version, 2
    4       4      scheme tag, ASCII (`LearnedCodec.tag`)
    8       4      fingerprint: first bytes of the SHA-256 of the codec's weights and tables
    12      1–4    height in pixels, varint
    .       1–4    width in pixels, varint
    .       1      channels, 1 or 3; 128 more where there is metadata
    .       1      number of sections, 1–255, metadata not counted
    .       1–4    length in bytes of the metadata, varint; only where there is some
    .       1–4    length in bytes of each section but the last, varint
    .       …      the metadata: a zlib stream, see codec.metadata; decoding the image does not need it
    .       …      the sections, one after the other; the last one reaches up to the checksum
    end−4   4      CRC-32 of everything before it, big-endian

A varint is LEB128: seven bits a byte, the lowest first, the top bit set on every byte but the last; it is
written in the fewest bytes. A one-section file of an image up to 2,097,151 pixels a side costs at most 24
bytes over its section, and 22 up to 16,383.

A section that an EntropyBottleneck wrote is one string for every pass of its prior, each after its length in
bytes, a varint (`pack_strings`). What else a section may hold is its scheme's.
"""

import struct
import zlib
from dataclasses import dataclass

from PIL import Image

from codec.errors import EncodeError, UserError
from codec.metadata import Metadata

MAGIC = b"QNT"
VERSION = 2
QUALITY_UNIT = 2  # a file holds the quality of a variable rate in one byte, in halves

_FIXED = struct.Struct(">3sB4s4s")
_CRC = struct.Struct(">I")
CHECKSUM_BYTES = _CRC.size
_VARINT_BYTES = 4
_HAS_METADATA = 0x80  # in the byte of the channels


class BitstreamError(UserError, ValueError):
    """A file that cannot be decoded; the text is one line that says why."""


class ChecksumError(BitstreamError):
    """A file with a header of ours whose bytes are not those that were written: it is cut, or damaged."""


class MetadataError(BitstreamError):
    """A whole file of which only the metadata cannot be read."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its sections.

    `scheme` is four ASCII characters, `fingerprint` four bytes, `channels` 1 or 3.
    """

    scheme: str
    fingerprint: bytes
    height: int
    width: int
    channels: int


def pack(header: Header, sections: list[bytes], metadata: Metadata | None = None) -> bytes:
    """The complete file. Raises ValueError naming the header field that is out of range.

    It is an EncodeError where the image or its metadata is too large. Without metadata, or with empty one, it takes
    no byte.
    """
    tag = header.scheme.encode("ascii", "replace")
    if len(header.scheme) != 4 or not _is_tag(header.scheme):
        raise ValueError(f"scheme={header.scheme!r}: a tag is four ASCII characters")
    if len(header.fingerprint) != 4:
        raise ValueError(f"fingerprint={header.fingerprint.hex()}: a fingerprint is four bytes")
    if header.channels not in (1, 3):
        raise ValueError(f"channels={header.channels}: a file holds 1 or 3 channels")
    if not 1 <= len(sections) <= 255:
        raise ValueError(f"{len(sections)} sections: a file holds 1 to 255")
    if min(header.height, header.width) < 1:
        raise ValueError(f"height={header.height}, width={header.width}: both must be at least 1 pixel")
    body = bytearray(_FIXED.pack(MAGIC, VERSION, tag, header.fingerprint))
    body += _varint(header.height, "height") + _varint(header.width, "width")
    body += bytes([header.channels | (_HAS_METADATA if metadata else 0), len(sections)])
    parts = [metadata.to_bytes(), *sections] if metadata else sections
    for part in parts[:-1]:
        body += _varint(len(part), "section length")
    for part in parts:
        body += part
    return bytes(body) + _CRC.pack(zlib.crc32(body))


def unpack(data: bytes, partial: bool = False) -> tuple[Header, list[bytes]]:
    """The header and the sections of a complete file, or, if `partial`, of one whose last section is cut.

    Raises BitstreamError when the file is not one of ours, is cut or damaged, or claims more than
    `PIL.Image.MAX_IMAGE_PIXELS` pixels (raise that limit, as for Pillow, to open larger images).
    """
    header, _, sections = _parts(data, partial)
    return header, sections


def unpack_torn(data: bytes) -> tuple[Header, list[bytes], int]:
    """As `unpack`, of a file that may end anywhere behind its header: what is there of its sections.

    And how many bytes at least are missing, as far as the header tells: how long the last section was, it does not.
    Raises BitstreamError where the header is not whole, or none of ours.
    """
    _check_start(data)
    reader, header, lengths, has_metadata = _header(data)
    missing = max(0, sum(lengths) - (len(data) - reader.position))
    sections = [reader.take(min(length, len(data) - reader.position)) for length in lengths]
    sections.append(reader.rest())
    return header, sections[has_metadata:], missing


def metadata_of(data: bytes) -> Metadata:
    """What a complete file keeps beside its pixels; no pixel is decoded, and no more memory taken than it may have.

    Raises BitstreamError as `unpack` does, MetadataError if nothing but the metadata is damaged.
    """
    _, metadata, _ = _parts(data)
    try:
        return Metadata() if metadata is None else Metadata.from_bytes(metadata)
    except ValueError as error:
        raise MetadataError(f"the file's metadata cannot be read: {error}") from error


def _parts(data: bytes, partial: bool = False) -> tuple[Header, bytes | None, list[bytes]]:
    """Header, metadata as it is in the file, sections."""
    _check_start(data)
    body, (checksum,) = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])
    if zlib.crc32(body) != checksum:
        if not partial:
            raise ChecksumError("the file is cut or damaged: its checksum does not match its bytes")
        body = data
    reader, header, lengths, has_metadata = _header(body)
    sections = [reader.take(length) for length in lengths]
    sections.append(reader.rest())
    metadata = sections.pop(0) if has_metadata else None
    return header, metadata, sections


def _check_start(data: bytes) -> None:
    if len(data) < _FIXED.size or data[: len(MAGIC)] != MAGIC:
        raise BitstreamError("not a Quintet file: it does not begin with a whole QNT header")
    version = data[len(MAGIC)]
    if version != VERSION:
        raise BitstreamError(f"format version {version}: this program reads version {VERSION}")
    if len(data) < _FIXED.size + _CRC.size:
        raise BitstreamError("the file is cut: it ends inside the header")


def _header(body: bytes) -> "tuple[_Reader, Header, list[int], bool]":
    """What reads on behind it, the header, how long all parts but the last are, whether metadata is the first."""
    _, _, tag, fingerprint = _FIXED.unpack_from(body)
    reader = _Reader(body, _FIXED.size)
    height, width = reader.varint("height"), reader.varint("width")
    flags, count = reader.byte("channels"), reader.byte("section count")
    has_metadata, channels = bool(flags & _HAS_METADATA), flags & ~_HAS_METADATA
    if channels not in (1, 3):
        raise BitstreamError(f"the header claims {flags} channels: 1 or 3 are allowed")
    if min(height, width, count) < 1:
        raise BitstreamError(f"the header claims {width}×{height} pixels in {count} sections: all must be ≥ 1")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise BitstreamError(f"the header claims {width}×{height} pixels: the limit is {limit} (--max-pixels)")
    lengths = [reader.varint("section length") for _ in range(count - 1 + has_metadata)]
    scheme = tag.decode("ascii", "replace")
    if not _is_tag(scheme):
        raise BitstreamError(f"the header's scheme tag {tag!r} is not printable ASCII")
    return reader, Header(scheme, fingerprint, height, width, channels), lengths, has_metadata


def pack_strings(strings: list[bytes]) -> bytes:
    """Several byte strings as one section: each after its length, a varint."""
    return b"".join(_varint(len(string), "string length") + string for string in strings)


class StringReader:
    """Gets the strings of `pack_strings` back, one after the other."""

    def __init__(self, section: bytes) -> None:
        self._reader = _Reader(section, 0)

    def next(self) -> bytes:
        """The next string. Raises BitstreamError where the section ends too soon."""
        return self._reader.take(self._reader.varint("string length"))

    def end(self, most: int = 0) -> None:
        """Raises BitstreamError if anything is left, or more bytes than `most`."""
        if len(self._reader.rest()) > most:
            raise BitstreamError("a section goes on after its last string")


def _is_tag(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _varint(value: int, name: str) -> bytes:
    if not 0 <= value < 1 << (7 * _VARINT_BYTES):
        raise EncodeError(f"{name}={value}: allowed are 0 to {(1 << (7 * _VARINT_BYTES)) - 1}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Reader:
    """Reads fields one after the other; raises BitstreamError where the bytes end too soon."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position

    def take(self, length: int) -> bytes:
        if self.position + length > len(self.data):
            raise BitstreamError(f"{length} bytes are claimed where the file or section ends sooner")
        taken = self.data[self.position : self.position + length]
        self.position += length
        return taken

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)

    def byte(self, name: str) -> int:
        if self.position >= len(self.data):
            raise BitstreamError(f"the file ends inside the header, before its {name}")
        self.position += 1
        return self.data[self.position - 1]

    def varint(self, name: str) -> int:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.byte(name)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise BitstreamError(f"the header's {name} is not written in the fewest bytes")
                return value
        raise BitstreamError(f"the header's {name} is longer than {_VARINT_BYTES} bytes")
