"""Tables and the coder's register for the adaptive coder's loop, the same on every machine.

What a library may round as it likes, logarithm and exponential, comes from here; `decimal` rounds correctly.
"""

from decimal import Decimal

import numpy as np

TAIL_STEPS, TAIL_END = 64, 24
LN_STEPS = 1024
TAIL = np.array([float(1 / (1 + (Decimal(n) / TAIL_STEPS).exp())) for n in range(TAIL_STEPS * TAIL_END + 2)])
LN = np.array([float((1 + Decimal(n) / LN_STEPS).ln()) for n in range(LN_STEPS + 2)])
LN_2 = float(Decimal(2).ln())

# The coder's interval, whole numbers of 56 bits: with 16 bits of a probability its width fits an int64.
REGISTER_BITS = 56
REGISTER_ALL = (1 << REGISTER_BITS) - 1
PROBABILITY_BITS = 16
# Of 65536, what a bit has at least: a section of n bytes cannot stand for more than so many bits.
LEAST = 4


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
