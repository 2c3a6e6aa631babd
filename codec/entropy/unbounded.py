"""Coding of integers without bounds under narrow integer tables: what a table has no symbol for is escaped.

A row of the tables has one symbol for each of the integers −R … R, and a last one, the escape. A row may also have
a `shift` k: its symbols then stand for 2^k neighbouring integers each, and the k lowest bits are written plainly.

A coded string is what `codec.entropy.coder` writes for the symbols, and behind it, from the end of the string
backwards, the plain bits: first the k lowest bits of every integer whose row has a shift, in order; then of every
escaped integer an Exp-Golomb code of how far beyond R it is, and a sign.
"""

import numpy as np
import torch
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import coder
from codec.entropy.tables import PRECISION

# What lies further away than 2^this is none of the integers that a latent has.
_LARGEST_EXPONENT = 30
LIMIT = 1 << _LARGEST_EXPONENT


def encode(integers: Tensor, index: Tensor, tables: Tensor, shifts: Tensor) -> bytes:
    """Codes `integers` `[N]`, each under row `index[n]` of `tables`, int32 `[T, 2R + 3]`, and of `shifts` `[T]`.

    Raises ValueError if one is 2^30 or larger.
    """
    symbols, rest = _split(integers, index, tables, shifts)
    plain = np.concatenate([_low_bits(*rest), *map(_escape_code, _beyond(integers, index, tables, shifts))])
    coded = coder.encode(symbols, index, tables)
    return coded + np.packbits(plain).tobytes()[::-1]


def decode(data: bytes, index: Tensor, tables: Tensor, shifts: Tensor) -> Tensor:
    """The integers, int64 `[N]`, that `encode` was given. Raises BitstreamError if the string is cut."""
    reach = _reach(tables)
    symbols = coder.decode(data, index, tables).long()
    shift = shifts.cpu()[index.cpu()]
    plain = np.unpackbits(np.frombuffer(data[::-1], np.uint8))
    low, used = _read_low_bits(plain, shift.numpy())
    high = symbols - reach
    escaped = (symbols == 2 * reach + 1).nonzero()[:, 0]
    for n in escaped.tolist():
        beyond, used = _read_escape(plain, used)
        high[n] = beyond + reach if beyond > 0 else beyond - reach
    return (high << shift) + torch.from_numpy(low) - ((1 << shift) >> 1)


def file_bits(integers: Tensor, index: Tensor, tables: Tensor, shifts: Tensor) -> Tensor:
    """How many bits of a coded string each of `integers` takes, float `[N]`."""
    symbols = symbols_of(integers, index, tables, shifts)
    counts = tables[index, symbols + 1] - tables[index, symbols]
    return PRECISION - torch.log2(counts.float()) + plain_bits(integers, index, tables, shifts)


def plain_bits(integers: Tensor, index: Tensor, tables: Tensor, shifts: Tensor) -> Tensor:
    """How many plain bits each of `integers` takes, float `[N]`."""
    shift = shifts[index]
    beyond = (_high(integers, shift).abs() - _reach(tables)).clamp(min=0)
    exponent = torch.floor(torch.log2(beyond.clamp(min=1).double())).to(torch.float32)
    return shift.float() + torch.where(beyond > 0, 2 * exponent + 2, 0.0)


def symbols_of(integers: Tensor, index: Tensor, tables: Tensor, shifts: Tensor) -> Tensor:
    """The symbol of each of `integers` `[N]` in its row, int64."""
    reach = _reach(tables)
    high = _high(integers, shifts[index])
    return torch.where(high.abs() > reach, 2 * reach + 1, high + reach)


def _reach(tables: Tensor) -> int:
    return (tables.shape[-1] - 3) // 2


def _high(integers: Tensor, shift: Tensor) -> Tensor:
    return (integers.long() + ((1 << shift) >> 1)) >> shift


def _split(
    integers: Tensor, index: Tensor, tables: Tensor, shifts: Tensor
) -> tuple[Tensor, tuple[np.ndarray, np.ndarray]]:
    """The symbols, and (lowest bits, how many they are) of every integer."""
    integers = integers.cpu().long()
    if integers.numel() and int(integers.abs().max()) >= 1 << _LARGEST_EXPONENT:
        largest = int(integers.abs().max())
        raise ValueError(f"an integer of size {largest}: allowed are those below 2^{_LARGEST_EXPONENT}")
    shifts, index = shifts.cpu(), index.cpu()
    shift = shifts[index]
    low = (integers + ((1 << shift) >> 1)) & ((1 << shift) - 1)
    return symbols_of(integers, index, tables, shifts), (low.numpy(), shift.numpy())


def _low_bits(low: np.ndarray, count: np.ndarray) -> np.ndarray:
    places = _places(count)
    return (np.repeat(low, count) >> places & 1).astype(np.uint8)


def _read_low_bits(plain: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, int]:
    """The lowest bits of every integer, int64, and how many bits that took."""
    total = int(count.sum())
    if total > len(plain):
        raise BitstreamError("a coded section ends inside its plain bits")
    low = np.zeros(len(count), np.int64)
    owners = np.repeat(np.arange(len(count)), count)
    np.add.at(low, owners, plain[:total].astype(np.int64) << _places(count))
    return low, total


def _places(count: np.ndarray) -> np.ndarray:
    """For counts of bits 2, 0, 3: 1 0, 2 1 0."""
    ends = np.repeat(np.cumsum(count), count)
    return ends - 1 - np.arange(len(ends))


def _beyond(integers: Tensor, index: Tensor, tables: Tensor, shifts: Tensor) -> list[int]:
    """How far the escaped integers' symbols would lie beyond the last, with their signs, in order."""
    shifts, index = shifts.cpu(), index.cpu()
    high = _high(integers.cpu(), shifts[index])
    reach = _reach(tables)
    return [n - reach if n > 0 else n + reach for n in high[high.abs() > reach].tolist()]


def _escape_code(beyond: int) -> np.ndarray:
    digits = bin(abs(beyond))[2:]
    return np.array([0] * (len(digits) - 1) + [int(d) for d in digits] + [int(beyond < 0)], np.uint8)


def _read_escape(plain: np.ndarray, start: int) -> tuple[int, int]:
    window = plain[start : start + 2 * _LARGEST_EXPONENT + 2]
    ones = window.nonzero()[0]
    if len(ones) == 0 or ones[0] > _LARGEST_EXPONENT or 2 * ones[0] + 1 >= len(window):
        raise BitstreamError("a coded section ends inside an escaped integer")
    zeros = int(ones[0])
    value = int("".join(map(str, window[zeros : 2 * zeros + 1])), 2)
    return (-value if window[2 * zeros + 1] else value), start + 2 * zeros + 2
