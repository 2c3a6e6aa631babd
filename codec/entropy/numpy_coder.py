"""The arithmetic coder in Python integers: where no C++ compiler exists, and as a second opinion on the bytes.

Arithmetic coding in integers is that of Witten, Neal and Cleary, "Arithmetic coding for data compression" (1987,
https://doi.org/10.1145/214762.214771). What a coded string is:

    table        c[0] = 0 < c[1] < … < c[L] = 65536, one for every symbol; symbol s owns the counts c[s] to c[s+1]
    interval     whole numbers low … high of 32 bits, at first all of them; r = high − low + 1 is its width
    narrowing    symbol s leaves  low + ⌊r·c[s] / 65536⌋  …  low + ⌊r·c[s+1] / 65536⌋ − 1
    doubling     after every symbol, as long as one of these holds, the interval is doubled (low takes in a 0 at its
                 end, high a 1):
                   low and high have the same first bit: it is written, and leaves both;
                   low begins with 01 and high with 10: the second bit leaves both, and one more bit is owed
    owed bits    follow the next bit that is written, all of them its opposite
    end          after the last symbol one more bit is owed, and a bit is written: 0 if low begins with 00, else 1;
                 zeros fill the last byte
    reading      of a 32-bit window, at first the first bits, which goes through all that low goes through and takes
                 in the next bit of the string where low takes in a 0; the symbol is the last one whose part of the
                 interval does not begin behind the window; after the end of the string all bits are 0

The first bit of a byte is its highest. In the code a symbol's doublings are done at once: first come all that write
a bit, for an interval from which one is owed keeps its middle, so that no other kind can follow.
"""

from bisect import bisect_right

import numpy as np

_ALL = (1 << 32) - 1
_HALF = 1 << 31
_LOWER_HALF = _HALF - 1
_REFILL = 8  # bytes


def encode(cdf: np.ndarray, symbols: np.ndarray) -> bytes:
    """The string of `symbols`, int16 `[N]` in [0, L), under `cdf`, uint16 `[N, L + 1]`, one table a row.

    The last entry of a row stands for 65536 whatever it holds.
    """
    at = np.arange(len(cdf)), symbols.astype(np.intp)
    firsts, behinds = cdf[at], cdf[:, 1:][at].astype(np.int64)
    behinds[symbols == cdf.shape[1] - 2] = 1 << 16
    written: list[str] = []
    low, width, owed = 0, 1 << 32, 0
    for first, behind in zip(firsts.tolist(), behinds.tolist(), strict=True):
        start = width * first >> 16
        low += start
        width = (width * behind >> 16) - start
        if width > _HALF:
            continue  # wider than all that is doubled
        settled, undecided = _doublings(low, low + width - 1)
        if settled:
            written.append(_settled_bits(low >> 32 - settled, settled, owed))
            owed = 0
        owed += undecided
        low = _doubled(low, settled, undecided)
        width <<= settled + undecided
    written.append(_settled_bits(int(low > _LOWER_HALF >> 1), 1, owed + 1))
    bits = "".join(written)
    size = -(-len(bits) // 8)
    return int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def decode(cdf: np.ndarray, data: bytes) -> np.ndarray:
    """The symbols, int16 `[N]`, that `encode` was given; other `data` gives other symbols in [0, L)."""
    count, entries = cdf.shape
    table = np.ascontiguousarray(cdf).reshape(-1).data
    symbols = np.empty(count, np.int16)
    low, width = 0, 1 << 32
    ahead = int.from_bytes(data[:4].ljust(4, b"\0"), "big")  # how far the window is beyond low
    unread, ready, position = 0, 0, 4
    for n, row in enumerate(range(0, count * entries, entries)):
        reached = (((ahead + 1) << 16) - 1) // width  # the largest count whose part begins at the window or before
        at = bisect_right(table, reached, row, row + entries - 1) - 1
        symbols[n] = at - row
        start = width * table[at] >> 16
        low += start
        ahead -= start
        width = (width if at == row + entries - 2 else width * table[at + 1] >> 16) - start
        if width > _HALF:
            continue
        settled, undecided = _doublings(low, low + width - 1)
        shift = settled + undecided
        if ready < shift:
            more = data[position : position + _REFILL].ljust(_REFILL, b"\0")
            unread = unread << 8 * _REFILL | int.from_bytes(more, "big")
            ready += 8 * _REFILL
            position += _REFILL
        ready -= shift
        ahead = ahead << shift | unread >> ready
        unread &= (1 << ready) - 1
        low = _doubled(low, settled, undecided)
        width <<= shift
    return symbols


def _doublings(low: int, high: int) -> tuple[int, int]:
    """How often the interval is doubled: with a bit written, and then with one owed."""
    settled = 32 - (low ^ high).bit_length()
    # Behind the first bit, 0 of low and 1 of high, bits are owed as long as low has 1 and high has 0.
    broken = (high << settled | (1 << settled) - 1 | ~(low << settled)) & _LOWER_HALF
    return settled, 31 - broken.bit_length()


def _doubled(low: int, settled: int, undecided: int) -> int:
    low = low << settled & _ALL
    return low << undecided & _LOWER_HALF if undecided else low


def _settled_bits(bits: int, count: int, owed: int) -> str:
    """`count` bits, the first of them followed by the bits owed, which are its opposite."""
    # A first bit 0 and ones, or 1 and zeros: as a number, the ones plus that bit.
    return format(bits + (((1 << owed) - 1) << count - 1), f"0{count + owed}b")
