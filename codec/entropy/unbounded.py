"""Coding of integers without bounds under narrow integer tables: what a table has no symbol for is escaped.

A row of the tables has one symbol for each of the integers −R … R, and a last one, the escape. A row may also have
a `shift` k: its symbols then stand for 2^k neighbouring integers each, and the k lowest bits are written plainly.

A coded string is what `codec.entropy.coder` writes for the symbols, and behind it, from the end of the string
backwards, the plain bits: first the k lowest bits of every integer whose row has a shift, in order; then of every
escaped integer an Exp-Golomb code of how far beyond R it is, and a sign.
"""

from collections.abc import Iterator
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
    shifts, counts, width = shifts.cpu(), tables.cpu().flatten(), tables.shape[1]
    low, escapes = _Bits(), []

    def intervals() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in coder.chunks_of(len(integers)):
            some, rows = _checked(integers[part].cpu().long()), index[part].cpu().long()
            shift = shifts[rows]
            low.add(_low_bits(some, shift))
            symbols, beyond = _symbols(some, shift, _reach(width - 1))
            escapes.extend(map(_escape_code, beyond[beyond != 0].tolist()))
            at = symbols.add_(rows, alpha=width)
            yield counts.index_select(0, at).numpy(), counts.index_select(0, at + 1).numpy()

    coded = coder.encode_chunks(intervals())
    for code in escapes:
        low.add(code)
    return coded + low.packed()[::-1]


def decode(data: bytes, index: Sliced, tables: Tensor, shifts: Tensor) -> Tensor:
    """The integers, int32 `[N]`, that `encode` was given. Raises BitstreamError if the string is cut."""
    tables, shifts = tables.cpu(), shifts.cpu()
    reach = _reach(tables.shape[1] - 1)
    integers, escaped, used = torch.empty(len(index), dtype=torch.int32), [], 0
    plain = np.frombuffer(data, np.uint8)[::-1]
    rows = coder.rows_of_tables(tables, lambda part: index[part].cpu().numpy())
    for part, decoded in coder.decode_chunks(data, len(index), rows):
        symbols, shift = torch.from_numpy(decoded).long(), shifts[index[part].cpu().long()]
        low, used = _read_low_bits(plain, used, shift.numpy())
        rest = torch.from_numpy(low) - ((1 << shift) >> 1)
        integers[part] = ((symbols - reach << shift) + rest).int()
        outside = (symbols == 2 * reach + 1).nonzero()[:, 0]
        escaped += zip(
            (part.start + outside).tolist(), shift[outside].tolist(), rest[outside].tolist(), strict=True
        )
    for n, shift, rest in escaped:
        beyond, used = _read_escape(plain, used)
        high = beyond + reach if beyond > 0 else beyond - reach
        integers[n] = torch.tensor((high << shift) + rest).int()  # of a damaged string it may have more bits
    return integers


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


class _Bits:
    """Plain bits, 0 and 1 in uint8, packed as they come."""

    def __init__(self) -> None:
        self._bytes: list[bytes] = []
        self._rest = np.zeros(0, np.uint8)

    def add(self, bits: np.ndarray) -> None:
        bits = np.concatenate([self._rest, bits])
        end = len(bits) // 8 * 8
        self._bytes.append(np.packbits(bits[:end]).tobytes())
        self._rest = bits[end:]

    def packed(self) -> bytes:
        return b"".join([*self._bytes, np.packbits(self._rest).tobytes()])


def _checked(integers: Tensor) -> Tensor:
    largest = int(integers.abs().max()) if integers.numel() else 0
    if largest >= LIMIT:
        raise ValueError(f"an integer of size {largest}: allowed are those below 2^{_LARGEST_EXPONENT}")
    return integers


def _low_bits(integers: Tensor, shift: Tensor) -> np.ndarray:
    low = (integers + ((1 << shift) >> 1)) & ((1 << shift) - 1)
    count = shift.numpy()
    return (np.repeat(low.numpy(), count) >> _places(count) & 1).astype(np.uint8)


def _read_low_bits(plain: np.ndarray, start: int, count: np.ndarray) -> tuple[np.ndarray, int]:
    """Of bytes `plain`, from bit `start` on, the lowest bits of integers that have `count` each, int64; the end."""
    end = start + int(count.sum())
    if end > 8 * len(plain):
        raise BitstreamError("a coded section ends inside its plain bits")
    low = np.zeros(len(count), np.int64)
    owners = np.repeat(np.arange(len(count)), count)
    np.add.at(low, owners, _bits(plain, start, end).astype(np.int64) << _places(count))
    return low, end


def _bits(plain: np.ndarray, start: int, end: int) -> np.ndarray:
    first = start // 8
    return np.unpackbits(plain[first : -(-end // 8)])[start - 8 * first : end - 8 * first]


def _places(count: np.ndarray) -> np.ndarray:
    """For counts of bits 2, 0, 3: 1 0, 2 1 0."""
    ends = np.repeat(np.cumsum(count), count)
    return ends - 1 - np.arange(len(ends))


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
