"""The inner loop of AdaptiveMixing: a plane's pixels, one after the other, each from all that is coded before it.

For every pixel the networks' mixture of logistics is first corrected by what they got wrong nearby: regressions
that forget, and are solved anew every few pixels, say by how many deviations the mean is off and how wide the
errors are (least squares on what is decoded: Meyer and Tischer, "Glicbawls", 2001). The pixel's value, less the
first channel's, is then coded in up to nine binary decisions, most significant first. The mixtures, as they were
and corrected, and counts of what came before in the same context each say a probability; their logits are weighted
by two sets of weights, which learn from every decision, and what the coder is told is the mean of both (Mahoney,
"Adaptive weighing of context models for lossless data compression", 2005).

Doubles are added, multiplied, divided and rooted one by one, in one order: IEEE 754 says to the last bit what comes
of that. numba compiles it so, without fused or reordered operations, unless it is told `fastmath`. All that it
compiles, constants too, is in this file: what it kept of an earlier compilation is valid while that is the same.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from codec.entropy.mixture import Plane

KINDS, POSITIONS = 7, 3
CLASSES = KINDS * POSITIONS
ERRORS, PIXELS = 26, 40  # regressors at most, of the errors and of the pixels
VALUES = 256
DECISIONS = 9  # of a difference from -256 to 255
MIXTURES, CONTEXTS = 2, 5
INPUTS = MIXTURES + CONTEXTS + 1
CERTAINTIES, WIDTHS = 5, 16

UNKNOWN = -32768
ERROR_UNIT = 4096.0
_LARGEST_ERROR = 4.0
USUAL_ERROR = 0.7  # |error| / deviation, on average, of a mixture that is right
_LARGEST_SHIFT, _NARROWEST, _WIDEST = 3.0, 0.2, 5.0
_RIDGE, _KEPT, _SOLVED_EVERY = 1.0, 0.99, 32
_FLOOR = 2e-6  # of the probability, for every value
_LARGEST_LOGIT = 12.0
_LEARNING_RATE = 0.012
_BIAS = 0.3
_SETTLED = 30.0  # of which a context's count forgets
_FIRST_COUNT = 0.2
_SURE_AFTER = 2.0
_CERTAIN = np.array([0.7, 1.5, 3.0, 6.0])
_LOGISTIC_VARIANCE = 3.29  # π²/3
_LEAST_DEVIATION = 0.1
# The coder's interval, whole numbers of 56 bits: with 16 bits of a probability its width fits an int64.
REGISTER_BITS = 56
REGISTER_ALL = (1 << REGISTER_BITS) - 1
PROBABILITY_BITS = 16
# Of 65536, what a bit has at least: a section of n bytes cannot stand for more than so many bits.
LEAST = 4
TAIL_STEPS, TAIL_END = 64, 24  # of the table of the logistic
LN_STEPS = 1024  # and of that of the logarithm
_LN_2 = 0.6931471805599453
_FIRST_BYTE = REGISTER_BITS - 8
_NARROW = 1 << 24
_HASH, _HASHED = 0x9E3779B1, 0x3FFFFFFF  # their product is below 2^62

_CAUSAL = np.array([(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0)])
_CROSS = np.array([(0, -1), (-1, 0), (0, 1), (1, 0)])
# Neighbours on the grid of twice the resolution, and which of them each phase has; phase 0, the base plane, none.
_NEXT = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1), (0, -1), (-1, 0), (0, 1), (1, 0)])
_FIRST_NEXT, _BEHIND_NEXT = np.array([0, 0, 4, 0]), np.array([0, 4, 8, 8])
_NEAREST = np.array([(0, -1), (-1, -1), (0, -1), (-1, 0)])  # of each phase, and the one across it
_ACROSS = np.array([(-1, 0), (-1, 1), (0, 1), (1, 0)])


class State(NamedTuple):
    """What is known, and what has been learned, of an image `[C, H, W]`; classes are kinds of planes by channel."""

    pixels: np.ndarray  # int16 [C, H, W], 0 where nothing is known
    errors: np.ndarray  # int16 [C, H, W], in deviations of 1/4096, UNKNOWN where nothing is known
    shift_moments: np.ndarray  # [CLASSES, ERRORS, ERRORS + 1]: error from errors
    shift: np.ndarray  # [CLASSES, ERRORS]
    width_moments: np.ndarray  # the same: |error| from |errors|
    width: np.ndarray
    pixel_moments: np.ndarray  # [CLASSES, PIXELS, PIXELS + 1]: error from pixels
    pixel_shift: np.ndarray  # [CLASSES, PIXELS]
    by_certainty: np.ndarray  # [CLASSES, DECISIONS, CERTAINTIES, INPUTS]: weights
    by_width: np.ndarray  # [CLASSES, WIDTHS, WIDTHS, INPUTS]: weights
    # float32 [CONTEXTS, buckets, 8, 2]: how likely a decision's bit is 1 there, and how often it was made
    counts: np.ndarray
    tail: np.ndarray  # tables: 1 / (1 + e^u) at u = n / TAIL_STEPS, and
    logarithms: np.ndarray  # ln(1 + n / LN_STEPS)


def _compiled(function: Callable) -> Callable:
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no folder to keep what is compiled in
        return njit(nogil=True)(function)


@_compiled
def code_plane(
    decoding: bool,
    values: np.ndarray,
    columns: int,
    means: np.ndarray,
    rates: np.ndarray,
    weights: np.ndarray,
    plane: Plane,
    order: np.ndarray,
    state: State,
    register: np.ndarray,
    data: np.ndarray,
) -> None:
    """Codes a plane of `columns` columns: `values`, int16 `[N]`, row by row, which a decoder writes.

    Its mixtures are float64 `[N, K]`: `means` in levels, `rates`, which are 1 / scale, and `weights`. `order` is
    the image's channels in coding order. `register` and `data` are the coder's (see code_bit); an encoder's
    `data` has 18 bytes a pixel left.
    """
    components = means.shape[1]
    class_ = plane.kind * POSITIONS + plane.position
    channel, position, step, phase = plane.channel, plane.position, plane.step, plane.phase
    # An attribute of a tuple costs numba two atomic operations each time.
    known, off_by = state.pixels, state.errors
    shift_moments, shift = state.shift_moments[class_], state.shift[class_]
    width_moments, width = state.width_moments[class_], state.width[class_]
    pixel_moments, pixel_shift = state.pixel_moments[class_], state.pixel_shift[class_]
    by_certainty, by_width, counts = state.by_certainty[class_], state.by_width[class_], state.counts
    tail, logarithms = state.tail, state.logarithms
    errors, sizes, pixels = np.zeros(ERRORS), np.zeros(ERRORS), np.zeros(PIXELS)
    factor = np.zeros((PIXELS, PIXELS))
    centres, slopes = np.zeros((MIXTURES, components)), np.zeros((MIXTURES, components))
    contexts, buckets = np.zeros(CONTEXTS, np.int64), np.zeros(CONTEXTS, np.int64)
    inputs, ends = np.zeros(INPUTS), np.zeros((3, MIXTURES))
    since = 0
    for n in range(len(values)):
        y = plane.top + n // columns * step
        x = plane.left + n % columns * step
        mean, square = 0.0, 0.0
        for k in range(components):
            mean += weights[n, k] * means[n, k]
        for k in range(components):
            off = means[n, k] - mean
            square += weights[n, k] * (_LOGISTIC_VARIANCE / (rates[n, k] * rates[n, k]) + off * off)
        deviation = math.sqrt(square) + _LEAST_DEVIATION
        used = _neighbouring_errors(off_by, order, position, channel, step, phase, y, x, errors, sizes)
        sizes[used] = ln(deviation, logarithms)
        used += 1
        off, size = 0.0, 0.0
        for k in range(used):
            off += shift[k] * errors[k]
            size += width[k] * sizes[k]
        unit = 1.0 / deviation
        seen = _neighbouring_pixels(known, off_by, order, position, channel, step, phase, y, x, mean, unit, pixels)
        pixels[seen], pixels[seen + 1] = unit, off
        seen += 2
        better = 0.0
        for k in range(seen):
            better += pixel_shift[k] * pixels[k]
        better = min(max(better, -_LARGEST_SHIFT), _LARGEST_SHIFT)
        wider = min(max(size / USUAL_ERROR, _NARROWEST), _WIDEST)
        for k in range(components):
            centres[0, k], slopes[0, k] = means[n, k], rates[n, k]
            centres[1, k] = mean + better * deviation + (means[n, k] - mean) * wider
            slopes[1, k] = rates[n, k] / wider
        _contexts_of(known, off_by, order, position, channel, step, phase, y, x, contexts)
        origin = int(known[order[0], y, x]) if position > 0 else 0
        row, column = _step_of(ln(deviation, logarithms) + 0.5), _step_of(ln(wider, logarithms) + 2.0)
        values[n] = _code_value(
            decoding, values[n], origin, centres, slopes, weights, n, contexts, counts,
            by_certainty, by_width, row, column, buckets, inputs, ends, register, data, tail, logarithms,
        )  # fmt: skip
        error = (values[n] - mean) / deviation
        error = min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)
        known[channel, y, x] = values[n]
        off_by[channel, y, x] = int(error * ERROR_UNIT)
        _learn(shift_moments, errors, used, error)
        _learn(width_moments, sizes, used, abs(error - off))
        _learn(pixel_moments, pixels, seen, error)
        since += 1
        if since == _SOLVED_EVERY:
            since = 0
            solve(shift_moments, used, _RIDGE, factor, shift)
            solve(width_moments, used, _RIDGE, factor, width)
            solve(pixel_moments, seen, _RIDGE, factor, pixel_shift)
            shift_moments *= _KEPT
            width_moments *= _KEPT
            pixel_moments *= _KEPT


@_compiled
def _step_of(logarithm: float) -> int:
    return int(min(max(4.0 * logarithm, 0.0), WIDTHS - 1.0))


@_compiled
def _is_known(off_by: np.ndarray, channel: int, y: int, x: int) -> bool:
    inside = 0 <= y < off_by.shape[1] and 0 <= x < off_by.shape[2]
    return inside and off_by[channel, y, x] != UNKNOWN


@_compiled
def _neighbouring_errors(
    off_by: np.ndarray,
    order: np.ndarray,
    position: int,
    channel: int,
    step: int,
    phase: int,
    y: int,
    x: int,
    errors: np.ndarray,
    sizes: np.ndarray,
) -> int:
    """Fills in 1 and the errors around, with their sizes; returns how many that is."""
    errors[0] = sizes[0] = 1.0
    n = 1
    for k in range(len(_CAUSAL)):
        n = _add_error(off_by, channel, y + _CAUSAL[k, 0] * step, x + _CAUSAL[k, 1] * step, errors, sizes, n)
    for before in range(position):
        n = _add_error(off_by, order[before], y, x, errors, sizes, n)
        for k in range(len(_CROSS)):
            there = y + _CROSS[k, 0] * step, x + _CROSS[k, 1] * step
            n = _add_error(off_by, order[before], there[0], there[1], errors, sizes, n)
    half = step // 2
    for k in range(_FIRST_NEXT[phase], _BEHIND_NEXT[phase]):
        n = _add_error(off_by, channel, y + _NEXT[k, 0] * half, x + _NEXT[k, 1] * half, errors, sizes, n)
    errors[n] = 0.0
    return n


@_compiled
def _add_error(
    off_by: np.ndarray, channel: int, y: int, x: int, errors: np.ndarray, sizes: np.ndarray, n: int
) -> int:
    if _is_known(off_by, channel, y, x):
        errors[n] = off_by[channel, y, x] / ERROR_UNIT
        sizes[n] = abs(errors[n])
    else:
        errors[n], sizes[n] = 0.0, USUAL_ERROR
    return n + 1


@_compiled
def _neighbouring_pixels(
    known: np.ndarray,
    off_by: np.ndarray,
    order: np.ndarray,
    position: int,
    channel: int,
    step: int,
    phase: int,
    y: int,
    x: int,
    mean: float,
    unit: float,
    pixels: np.ndarray,
) -> int:
    """Fills in the pixels around less `mean`, of channels coded before less those here; returns how many."""
    n = 0
    for k in range(len(_CAUSAL)):
        down, right = _CAUSAL[k, 0] * step, _CAUSAL[k, 1] * step
        n = _add_pixel(known, off_by, channel, y + down, x + right, mean, unit, pixels, n)
    for before in range(position):
        here = float(known[order[before], y, x])
        for k in range(len(_CROSS)):
            down, right = _CROSS[k, 0] * step, _CROSS[k, 1] * step
            n = _add_pixel(known, off_by, order[before], y + down, x + right, here, unit, pixels, n)
    half = step // 2
    for k in range(_FIRST_NEXT[phase], _BEHIND_NEXT[phase]):
        down, right = _NEXT[k, 0] * half, _NEXT[k, 1] * half
        n = _add_pixel(known, off_by, channel, y + down, x + right, mean, unit, pixels, n)
        for before in range(position):
            here = float(known[order[before], y, x])
            n = _add_pixel(known, off_by, order[before], y + down, x + right, here, unit, pixels, n)
    return n


@_compiled
def _add_pixel(
    known: np.ndarray,
    off_by: np.ndarray,
    channel: int,
    y: int,
    x: int,
    origin: float,
    unit: float,
    pixels: np.ndarray,
    n: int,
) -> int:
    pixels[n] = (known[channel, y, x] - origin) * unit if _is_known(off_by, channel, y, x) else 0.0
    return n + 1


@_compiled
def _learn(moments: np.ndarray, regressors: np.ndarray, count: int, target: float) -> None:
    last = moments.shape[1] - 1
    for i in range(count):
        value = regressors[i]
        for j in range(i, count):
            moments[i, j] += value * regressors[j]
        moments[i, last] += value * target


# ---- one value


@_compiled
def _contexts_of(
    known: np.ndarray,
    off_by: np.ndarray,
    order: np.ndarray,
    position: int,
    channel: int,
    step: int,
    phase: int,
    y: int,
    x: int,
    contexts: np.ndarray,
) -> None:
    """What the pixel's value is counted under: its position and each time something else that is known.

    Pictures that came from YCbCr or YCC, or have few colours, hold only some of all colours: which these are shows
    in the exact values of the channels before, and in their differences.
    """
    first = int(known[order[0], y, x]) if position > 0 else 0
    second = int(known[order[1], y, x]) if position > 1 else 0
    difference = second - first + VALUES if position > 1 else 0
    half = max(step // 2, 1) if phase else step
    down, right = _NEAREST[phase, 0] * half, _NEAREST[phase, 1] * half
    nearest = _value_at(known, off_by, channel, y + down, x + right)
    first_there = _value_at(known, off_by, order[0], y + down, x + right)
    across = _value_at(known, off_by, channel, y + _ACROSS[phase, 0] * half, x + _ACROSS[phase, 1] * half)
    contexts[0] = (position * VALUES + first) * VALUES + second
    contexts[1] = ((position * VALUES + first) * (VALUES + 1) + nearest) * (VALUES + 1) + across
    contexts[2] = position
    contexts[3] = position * 2 * VALUES + difference
    contexts[4] = (position * 2 * VALUES + difference) * 4 * VALUES + nearest - first_there + 2 * VALUES


@_compiled
def _value_at(known: np.ndarray, off_by: np.ndarray, channel: int, y: int, x: int) -> int:
    return int(known[channel, y, x]) if _is_known(off_by, channel, y, x) else VALUES


@_compiled
def _code_value(
    decoding: bool,
    value: int,
    origin: int,
    centres: np.ndarray,
    slopes: np.ndarray,
    weights: np.ndarray,
    n: int,
    contexts: np.ndarray,
    counts: np.ndarray,
    by_certainty: np.ndarray,
    by_width: np.ndarray,
    row: int,
    column: int,
    buckets: np.ndarray,
    inputs: np.ndarray,
    ends: np.ndarray,
    register: np.ndarray,
    data: np.ndarray,
    tail: np.ndarray,
    logarithms: np.ndarray,
) -> int:
    low, high = origin - VALUES, origin + VALUES  # the value is at least low and below high
    inputs[INPUTS - 1] = _BIAS
    for m in range(MIXTURES):
        ends[0, m], ends[1, m] = 0.0, 1.0
    start = low
    for decision in range(DECISIONS):
        within = decision % 3
        if within == 0:
            start = low
            prefix = (1 << decision) + ((low - origin + VALUES) >> (DECISIONS - decision))
            for k in range(CONTEXTS):
                buckets[k] = _bucket(contexts[k] * 2 * VALUES + prefix, counts.shape[1])
        middle = (low + high) // 2
        if middle <= 0:
            low = middle
            continue
        if middle >= VALUES:
            high = middle
            continue
        for m in range(MIXTURES):
            total = 0.0
            for k in range(weights.shape[1]):
                total += weights[n, k] * logistic((middle - 0.5 - centres[m, k]) * slopes[m, k], tail)
            ends[2, m] = total
            over = max(ends[1, m] - total, 0.0) + (min(high, VALUES) - middle) * _FLOOR
            under = max(total - ends[0, m], 0.0) + (middle - max(low, 0)) * _FLOOR
            inputs[m] = min(max(ln(over / under, logarithms), -_LARGEST_LOGIT), _LARGEST_LOGIT)
        node = (1 << within) + ((low - start) >> (DECISIONS - decision))
        for k in range(CONTEXTS):
            count = float(counts[k, buckets[k], node, 1])
            inputs[MIXTURES + k] = 0.0
            if count > 0.0:
                ones = float(counts[k, buckets[k], node, 0])
                inputs[MIXTURES + k] = ln(ones / (1.0 - ones), logarithms) * min(count / _SURE_AFTER, 1.0)
        certainty = 0
        while certainty < CERTAINTIES - 1 and abs(inputs[1]) >= _CERTAIN[certainty]:
            certainty += 1
        one, other = 0.0, 0.0
        for k in range(INPUTS):
            one += by_certainty[decision, certainty, k] * inputs[k]
            other += by_width[row, column, k] * inputs[k]
        one = min(max(one, -_LARGEST_LOGIT), _LARGEST_LOGIT)
        other = min(max(other, -_LARGEST_LOGIT), _LARGEST_LOGIT)
        likely = logistic(0.5 * (one + other), tail) * (1 << PROBABILITY_BITS)
        ones_of = int(min(max(likely, float(LEAST)), float((1 << PROBABILITY_BITS) - LEAST)))
        bit = code_bit(decoding, register, data, 1 if value >= middle else 0, ones_of)
        one, other = _LEARNING_RATE * (bit - logistic(one, tail)), _LEARNING_RATE * (bit - logistic(other, tail))
        for k in range(INPUTS):
            by_certainty[decision, certainty, k] += one * inputs[k]
            by_width[row, column, k] += other * inputs[k]
        for k in range(CONTEXTS):
            count = min(float(counts[k, buckets[k], node, 1]) + 1.0, _SETTLED)
            ones = float(counts[k, buckets[k], node, 0])
            ones += (bit - ones) / (count + _FIRST_COUNT)
            counts[k, buckets[k], node, 0] = min(max(ones, 1e-4), 1.0 - 1e-4)
            counts[k, buckets[k], node, 1] = count
        for m in range(MIXTURES):
            ends[1 - bit, m] = ends[2, m]
        if bit:
            low = middle
        else:
            high = middle
    return low


@_compiled
def _bucket(context: int, buckets: int) -> int:
    return (context % _HASHED * _HASH >> 20) & (buckets - 1)


# ---- arithmetic


@_compiled
def logistic(u: float, tail: np.ndarray) -> float:
    """1 / (1 + e^-u), with an absolute error below 10^-5."""
    distance = min(abs(u), TAIL_END) * TAIL_STEPS
    n = int(distance)
    share = tail[n] + (distance - n) * (tail[n + 1] - tail[n])
    return 1.0 - share if u > 0 else share


@_compiled
def ln(x: float, logarithms: np.ndarray) -> float:
    """The natural logarithm of `x` > 0, with an absolute error below 10^-6."""
    mantissa, exponent = math.frexp(x)
    fraction = (2.0 * mantissa - 1.0) * LN_STEPS
    n = int(fraction)
    return (exponent - 1) * _LN_2 + logarithms[n] + (fraction - n) * (logarithms[n + 1] - logarithms[n])


@_compiled
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


@_compiled
def code_bit(decoding: bool, register: np.ndarray, data: np.ndarray, bit: int, ones: int) -> int:
    """Writes `bit`, 1 with a probability of `ones` / 65536, to `data`, or reads it; behind their end are zeros.

    A binary arithmetic coder. `register` has the low and the high end of its interval, of a decoder the window that
    lies in it, and how many bytes have left them.
    """
    low, high, window = register[0], register[1], register[2]
    middle = low + ((high - low) >> PROBABILITY_BITS) * ones
    if decoding:
        bit = 1 if window <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while True:
        if (low ^ high) >> _FIRST_BYTE:
            if high - low >= _NARROW:
                break
            # The ends lie close together on both sides of a carry: the interval gives its smaller side up.
            carry = high >> _FIRST_BYTE << _FIRST_BYTE
            if carry - low > high - carry:
                high = carry - 1
            else:
                low = carry
        if decoding:
            following = register[3] + REGISTER_BITS // 8
            window = (window << 8 & REGISTER_ALL) | (data[following] if following < len(data) else 0)
        else:
            data[register[3]] = low >> _FIRST_BYTE
        register[3] += 1
        low = low << 8 & REGISTER_ALL
        high = (high << 8 & REGISTER_ALL) | 255
    register[0], register[1], register[2] = low, high, window
    return bit
