"""Damage that somebody could have made on purpose: every checksum is right again afterwards."""

import dataclasses
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from codec import bitstream
from codec.metadata import Metadata

INTERESTING = (0, 1, 2, 3, 4, 0x7F, 0x80, 0x81, 0xFE, 0xFF)
SIDES = (1, 2, 7, 8, 255, 256, 1000, 9400, 16_383, 65_535, 89_000_000, (1 << 28) - 1)
LENGTHS = (0, 1, 2, 3, 8, 100, 2000)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_NAMES = b"IHDR PLTE IDAT IEND tRNS acTL fcTL fdAT iCCP eXIf tEXt zTXt iTXt cICP sRGB gAMA cHRM".split()
NUMBERS = (-1, 0, 1, 3, 65_535, 10**9, 10**30, 0.5, 1e308, "", "x", None, [], {}, True)


def edited(data: bytes, rng: Random) -> bytes:
    """`data` after one to four small edits anywhere."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_EDITS)(data, rng)
    return data


def mutated_file(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """A .qnt file with damage in its bytes, header or sections, or with a section of `others`; its CRC is right."""
    kind = rng.randrange(4)
    if kind == 0:
        return _with_crc(edited(data[:-4], rng))
    if kind == 1:  # most of a header fits into 24 bytes
        return _with_crc(edited(data[:24], rng) + data[24:-4])
    header, sections = bitstream.unpack(data)
    if kind == 2:
        field = rng.choice(("height", "width", "channels"))
        near = (getattr(header, field) + rng.choice((-1, 1)), 2 * getattr(header, field))
        value = 4 - header.channels if field == "channels" else max(1, rng.choice((*near, *SIDES)))
        header = dataclasses.replace(header, **{field: value})
    else:
        sections = rng.choice(_SECTION_EDITS)(sections, rng, bitstream.unpack(rng.choice(others))[1])
    return bitstream.pack(header, sections[:255] or [b""])


def mutated_metadata(header: bitstream.Header, metadata: Metadata, rng: Random) -> bytes:
    """A .qnt file with damage in its metadata's zlib stream or, that being right again, in what it holds."""
    stream = metadata.to_bytes()
    stream = edited(stream, rng) if rng.randrange(2) else zlib.compress(edited(zlib.decompress(stream), rng))
    return bitstream.pack(header, [b"section"], _Stream(stream))


class _Stream(NamedTuple):
    """Metadata as `bitstream.pack` takes it, whatever it holds."""

    data: bytes

    def to_bytes(self) -> bytes:
        return self.data


def mutated_png(data: bytes, rng: Random) -> bytes:
    """A PNG with damage in its bytes or, the checksums right, in its chunks and what is compressed in them."""
    kind = rng.randrange(6)
    if kind == 0:
        return edited(data, rng)
    chunks, position = [], len(PNG_SIGNATURE)
    while position < len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        chunks.append((name, data[position + 8 : position + 8 + length]))
        position += 12 + length
    at = rng.randrange(len(chunks))
    name, content = chunks[at]
    if kind == 1:
        chunks.insert(rng.randrange(len(chunks)), chunks[at])
    elif kind == 2:
        chunks = rng.choice((chunks[:at] + chunks[at + 1 :], rng.sample(chunks, len(chunks))))
    elif kind == 3:
        chunks[at] = (rng.choice(PNG_NAMES), content)
    else:
        chunks[at] = (name, _recompressed(content, rng) if kind == 4 else edited(content, rng))
    return PNG_SIGNATURE + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + _with_crc(name + content)


def _recompressed(content: bytes, rng: Random) -> bytes:
    """With damage in a zlib stream, which begins anywhere: its own checksum is right."""
    start = content.find(b"\x78")
    try:
        return content[:start] + zlib.compress(edited(zlib.decompress(content[start:]), rng))
    except zlib.error:
        return edited(content, rng)


def mutated_archive(data: bytes, rng: Random) -> bytes:
    """A .ckpt with damage in its bytes or, its checksums right, in one of its entries, mostly the pickle."""
    if rng.randrange(3) == 0:
        return edited(data, rng)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as archive:
        entries = {entry.filename: source.read(entry) for entry in source.infolist()}
        pickled = next(name for name in entries if name.endswith("data.pkl"))
        name = rng.choice((pickled, pickled, pickled, *entries))
        entries[name] = edited(entries[name], rng)
        for name, content in entries.items():
            archive.writestr(name, content)
    return target.getvalue()


