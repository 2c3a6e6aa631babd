"""Arithmetic of the adaptive coder whose results are the same on every machine.

Doubles are added, multiplied, divided and rooted one by one, in one order: IEEE 754 says to the last bit what comes of
that. numba compiles it so, without fused or reordered operations, unless it is told `fastmath`. What a library may
round as it likes, logarithm and exponential, comes from tables, which `decimal` rounds correctly.
"""

import math
from decimal import Decimal

import numpy as np
from numba import njit

_TAIL_STEPS, _TAIL_END = 64, 24
_LN_STEPS = 1024
_TAIL = np.array([float(1 / (1 + (Decimal(n) / _TAIL_STEPS).exp())) for n in range(_TAIL_STEPS * _TAIL_END + 2)])
_LN = np.array([float((1 + Decimal(n) / _LN_STEPS).ln()) for n in range(_LN_STEPS + 2)])
_LN_2 = float(Decimal(2).ln())

# The coder's interval, whole numbers of 56 bits: with 16 bits of a probability its width fits an int64.
_REGISTER = 56
_ALL = (1 << _REGISTER) - 1
_BYTE = _REGISTER - 8
PROBABILITY = 16
# Of 65536, what a bit has at least: a section of n bytes cannot stand for more than so many bits.
LEAST = 4


@njit(cache=True)
def logistic(u: float) -> float:
    """1 / (1 + e^-u), with an absolute error below 10^-5."""
    distance = min(abs(u), _TAIL_END) * _TAIL_STEPS
    n = int(distance)
    tail = _TAIL[n] + (distance - n) * (_TAIL[n + 1] - _TAIL[n])
    return 1.0 - tail if u > 0 else tail


@njit(cache=True)
def ln(x: float) -> float:
    """The natural logarithm of `x` > 0, with an absolute error below 10^-6."""
    mantissa, exponent = math.frexp(x)
    fraction = (2.0 * mantissa - 1.0) * _LN_STEPS
    n = int(fraction)
    return (exponent - 1) * _LN_2 + _LN[n] + (fraction - n) * (_LN[n + 1] - _LN[n])


@njit(cache=True)
def solve(moments: np.ndarray, count: int, ridge: float, factor: np.ndarray, solution: np.ndarray) -> None:
    """Least squares by Cholesky's decomposition: `solution` `[:count]` of the normal equations in `moments`.

    `moments` `[N, N + 1]` has the products of the regressors on its diagonal and right of it, `ridge` is added to
    those on it, and in its last column their products with the target. `factor` `[N, N]` is scratch.
    """
    last = moments.shape[1] - 1
    for i in range(count):
        for j in range(i, count):
            factor[i, j] = moments[i, j]
        factor[i, i] += ridge
        solution[i] = moments[i, last]
    for k in range(count):
        root = math.sqrt(max(factor[k, k], 1e-9))
        for j in range(k, count):
            factor[k, j] /= root
        solution[k] /= root
        for i in range(k + 1, count):
            scale = factor[k, i]
            for j in range(i, count):
                factor[i, j] -= scale * factor[k, j]
            solution[i] -= scale * solution[k]
    for i in range(count - 1, -1, -1):
        product = solution[i]
        for k in range(i + 1, count):
            product -= factor[i, k] * solution[k]
        solution[i] = product / factor[i, i]


# ---- a binary arithmetic coder, low and high of its interval and a window in `register`, the position in `data`


@njit(cache=True)
def encode_bit(register: np.ndarray, data: np.ndarray, bit: int, ones: int) -> None:
    """Writes `bit`, 1 with the probability `ones` / 65536."""
    low, high = register[0], register[1]
    middle = low + ((high - low) >> PROBABILITY) * ones
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> _BYTE == 0:
        data[register[3]] = low >> _BYTE
        register[3] += 1
        low = (low << 8) & _ALL
        high = ((high << 8) & _ALL) | 255
    register[0], register[1] = low, high


@njit(cache=True)
def decode_bit(register: np.ndarray, data: np.ndarray, ones: int) -> int:
    """The bit that `encode_bit` wrote. Behind the end of `data` all bytes are 0."""
    low, high, window = register[0], register[1], register[2]
    middle = low + ((high - low) >> PROBABILITY) * ones
    bit = 1 if window <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) >> _BYTE == 0:
        low = (low << 8) & _ALL
        high = ((high << 8) & _ALL) | 255
        following = data[register[3] + 7] if register[3] + 7 < len(data) else 0
        window = ((window << 8) & _ALL) | following
        register[3] += 1
    register[0], register[1], register[2] = low, high, window
    return bit


def started(data: bytes = b"") -> np.ndarray:
    """The register before the first bit; of a decoder of `data`."""
    return np.array([0, _ALL, int.from_bytes(data[:7].ljust(7, b"\0"), "big"), 0], np.int64)


def ending(register: np.ndarray) -> bytes:
    """The fewest bytes behind which, with zeros, a decoder's window lies in the interval."""
    low, high = int(register[0]), int(register[1])
    for count in range(8):
        unsaid = _REGISTER - 8 * count
        value = high >> unsaid << unsaid
        if value >= low:
            break
    return (value >> unsaid).to_bytes(count, "big")
