"""PNG files made chunk by chunk, for what Pillow does not write."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + zlib.crc32(name + data).to_bytes(4)


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """`colour`: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def pixels(*rows: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")
