"""Coding of integers without bounds under narrow integer tables: what a table has no symbol for is escaped.

A row of the tables has one symbol for each of the integers −R … R, and a last one, the escape. A row may also have
a `shift` k: its symbols then stand for 2^k neighbouring integers each, and the k lowest bits are written plainly.

A coded string is what `codec.entropy.coder` writes for the symbols, and behind it, from the end of the string
backwards, the plain bits: first the k lowest bits of every integer whose row has a shift, in order; then of every
escaped integer an Exp-Golomb code of how far beyond R it is, and a sign.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import coder

# What lies further away than 2^this is none of the integers that a latent has.
_LARGEST_EXPONENT = 30
LIMIT = 1 << _LARGEST_EXPONENT


class Sliced(Protocol):
    """Integers `[N]` of which a slice at a time is asked for: a Tensor, or what makes them only then."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> Tensor: ...


def encode(integers: Sliced, index: Sliced, tables: Tensor, shifts: Tensor) -> bytes:
    """Codes `integers` `[N]`, each under row `index[n]` of `tables`, int32 `[T, 2R + 3]`, and of `shifts` `[T]`.

    Raises ValueError if one is 2^30 or larger.
    """
    from codec.entropy.unbounded_kernel import TOO_LARGE, encode_chunk

    counts, bits = _tables(tables, shifts)
    most = int(bits.max(initial=0))
    chunks, escapes = [], []
    whole, begun, used = [], 0, 0  # plain bytes, and the bits of the one that is not whole yet
    for part in coder.chunks_of(len(integers)):
        some, rows = integers[part].cpu().long().numpy(), _rows(index[part], counts)
        escaped = np.empty(len(some), np.int64)
        coded = np.zeros(2 * len(some) + (len(some) >> 10) + 8, np.uint8)
        plain = np.zeros(-(-most * len(some) // 8) + 2, np.uint8)
        plain[0] = begun
        size, used, count = encode_chunk(some, rows, counts, bits, coded, plain, used, escaped)
        if size == TOO_LARGE:
            largest = np.abs(some.astype(np.float64)).max()
            raise ValueError(f"an integer of size {largest:.0f}: allowed are those below 2^{_LARGEST_EXPONENT}")
        chunks.append(coded[:size].tobytes())
        escapes.append(escaped[:count])
        whole.append(plain[: used >> 3].tobytes())
        begun, used = plain[used >> 3], used & 7
    rest = [np.unpackbits(np.array([begun], np.uint8))[:used]]
    rest += [_escape_code(beyond) for of in escapes for beyond in of.tolist()]
    return coder.joined(chunks) + b"".join([*whole, np.packbits(np.concatenate(rest)).tobytes()])[::-1]


def decode(data: bytes, index: Sliced, tables: Tensor, shifts: Tensor) -> Tensor:
    """The integers, int32 `[N]`, that `encode` was given. Raises BitstreamError if the string is cut."""
    from codec.entropy.unbounded_kernel import ENDED, decode_chunk

    counts, bits = _tables(tables, shifts)
    integers, escaped, used = np.empty(len(index), np.int32), [], 0
    plain = np.frombuffer(data, np.uint8)[::-1]
    for part, chunk in coder.chunks_in(data, len(index)):
        rows = _rows(index[part], counts)
        outside = np.empty(len(rows), np.int64)
        coded = np.frombuffer(chunk, np.uint8)
        used, count = decode_chunk(coded, rows, counts, bits, plain, used, integers[part], outside)
        if used == ENDED:
            raise BitstreamError("a coded section ends inside its plain bits")
        escaped += zip((part.start + outside[:count]).tolist(), bits[rows[outside[:count]]].tolist(), strict=True)
    reach = _reach(counts.shape[1] - 1)
    for n, shift in escaped:
        beyond, used = _read_escape(plain, used)
        high = beyond + reach if beyond > 0 else beyond - reach
        # Of a damaged string it may have more bits.
        integers[n] = np.int64((high << shift) + int(integers[n])).astype(np.int32)
    return torch.from_numpy(integers)


def file_bits(integers: Tensor, index: Tensor, costs: Tensor, shifts: Tensor) -> Tensor:
    """How many bits of a coded string each of `integers` `[…, N]` takes, as many floats.

    `costs`, float `[T, 2R + 2]`, are those of the symbols (CodingTables.costs).
    """
    shift, width = shifts[index], costs.shape[1]
    symbols, beyond = _symbols(integers, shift, _reach(width))
    symbols.add_(index, alpha=width)
    bits = costs.flatten().index_select(0, symbols.flatten()).view(symbols.shape).add_(shift)
    escaped = beyond != 0
    if bool(escaped.any()):
        bits[escaped] += 2 * torch.floor(torch.log2(beyond[escaped].abs().double())).float() + 2
    return bits


def _symbols(integers: Tensor, shift: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The symbol of each of `integers` `[…, N]`, int64, and of what is escaped how far beyond the last."""
    high = (integers.long() + ((1 << shift) >> 1)) >> shift
    beyond = high - high.clamp(-reach, reach)
    return torch.where(beyond == 0, high + reach, 2 * reach + 1), beyond


def _reach(symbols: int) -> int:
    return (symbols - 2) // 2


def _tables(tables: Tensor, shifts: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return np.ascontiguousarray(tables.cpu().numpy(), np.int32), np.ascontiguousarray(
        shifts.cpu().numpy(), np.int64
    )


def _rows(rows: Tensor, tables: np.ndarray) -> np.ndarray:
    wanted = np.ascontiguousarray(rows.cpu().numpy(), np.int32)
    if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(tables):
        raise IndexError(f"rows {int(wanted.min())} to {int(wanted.max())} of {len(tables)} tables")
    return wanted


def _bits(plain: np.ndarray, start: int, end: int) -> np.ndarray:
    first = start // 8
    return np.unpackbits(plain[first : -(-end // 8)])[start - 8 * first : end - 8 * first]


def _escape_code(beyond: int) -> np.ndarray:
    digits = bin(abs(beyond))[2:]
    return np.array([0] * (len(digits) - 1) + [int(d) for d in digits] + [int(beyond < 0)], np.uint8)


def _read_escape(plain: np.ndarray, start: int) -> tuple[int, int]:
    window = _bits(plain, start, min(start + 2 * _LARGEST_EXPONENT + 2, 8 * len(plain)))
    ones = window.nonzero()[0]
    if len(ones) == 0 or ones[0] > _LARGEST_EXPONENT or 2 * ones[0] + 1 >= len(window):
        raise BitstreamError("a coded section ends inside an escaped integer")
    zeros = int(ones[0])
    value = int("".join(map(str, window[zeros : 2 * zeros + 1])), 2)
    return (-value if window[2 * zeros + 1] else value), start + 2 * zeros + 2
