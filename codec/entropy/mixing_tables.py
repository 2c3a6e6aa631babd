"""What the adaptive coder's loop is given and leaves behind: tables, and its arithmetic coder's register.

What a library may round as it likes, logarithm and exponential, comes from these tables; `decimal` is correct.
"""

from decimal import Context, Decimal, localcontext

import numpy as np

from codec.entropy.mixing_kernel import LN_STEPS, REGISTER_ALL, REGISTER_BITS, TAIL_END, TAIL_STEPS
from codec.entropy.mixture import SCALES, SCALES_PER_E, SMALLEST_SCALE

with localcontext(Context(prec=40)):  # whatever the program around has set
    TAIL = np.array([float(1 / (1 + (Decimal(n) / TAIL_STEPS).exp())) for n in range(TAIL_STEPS * TAIL_END + 2)])
    LOGARITHMS = np.array([float((1 + Decimal(n) / LN_STEPS).ln()) for n in range(LN_STEPS + 2)])
    # 1 / scale, by the index of a scale.
    RATES = np.array([float((-Decimal(n) / SCALES_PER_E - Decimal(SMALLEST_SCALE)).exp()) for n in range(SCALES)])


def started(data: bytes = b"") -> np.ndarray:
    """The register before the first bit; of a decoder of `data`."""
    return np.array([0, REGISTER_ALL, int.from_bytes(data[:7].ljust(7, b"\0"), "big"), 0], np.int64)


def ending(register: np.ndarray) -> bytes:
    """The fewest bytes behind which, with zeros, a decoder's window lies in the interval."""
    low, high = int(register[0]), int(register[1])
    for count in range(8):
        unsaid = REGISTER_BITS - 8 * count
        value = high >> unsaid << unsaid
        if value >= low:
            break
    return (value >> unsaid).to_bytes(count, "big")
