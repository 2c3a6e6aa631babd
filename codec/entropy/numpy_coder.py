"""torchac's arithmetic coder in Python integers: the same bytes where no C++ compiler exists, but slower.

The coder is Mark Nelson's 32-bit one (https://marknelson.us/posts/2014/10/19/data-compression-with-arithmetic-coding.html)
with torchac's 16-bit probabilities. Tables are uint16 `[N, L + 1]`, one row a symbol; the last entry of a row
stands for 65536 whatever it holds.
"""

import numpy as np

_MASK = 0xFFFFFFFF
_HALF = 0x80000000
_QUARTER = 0x40000000
_TOTAL = 1 << 16


def encode(cdf: np.ndarray, symbols: np.ndarray) -> bytes:
    """The bytes of `symbols`, int16 `[N]` in [0, L), under `cdf`."""
    lower = np.take_along_axis(cdf, symbols[:, None].astype(np.intp), 1)[:, 0].tolist()
    upper = np.take_along_axis(cdf, symbols[:, None].astype(np.intp) + 1, 1)[:, 0].astype(np.int64)
    upper = np.where(symbols == cdf.shape[1] - 2, _TOTAL, upper).tolist()
    bits: list[int] = []
    low, high, pending = 0, _MASK, 0
    for c_low, c_high in zip(lower, upper, strict=True):
        span = high - low + 1
        high = low - 1 + (span * c_high >> 16)
        low = low + (span * c_low >> 16)
        while True:
            if high < _HALF or low >= _HALF:
                bit = int(low >= _HALF)
                bits.append(bit)
                bits.extend([1 - bit] * pending)
                pending = 0
                low = low << 1 & _MASK
                high = high << 1 & _MASK | 1
            elif low >= _QUARTER and high < _HALF + _QUARTER:
                pending += 1
                low = low << 1 & 0x7FFFFFFF
                high = high << 1 & _MASK | 0x80000001
            else:
                break
    bit = int(low >= _QUARTER)
    bits.append(bit)
    bits.extend([1 - bit] * (pending + 1))
    return np.packbits(np.array(bits, np.uint8)).tobytes()


def decode(cdf: np.ndarray, data: bytes) -> np.ndarray:
    """The symbols, int16 `[N]`, coded in `data` under `cdf`; past its end the bits read as zeros."""
    bits = iter(np.unpackbits(np.frombuffer(data, np.uint8)).tolist())
    value = 0
    for _ in range(32):
        value = value << 1 | next(bits, 0)
    symbols = np.empty(len(cdf), np.int16)
    low, high = 0, _MASK
    for n, row in enumerate(cdf):
        span = high - low + 1
        target = ((value - low + 1) * _TOTAL - 1) // span & 0xFFFF
        symbol = int(np.searchsorted(row[:-1], target, side="right")) - 1
        symbols[n] = symbol
        c_low = int(row[symbol])
        c_high = _TOTAL if symbol == len(row) - 2 else int(row[symbol + 1])
        high = low - 1 + (span * c_high >> 16)
        low = low + (span * c_low >> 16)
        while True:
            if low >= _HALF or high < _HALF:
                low = low << 1 & _MASK
                high = high << 1 & _MASK | 1
                value = value << 1 & _MASK | next(bits, 0)
            elif low >= _QUARTER and high < _HALF + _QUARTER:
                low = low << 1 & 0x7FFFFFFF
                high = high << 1 & _MASK | 0x80000001
                value = (value - _QUARTER) << 1 & _MASK | next(bits, 0)
            else:
                break
    return symbols
