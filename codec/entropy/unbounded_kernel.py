"""The loops of codec.entropy.unbounded: its integers, one after the other, as symbols of tables and as plain bits.

Symbols are coded as codec.entropy.numpy_coder says, whose strings these are, byte by byte. A table is a row of
counts c[0] = 0 < c[1] < … < c[2R + 2] = 65536. All that is compiled, constants too, is in this file: what numba
kept of an earlier compilation is valid while that is the same (see codec.entropy.compiled).
"""

import numpy as np

from codec.entropy.compiled import compiled, inlined

LIMIT = 1 << 30  # as codec.entropy.unbounded has it
ENDED, TOO_LARGE = -1, -2

_ALL, _HALF, _QUARTER = (1 << 32) - 1, 1 << 31, 1 << 30


@compiled
def encode_chunk(
    integers: np.ndarray,
    rows: np.ndarray,
    tables: np.ndarray,
    shifts: np.ndarray,
    coded: np.ndarray,
    plain: np.ndarray,
    plain_bits: int,
    escaped: np.ndarray,
) -> tuple[int, int, int]:
    """Codes `integers` `[N]` under rows `[N]` of `tables` and `shifts`: int64, int32, int32 and int64.

    Into `coded`, zeros, with room for 2 N + N / 1024 + 8 bytes, as none takes more than 16 bits and what rounding
    costs; the lowest bits into `plain`, zeros from bit `plain_bits` on, where they go; into `escaped`, int64 `[N]`,
    how far beyond R those are that no table has. Returns the bytes of `coded`, the bits of `plain` and the count of
    `escaped` that are used then, or three times TOO_LARGE.
    """
    last = tables.shape[1] - 2
    reach = (last - 1) // 2
    low, width, owed, at, escapes = 0, _ALL + 1, 0, 0, 0
    for n in range(len(integers)):
        integer, row = integers[n], rows[n]
        if not -LIMIT < integer < LIMIT:
            return TOO_LARGE, TOO_LARGE, TOO_LARGE
        shift = shifts[row]
        moved = integer + ((1 << shift) >> 1)
        high = moved >> shift
        for place in range(shift - 1, -1, -1):
            plain[plain_bits >> 3] |= (moved >> place & 1) << (7 - (plain_bits & 7))
            plain_bits += 1
        symbol = high + reach
        if high > reach or high < -reach:
            symbol = last
            escaped[escapes] = high - reach if high > reach else high + reach
            escapes += 1
        start = width * tables[row, symbol] >> 16
        width = (width * tables[row, symbol + 1] >> 16) - start
        low += start
        while width <= _HALF:
            end = low + width - 1
            if (low ^ end) & _HALF == 0:
                bit = low >> 31
                if bit:
                    coded[at >> 3] |= 128 >> (at & 7)
                at += 1
                for _ in range(owed):
                    if not bit:
                        coded[at >> 3] |= 128 >> (at & 7)
                    at += 1
                owed = 0
                low = low << 1 & _ALL
            elif low & _QUARTER and not end & _QUARTER:
                owed += 1
                low = low << 1 & (_HALF - 1)
            else:
                break
            width <<= 1
    bit = low >= _QUARTER
    if bit:
        coded[at >> 3] |= 128 >> (at & 7)
    at += 1
    for _ in range(owed + 1):
        if not bit:
            coded[at >> 3] |= 128 >> (at & 7)
        at += 1
    return (at + 7) >> 3, plain_bits, escapes


