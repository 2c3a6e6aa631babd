"""What the adaptive coder's loop is given and leaves behind: tables, and its arithmetic coder's register.

What a library may round as it likes, logarithm and exponential, comes from these tables; `decimal` is correct.
"""

from decimal import Context, Decimal, localcontext

import numpy as np

from codec.entropy.mixing_kernel import (
    LN_BITS,
    MISSED_BITS,
    MOST_SEEN,
    REGISTER_ALL,
    REGISTER_BITS,
    SHARE_BITS,
    STEP_BITS,
    SURE,
    SURE_STEPS,
    TAIL_END,
    TAIL_STEPS,
    Tables,
)
from codec.entropy.mixture import SCALES, SCALES_PER_E, SMALLEST_SCALE, WEIGHT_STEPS, WEIGHTS_PER_E

_VARIANCE = Decimal("3.29")  # π²/3, of a logistic whose scale is 1
_FIRST_COUNT = 2  # tenths by which a count, when it begins, is more than what was seen


def _tables() -> Tables:
    log_scales = [Decimal(n) / SCALES_PER_E + Decimal(SMALLEST_SCALE) for n in range(SCALES)]
    halves = [Decimal(2 * n + 1) for n in range(1 << SHARE_BITS)]
    return Tables(
        tail=_floats(1 / (1 + (Decimal(n) / TAIL_STEPS).exp()) for n in range(TAIL_STEPS * TAIL_END + 2)),
        logarithms=_floats((1 + Decimal(n) / (1 << LN_BITS)).ln() for n in range((1 << LN_BITS) + 1)),
        rates=_floats((-log_scale).exp() for log_scale in log_scales),
        variances=_floats(_VARIANCE * (2 * log_scale).exp() for log_scale in log_scales),
        weights=_floats((-Decimal(n) / WEIGHTS_PER_E).exp() for n in range(WEIGHT_STEPS)),
        logits=_floats((half / ((2 << SHARE_BITS) - half)).ln() for half in halves),
        steps=np.array([(10 << STEP_BITS) // (10 * (n + 1) + _FIRST_COUNT) for n in range(MOST_SEEN + 1)]),
    )


def _floats(numbers: object) -> np.ndarray:
    return np.array([float(number) for number in numbers])


with localcontext(Context(prec=40)):  # whatever the program around has set
    TABLES = _tables()
    # Of 2^MISSED_BITS, for each step of sureness: a little less often than the mixture itself would say.
    MISSED = np.array(
        [
            int((1 << MISSED_BITS) * (-(Decimal(SURE) + Decimal(n) / 2 + Decimal("1.5"))).exp())
            for n in range(SURE_STEPS)
        ]
    )


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