def mutated_safetensors(data: bytes, rng: Random) -> bytes:
    """A .safetensors with damage in its bytes or in one value of its header or model config, its length right."""
    kind = rng.randrange(3)
    if kind == 0:
        return edited(data, rng)
    (length,) = struct.unpack_from("<Q", data)
    text, tensors = data[8 : 8 + length], data[8 + length :]
    if kind == 1:
        text = edited(text, rng)
    else:
        header = json.loads(text)
        if rng.randrange(2):
            config = json.loads(header["__metadata__"]["model_config"])
            header["__metadata__"]["model_config"] = json.dumps(_with_another_value(config, rng))
        else:
            header = _with_another_value(header, rng)
        text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def _with_crc(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


def _with_another_value(node: object, rng: Random) -> object:
    """A copy of plain containers in which one value, at any depth, is another one."""
    if isinstance(node, dict) and node and rng.randrange(8):
        key = rng.choice(list(node))
        return {**node, key: _with_another_value(node[key], rng)}
    if isinstance(node, list) and node and rng.randrange(8):
        at = rng.randrange(len(node))
        return [_with_another_value(value, rng) if n == at else value for n, value in enumerate(node)]
    return rng.choice(NUMBERS)


# ---- edits of bytes


def _flip(data: bytes, rng: Random) -> bytes:
    return _overwrite(data, rng, lambda byte: byte ^ 1 << rng.randrange(8))


def _set(data: bytes, rng: Random) -> bytes:
    return _overwrite(data, rng, lambda _: rng.choice(INTERESTING))


def _overwrite(data: bytes, rng: Random, change: Callable[[int], int]) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([change(data[at])]) + data[at + 1 :]


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice(LENGTHS)) + data[at:]


def _remove(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice(LENGTHS) :]


def _repeat(data: bytes, rng: Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice(LENGTHS)
    return data[: at + length] + data[at:]


def _fill(data: bytes, rng: Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.choice(LENGTHS)
    return data[:at] + bytes([rng.choice(INTERESTING)]) * len(data[at : at + length]) + data[at + length :]


_EDITS = (_flip, _flip, _set, _set, _cut, _insert, _remove, _repeat, _fill)


# ---- edits of sections


def _edit_one(sections: list[bytes], rng: Random, _: list[bytes]) -> list[bytes]:
    at = rng.randrange(len(sections))
    return [edited(part, rng) if n == at else part for n, part in enumerate(sections)]


def _replace_one(sections: list[bytes], rng: Random, others: list[bytes]) -> list[bytes]:
    at, length = rng.randrange(len(sections)), rng.choice(LENGTHS)
    new = rng.choice((rng.randbytes(length), bytes(length), b"\xff" * length, rng.choice(others)))
    return [new if n == at else part for n, part in enumerate(sections)]


def _move_boundary(sections: list[bytes], rng: Random, _: list[bytes]) -> list[bytes]:
    whole = b"".join(sections)
    ends = sorted(rng.randrange(len(whole) + 1) for _ in sections[1:])
    return [whole[start:end] for start, end in zip([0, *ends], [*ends, len(whole)], strict=True)]


def _shuffle(sections: list[bytes], rng: Random, _: list[bytes]) -> list[bytes]:
    return rng.sample(sections, len(sections))


def _drop(sections: list[bytes], rng: Random, _: list[bytes]) -> list[bytes]:
    return rng.sample(sections, rng.randrange(len(sections)))


def _double(sections: list[bytes], rng: Random, _: list[bytes]) -> list[bytes]:
    return [*sections, rng.choice(sections)] if rng.randrange(2) else sections * 200


def _edit_strings(sections: list[bytes], rng: Random, others: list[bytes]) -> list[bytes]:
    """One of the above, done to the coded strings of one section, if it consists of such."""
    at = rng.randrange(len(sections))
    strings = _strings_of(sections[at])
    if not strings:
        return _edit_one(sections, rng, others)
    packed = bitstream.pack_strings(rng.choice(_EDITS_OF_SEVERAL)(strings, rng, strings))
    return [packed if n == at else part for n, part in enumerate(sections)]


def _strings_of(section: bytes) -> list[bytes]:
    """The strings of `pack_strings`; none of a section that is made another way."""
    reader, strings = bitstream.StringReader(section), []
    try:
        while bitstream.pack_strings(strings) != section:
            strings.append(reader.next())
    except bitstream.BitstreamError:
        return []
    return strings


_EDITS_OF_SEVERAL = (_edit_one, _edit_one, _edit_one, _replace_one, _move_boundary, _shuffle, _drop, _double)
_SECTION_EDITS = (*_EDITS_OF_SEVERAL, *(_edit_strings,) * 4)