@compiled
def decode_chunk(
    coded: np.ndarray,
    rows: np.ndarray,
    tables: np.ndarray,
    shifts: np.ndarray,
    plain: np.ndarray,
    plain_bits: int,
    integers: np.ndarray,
    escaped: np.ndarray,
) -> tuple[int, int]:
    """Writes to `integers`, int32 `[N]`, what `encode_chunk` was given, of the bytes `coded` and `plain`.

    Of those that no table has it writes what their lowest bits come to, and to `escaped`, int64 `[N]`, which they
    are. Returns the bits of `plain` and the count of `escaped` that are used then, or twice ENDED where `plain` is
    too short.
    """
    last = tables.shape[1] - 2
    reach = (last - 1) // 2
    behind, plain_end = 8 * len(coded), 8 * len(plain)
    low, width, ahead, escapes = 0, _ALL + 1, 0, 0
    for at in range(4):
        ahead = ahead << 8 | (coded[at] if at < len(coded) else 0)
    at = 32
    for n in range(len(rows)):
        row = rows[n]
        symbol = reach
        start = width * tables[row, symbol] >> 16
        if start > ahead:
            end = start
            while start > ahead:
                symbol -= 1
                end, start = start, width * tables[row, symbol] >> 16
        else:
            end = width * tables[row, symbol + 1] >> 16
            while end <= ahead and symbol < last:
                symbol += 1
                start, end = end, width * tables[row, symbol + 1] >> 16
        low += start
        ahead -= start
        width = end - start
        while width <= _HALF:
            top = low + width - 1
            if (low ^ top) & _HALF == 0:
                low = low << 1 & _ALL
            elif low & _QUARTER and not top & _QUARTER:
                low = low << 1 & (_HALF - 1)
            else:
                break
            bit = 0
            if at < behind:
                bit = coded[at >> 3] >> (7 - (at & 7)) & 1
            at += 1
            ahead = ahead << 1 | bit
            width <<= 1
        shift = shifts[row]
        rest = -((1 << shift) >> 1)
        if plain_bits + shift > plain_end:
            return ENDED, ENDED
        for place in range(shift - 1, -1, -1):
            rest += (plain[plain_bits >> 3] >> (7 - (plain_bits & 7)) & 1) << place
            plain_bits += 1
        if symbol == last:
            escaped[escapes] = n
            escapes += 1
            integers[n] = rest
        else:
            integers[n] = ((symbol - reach) << shift) + rest
    return plain_bits, escapes


@compiled
def take_cheaper(
    targets: np.ndarray,
    worth: np.ndarray,
    integers: np.ndarray,
    row_bits: int,
    costs: np.ndarray,
    shifts: np.ndarray,
) -> None:
    """Writes over each of `targets`, float32 `[B, c, N]`, that of its two nearest integers which costs least.

    That is the squared distance times `worth`, as many, and what a file takes for it less the middle of its table:
    the middle is the upper bits of `integers`, as many, the row its `row_bits` lowest. `costs`, float32, are those
    of the tables' symbols, in bits.
    """
    rows = (1 << row_bits) - 1
    for image in range(targets.shape[0]):
        for channel in range(targets.shape[1]):
            for n in range(targets.shape[2]):
                target = targets[image, channel, n]
                nearest, above = np.floor(target), np.ceil(target)
                if above == nearest:
                    continue
                packed, worth_here = integers[image, channel, n], worth[image, channel, n]
                row, middle = packed & rows, packed >> row_bits
                below_cost = _cost(target, nearest, worth_here, row, middle, costs, shifts)
                if _cost(target, above, worth_here, row, middle, costs, shifts) < below_cost:
                    nearest = above
                targets[image, channel, n] = nearest


@inlined
def _cost(
    target: float, level: float, worth: float, row: int, middle: int, costs: np.ndarray, shifts: np.ndarray
) -> float:
    last = costs.shape[1] - 1
    reach = (last - 1) // 2
    shift = shifts[row]
    high = (np.int64(level) - middle + ((1 << shift) >> 1)) >> shift
    distance = target - level
    if -reach <= high <= reach:
        return worth * (distance * distance) + (costs[row, high + reach] + np.float32(shift))
    beyond, digits = abs(high) - reach, 0
    while beyond > 1:
        beyond >>= 1
        digits += 1
    return worth * (distance * distance) + (costs[row, last] + np.float32(shift) + np.float32(2 * digits + 2))
