"""The inner loop of AdaptiveMixing: a plane's pixels, one after the other, each from all that is coded before it.

For every pixel the networks' mixture of logistics is first corrected by what they got wrong nearby: regressions
that forget, and are solved anew every few pixels, say by how many deviations the mean is off and how wide the
errors are (least squares on what is decoded: Meyer and Tischer, "Glicbawls", 2001). The pixel's value, less the
first channel's, is then coded in up to nine binary decisions, most significant first. Where the corrected mixture
is sure of one, how often it was wrong when as sure is all that is asked. Else it and counts of what came before in
the same context each say a probability; their logits are weighted by two sets of weights, which learn from every
decision, and what the coder is told is the mean of both (Mahoney, "Adaptive weighing of context models for lossless
data compression", 2005).

Floats are added, multiplied, divided and rooted one by one, in one order: IEEE 754 says to the last bit what comes
of that. numba compiles it so, without fused or reordered operations, unless it is told `fastmath`. Regressors and
what is solved are float32, all else is float64. All that is compiled, constants too, is in this file: what numba
kept of an earlier compilation is valid while that is the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from codec.entropy.compiled import OPTIONS, compiled, inlined

KINDS, POSITIONS = 7, 3
CLASSES = KINDS * POSITIONS
# At most, multiples of 8: of the errors are a one and a logarithm, of the pixels two more.
ERRORS, PIXELS = 16, 32
VALUES = 256
DECISIONS = 9  # of a difference from -256 to 255
CONTEXTS = 5
NODES = 16  # a context's counts of up to four decisions in a row, by those of them that were made
INPUTS = 1 + CONTEXTS + 1  # the corrected mixture, counts, and a constant
CERTAINTIES, WIDTHS = 4, 16

UNKNOWN = -32768
ERROR_UNIT = 4096.0
_LARGEST_ERROR = 4.0
USUAL_ERROR = 0.7  # |error| / deviation, on average, of a mixture that is right
_LARGEST_SHIFT, _NARROWEST, _WIDEST = 3.0, 0.2, 5.0
_SOLVED_EVERY = 64
_RIDGE, _KEPT, _ONE = np.float32(1), np.float32(0.98), np.float32(1)
_SMALLEST_PIVOT = np.float32(0.5)  # without rounding none would be below the ridge
_FLOOR = 2e-6  # of the probability, for every value
_LARGEST_LOGIT = 12.0
_LEARNING_RATE = 0.018
_BIAS = 0.3
# From this logit on a decision is sure; how sure, in halves, and of 2^24, how often that was wrong.
SURE = 4.0
SURE_STEPS, MISSED_BITS = 16, 24
_MISSED_SHIFT = 7  # a sure decision changes that share by 2^-7
_CERTAIN = (0.7, 1.5, 3.0)
_LEAST_DEVIATION = 0.1
# A count: how likely a 1 is, of 2^12, and how often that was seen, 15 times or more, in the lowest 4 bits.
SHARE_BITS, SEEN_BITS = 12, 4
MOST_SEEN = (1 << SEEN_BITS) - 1
STEP_BITS = 16  # of the share by which a count learns
_EDGE = 32  # levels between two neighbours that lie on two sides of one
# The coder's interval, whole numbers of 56 bits: with 16 bits of a probability its width fits an int64.
REGISTER_BITS = 56
REGISTER_ALL = (1 << REGISTER_BITS) - 1
PROBABILITY_BITS = 16
# Of 65536, what a bit has at least: a section of n bytes cannot stand for more than so many bits.
LEAST = 4
TAIL_STEPS, TAIL_END = 64, 24  # of the table of the logistic
LN_BITS = 10  # and of that of the logarithm
_LN_2 = 0.6931471805599453
_FIRST_BYTE = REGISTER_BITS - 8
_NARROW = 1 << 24
_MOST_BYTES_A_BIT = 8
_HASH, _HASHED = 0x9E3779B1, 0x3FFFFFFF  # their product is below 2^62


class Neighbours(NamedTuple):
    """Of a plane: its class (kind by channel), where its pixels lie in a flat State, and what is known around each.

    Distances are from the pixel to predict. Of `pixels`, each is seen relative to its `origins`: 0 the mixture's
    mean, 1 and 2 the pixel's value in the first and second channel.
    """

    class_: int
    position: int
    start: int
    down: int
    right: int
    here: np.ndarray  # int64 [2]: the pixel itself in the first and second channel
    errors: np.ndarray  # int64 [E]
    pixels: np.ndarray  # int64 [P]
    origins: np.ndarray  # int64 [P]
    nearest: int
    across: int
    nearest_in_first: int


class State(NamedTuple):
    """What is known, and what has been learned, of an image."""

    pixels: np.ndarray  # int16, flat; UNKNOWN where nothing is known
    errors: np.ndarray  # int16, flat, in deviations of 1/4096, UNKNOWN where nothing is known
    # float32 [CLASSES, N + 1, N]: products of regressors right of the diagonal, in the last row with the target
    shift_moments: np.ndarray  # error from errors
    width_moments: np.ndarray  # |error| from |errors|
    pixel_moments: np.ndarray  # error from pixels
    # float32 [CLASSES, N], of the same
    shift: np.ndarray
    width: np.ndarray
    pixel_shift: np.ndarray
    # float64 [CLASSES, …]: weights, by DECISIONS, CERTAINTIES, INPUTS and by WIDTHS, WIDTHS, INPUTS, flat
    by_certainty: np.ndarray
    by_width: np.ndarray
    missed: np.ndarray  # int64 [CLASSES, SURE_STEPS]
    counts: np.ndarray  # uint16 [CONTEXTS, NODES · buckets]


class Tables(NamedTuple):
    """What a library may round as it likes: made beforehand, by arithmetic that is correct to the last bit."""

    tail: np.ndarray  # 1 / (1 + e^u) at u = n / TAIL_STEPS
    logarithms: np.ndarray  # ln(1 + n / 2^LN_BITS)
    rates: np.ndarray  # 1 / scale and
    variances: np.ndarray  # π²/3 scale², by the index of a scale
    weights: np.ndarray  # e^(-n / 8)
    logits: np.ndarray  # ln(p / (1 - p)), by the share of a count
    steps: np.ndarray  # int64: by which share, of 2^STEP_BITS, a count learns, by how often it was seen


@compiled
def code_plane(
    decoding: bool,
    values: np.ndarray,
    columns: int,
    means: np.ndarray,
    scales: np.ndarray,
    behind: np.ndarray,
    neighbours: Neighbours,
    state: State,
    tables: Tables,
    register: np.ndarray,
    data: np.ndarray,
    told: np.ndarray,
) -> int:
    """Codes a plane of `columns` columns: `values`, int16 `[N]`, row by row, which a decoder writes.

    Its mixtures are codec.entropy.mixture.Rounded as NumPy arrays `[N, K]`. `register` and `data` are the coder's
    (see code_bit); an encoder's `data` has 18 bytes a pixel left. `told`, uint32, is empty or has room for
    DECISIONS a pixel: then it is given what the coder was told (see check_bits). Returns how many those are.
    """
    components = means.shape[1]
    # An attribute of a tuple costs numba two atomic operations each time.
    class_, position = neighbours.class_, neighbours.position
    start, down, right = neighbours.start, neighbours.down, neighbours.right
    here, errors_at, pixels_at, origins_of = (
        neighbours.here, neighbours.errors, neighbours.pixels, neighbours.origins
    )  # fmt: skip
    nearest, across, nearest_in_first = neighbours.nearest, neighbours.across, neighbours.nearest_in_first
    known, off_by, counts = state.pixels, state.errors, state.counts
    shift_moments, shift = state.shift_moments[class_], state.shift[class_]
    width_moments, width = state.width_moments[class_], state.width[class_]
    pixel_moments, pixel_shift = state.pixel_moments[class_], state.pixel_shift[class_]
    by_certainty, by_width, missed = state.by_certainty[class_], state.by_width[class_], state.missed[class_]
    tail, logarithms, rates, variances = tables.tail, tables.logarithms, tables.rates, tables.variances
    weights = tables.weights
    logits, steps = tables.logits, tables.steps
    used, seen = _padded(len(errors_at) + 2), _padded(len(pixels_at) + 2)
    errors = np.zeros((_SOLVED_EVERY, ERRORS), np.float32)
    sizes = np.zeros((_SOLVED_EVERY, ERRORS), np.float32)
    pixels = np.zeros((_SOLVED_EVERY, PIXELS), np.float32)
    missing, missing_size = np.zeros(_SOLVED_EVERY, np.float32), np.zeros(_SOLVED_EVERY, np.float32)
    factor = np.zeros((PIXELS, PIXELS), np.float32)
    centres, slopes, shares = np.zeros(components), np.zeros(components), np.zeros(components)
    contexts, buckets = np.zeros(CONTEXTS, np.int64), np.zeros(CONTEXTS, np.int64)
    inputs, origins = np.zeros(INPUTS), np.zeros(POSITIONS)
    inputs[INPUTS - 1] = _BIAS
    float_ = np.zeros(1)
    bits = float_.view(np.int64)
    since, made, column, at = 0, 0, 0, start
    for n in range(len(values)):
        if column == columns:
            column = 0
            start += down
            at = start
        mean, square, total = 0.0, 0.0, 0.0
        for k in range(components):
            shares[k] = weights[behind[n, k]]
            total += shares[k]
        total = 1.0 / total
        for k in range(components):
            shares[k] *= total
            centres[k], slopes[k] = means[n, k] * (1 / 16), rates[scales[n, k]]
            mean += shares[k] * centres[k]
        for k in range(components):
            off = centres[k] - mean
            square += shares[k] * (variances[scales[n, k]] + off * off)
        deviation = math.sqrt(square) + _LEAST_DEVIATION
        unit = 1.0 / deviation
        log_deviation = ln(deviation, logarithms, float_, bits)

        errors[since, 0] = sizes[since, 0] = 1.0
        for k in range(len(errors_at)):
            whole = off_by[at + errors_at[k]]
            error = whole * (1 / ERROR_UNIT) if whole != UNKNOWN else 0.0
            errors[since, k + 1] = error
            sizes[since, k + 1] = abs(error) if whole != UNKNOWN else USUAL_ERROR
        sizes[since, len(errors_at) + 1] = log_deviation
        off = product(shift, errors[since], used)
        size = product(width, sizes[since], used)
        origins[0] = mean
        for k in range(position):
            origins[k + 1] = known[at + here[k]]
        for k in range(len(pixels_at)):
            value = known[at + pixels_at[k]]
            pixels[since, k] = (value - origins[origins_of[k]]) * unit if value != UNKNOWN else 0.0
        pixels[since, len(pixels_at)], pixels[since, len(pixels_at) + 1] = unit, off
        better = min(max(product(pixel_shift, pixels[since], seen), -_LARGEST_SHIFT), _LARGEST_SHIFT)
        wider = min(max(size / USUAL_ERROR, _NARROWEST), _WIDEST)
        centre, narrower = mean + better * deviation, 1.0 / wider
        for k in range(components):
            centres[k] = centre + (centres[k] - mean) * wider
            slopes[k] *= narrower

        first = int(known[at + here[0]]) if position > 0 else 0
        second = int(known[at + here[1]]) if position > 1 else 0
        _fill_contexts(
            contexts, position, first, second, _or_none(known[at + nearest]), _or_none(known[at + across]),
            _or_none(known[at + nearest_in_first]), centre,
        )  # fmt: skip
        row, place = _step_of(log_deviation + 0.5), _step_of(ln(wider, logarithms, float_, bits) + 2.0)
        decoded, made = _code_value(
            decoding, int(values[n]), first, centres, slopes, shares, contexts, counts, by_certainty, by_width,
            (row * WIDTHS + place) * INPUTS, missed, buckets, inputs, register, data, told, made, tail, logarithms,
            logits, steps, float_, bits,
        )  # fmt: skip
        values[n] = known[at] = decoded
        error = min(max((decoded - mean) * unit, -_LARGEST_ERROR), _LARGEST_ERROR)
        off_by[at] = int(error * ERROR_UNIT)
        missing[since], missing_size[since] = error, abs(error - off)
        since += 1
        if since == _SOLVED_EVERY or n == len(values) - 1:
            for k in range(since, _SOLVED_EVERY):
                errors[k], sizes[k], pixels[k] = 0.0, 0.0, 0.0
                missing[k] = missing_size[k] = 0.0
            since = 0
            _learn(shift_moments, errors, missing, used)
            _learn(width_moments, sizes, missing_size, used)
            _learn(pixel_moments, pixels, missing, seen)
            solve(shift_moments, used, _RIDGE, factor, shift)
            solve(width_moments, used, _RIDGE, factor, width)
            solve(pixel_moments, seen, _RIDGE, factor, pixel_shift)
        at += right
        column += 1
    return made


@compiled
def check_bits(register: np.ndarray, data: np.ndarray, told: np.ndarray, all_there: bool) -> int:
    """Reads the bits again that code_plane wrote; returns how many of those `told` it could, -1 if one is wrong.

    An element of `told` is a bit and twice its probability. Unless `all_there`, more data are going to come behind
    those given: what would take them into account is left.
    """
    for n in range(len(told)):
        if not all_there and register[3] + REGISTER_BITS // 8 + _MOST_BYTES_A_BIT > len(data):
            return n
        if code_bit(True, register, data, 0, int(told[n] >> 1)) != told[n] & 1:
            return -1
    return len(told)


@inlined
def _padded(count: int) -> int:
    return (count + 7) // 8 * 8


@inlined
def _step_of(logarithm: float) -> int:
    return int(min(max(4.0 * logarithm, 0.0), WIDTHS - 1.0))


@inlined
def _or_none(value: int) -> int:
    return int(value) if value != UNKNOWN else VALUES


# ---- one value


@inlined
def _fill_contexts(
    contexts: np.ndarray,
    position: int,
    first: int,
    second: int,
    nearest: int,
    across: int,
    nearest_in_first: int,
    centre: float,
) -> None:
    """What the pixel's value is counted under: its position and each time something else that is known.

    Pictures that came from YCbCr or YCC, or have few colours, hold only some of all colours: which these are shows
    in the exact values of the channels before, and in their differences.
    """
    difference = second - first + VALUES if position > 1 else 0
    contexts[0] = (position * VALUES + first) * VALUES + second
    contexts[1] = position * 2 * VALUES + difference
    contexts[2] = (position * 2 * VALUES + difference) * 4 * VALUES + nearest - nearest_in_first + 2 * VALUES
    contexts[3] = (position * 4 + 1) * VALUES + int(min(max(centre - first, -256.0), 512.0))
    # Flat areas and edges, as of text, are told from their neighbours' values; of all other places, where there
    # are so many that few would come again, only how much they rise.
    step = nearest - across
    if step == 0 or abs(step) >= _EDGE:
        contexts[4] = ((position * VALUES + first) * (VALUES + 1) + nearest) * (VALUES + 1) + across
    else:
        contexts[4] = (position * 4 + 2) * 2 * VALUES + VALUES + step


@inlined
def _code_value(
    decoding: bool,
    value: int,
    origin: int,
    centres: np.ndarray,
    slopes: np.ndarray,
    shares: np.ndarray,
    contexts: np.ndarray,
    counts: np.ndarray,
    by_certainty: np.ndarray,
    by_width: np.ndarray,
    other_row: int,
    missed: np.ndarray,
    buckets: np.ndarray,
    inputs: np.ndarray,
    register: np.ndarray,
    data: np.ndarray,
    told: np.ndarray,
    made: int,
    tail: np.ndarray,
    logarithms: np.ndarray,
    logits: np.ndarray,
    steps: np.ndarray,
    float_: np.ndarray,
    bits: np.ndarray,
) -> tuple[int, int]:
    """The value, and how many decisions were made in all.

    The value is at least `low` and below `high`; `under` and `over` are what the mixture has below these.
    """
    low, high = origin - VALUES, origin + VALUES
    under, over = 0.0, 1.0
    start, prefix, is_filled = low, 0, False
    for decision in range(DECISIONS):
        within = (decision - 1) % 4 if decision else 0  # the first alone, then four and four
        if within == 0:
            start, is_filled = low, False
            prefix = (1 << decision) + ((low - origin + VALUES) >> (DECISIONS - decision))
        middle = (low + high) >> 1
        if middle <= 0:
            low = middle
            continue
        if middle >= VALUES:
            high = middle
            continue
        wanted = 1 if value >= middle else 0
        below = _mass_below(middle, shares, centres, slopes, tail)
        least_above, least_below = (min(high, VALUES) - middle) * _FLOOR, (middle - max(low, 0)) * _FLOOR
        logit = _logit(over - below, below - under, least_above, least_below, logarithms, float_, bits)
        size = abs(logit)
        if size > SURE:
            step = min(int((size - SURE) * 2.0), SURE_STEPS - 1)
            rare = max(missed[step] >> (MISSED_BITS - PROBABILITY_BITS), LEAST)
            ones = (1 << PROBABILITY_BITS) - rare if logit > 0.0 else rare
            bit = code_bit(decoding, register, data, wanted, ones)
            if (bit == 1) == (logit > 0.0):
                missed[step] -= missed[step] >> _MISSED_SHIFT
            else:
                missed[step] += ((1 << MISSED_BITS) - missed[step]) >> _MISSED_SHIFT
        else:
            if not is_filled:
                is_filled = True
                for k in range(CONTEXTS):
                    buckets[k] = NODES * _bucket(contexts[k] * 2 * VALUES + prefix, counts.shape[1] // NODES)
            node = (1 << within) + ((low - start) >> (DECISIONS - decision))
            inputs[0] = logit
            for k in range(CONTEXTS):
                count = int(counts[k, buckets[k] + node])
                inputs[1 + k] = logits[count >> SEEN_BITS] * min(0.5 * (count & MOST_SEEN), 1.0)
            certainty = 0
            for limit in _CERTAIN:
                certainty += 1 if size >= limit else 0
            one_row = (decision * CERTAINTIES + certainty) * INPUTS
            one, other = 0.0, 0.0
            for k in range(INPUTS):
                one += by_certainty[one_row + k] * inputs[k]
                other += by_width[other_row + k] * inputs[k]
            one = min(max(one, -_LARGEST_LOGIT), _LARGEST_LOGIT)
            other = min(max(other, -_LARGEST_LOGIT), _LARGEST_LOGIT)
            likely = logistic(0.5 * (one + other), tail) * (1 << PROBABILITY_BITS)
            ones = int(min(max(likely, float(LEAST)), float((1 << PROBABILITY_BITS) - LEAST)))
            bit = code_bit(decoding, register, data, wanted, ones)
            one, other = (
                _LEARNING_RATE * (bit - logistic(one, tail)),
                _LEARNING_RATE * (bit - logistic(other, tail)),
            )
            for k in range(INPUTS):
                by_certainty[one_row + k] += one * inputs[k]
                by_width[other_row + k] += other * inputs[k]
            for k in range(CONTEXTS):
                count = int(counts[k, buckets[k] + node])
                share, often = count >> SEEN_BITS, count & MOST_SEEN
                wrong = (bit << SHARE_BITS) - share
                share += (wrong * steps[often] + (1 << (STEP_BITS - 1))) >> STEP_BITS
                counts[k, buckets[k] + node] = share << SEEN_BITS | min(often + 1, MOST_SEEN)
        if len(told):
            told[made] = 2 * ones + bit
        made += 1
        if bit:
            low, under = middle, below
        else:
            high, over = middle, below
    return low, made


@inlined
def _mass_below(
    value: int,
    shares: np.ndarray,
    centres: np.ndarray,
    slopes: np.ndarray,
    tail: np.ndarray,
) -> float:
    """What the mixture has below `value`."""
    total = 0.0
    for k in range(len(shares)):
        total += shares[k] * logistic((value - 0.5 - centres[k]) * slopes[k], tail)
    return total


@inlined
def _logit(
    over: float,
    under: float,
    least_over: float,
    least_under: float,
    logarithms: np.ndarray,
    float_: np.ndarray,
    bits: np.ndarray,
) -> float:
    ratio = (max(over, 0.0) + least_over) / (max(under, 0.0) + least_under)
    return min(max(ln(ratio, logarithms, float_, bits), -_LARGEST_LOGIT), _LARGEST_LOGIT)


@inlined
def _bucket(context: int, buckets: int) -> int:
    return (context % _HASHED * _HASH >> 20) & (buckets - 1)


# ---- arithmetic


@inlined
def logistic(u: float, tail: np.ndarray) -> float:
    """1 / (1 + e^-u), with an absolute error below 10^-5."""
    distance = min(abs(u), float(TAIL_END)) * TAIL_STEPS
    n = int(distance)
    share = tail[n] + (distance - n) * (tail[n + 1] - tail[n])
    return 1.0 - share if u > 0 else share


@inlined
def ln(x: float, logarithms: np.ndarray, float_: np.ndarray, bits: np.ndarray) -> float:
    """The natural logarithm of `x` > 0, with an absolute error below 10^-6.

    `float_`, float64 `[1]`, and `bits`, the same memory as int64, are scratch.
    """
    float_[0] = x
    whole = bits[0]
    n = (whole >> (52 - LN_BITS)) & ((1 << LN_BITS) - 1)
    fraction = (whole & ((1 << (52 - LN_BITS)) - 1)) * (1.0 / (1 << (52 - LN_BITS)))
    exponent = (whole >> 52) - 1023
    return exponent * _LN_2 + logarithms[n] + fraction * (logarithms[n + 1] - logarithms[n])


@inlined
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


# ---- regressions


@inlined
def _learn(moments: np.ndarray, regressors: np.ndarray, targets: np.ndarray, count: int) -> None:
    """Forgets some of `moments` and adds the products of `count` `regressors` `[S, N]` and `targets` `[S]`.

    Of a row only what is right of the diagonal is ever used; it begins left of that, where vectors do.
    """
    for first in range(0, count, _LANES):
        for at in range(first, count, _LANES):
            add_products(moments, regressors, first, at)
        add_targets(moments, regressors, targets, first)


@inlined
def solve(moments: np.ndarray, count: int, ridge: np.float32, factor: np.ndarray, solution: np.ndarray) -> None:
    """Least squares by Cholesky's decomposition: `solution` `[:count]` of the normal equations in `moments`.

    `moments`, float32 `[N + 1, N]`, has the products of the regressors on its diagonal and right of it, `ridge` is
    added to those on it, and in its last row their products with the target. `factor` `[N, N]` is scratch. N is a
    multiple of 8. A regressor that rounding has made one of the others is left out: its solution is 0.
    """
    last = moments.shape[0] - 1
    for i in range(count):
        row, known = factor[i], moments[i]
        first = i // _LANES * _LANES
        for j in range(count - first):
            row[first + j] = known[first + j]
        row[i] += ridge
        solution[i] = moments[last, i]
    for k in range(count):
        row = factor[k]
        first = k // _LANES * _LANES
        if not row[k] > _SMALLEST_PIVOT:  # which would be true of nan
            for j in range(count - first):
                row[first + j] = 0.0
            row[k], solution[k] = _ONE, 0.0
            continue
        scale = _ONE / np.sqrt(row[k])
        for j in range(count - first):
            row[first + j] *= scale
        solution[k] *= scale
        for i in range(k + 1, count):
            scale = row[i]
            for at in range(i // _LANES * _LANES, count, _LANES):
                subtract(factor[i], row, scale, at)
            solution[i] -= scale * solution[k]
    for i in range(count - 1, -1, -1):
        left = solution[i]
        for k in range(i + 1, count):
            left -= factor[i, k] * solution[k]
        solution[i] = left / factor[i, i]


# ---- eight numbers at a time
#
# Left to itself, the compiler takes one or four at a time of rows as short as these. What a function does is said
# in NumPy, which is what Python's interpreter runs; the instructions below do the same, in the same order. Rows are
# a multiple of eight long, whatever of them counts.

_LANES = 8


def product(a: np.ndarray, b: np.ndarray, count: int) -> float:
    """Of float32 vectors whose first `count` elements, a multiple of 4, are not 0: in float64, in four sums."""
    sums = np.zeros(4)
    for k in range(0, count, 4):
        sums += a[k : k + 4].astype(np.float64) * b[k : k + 4]
    return float((sums[0] + sums[1]) + (sums[2] + sums[3]))


def add_products(moments: np.ndarray, regressors: np.ndarray, row: int, at: int) -> None:
    """Of `moments` keeps a share of an 8×8 square, from `row` and `at` on, and adds products of `regressors`."""
    square = moments[row : row + _LANES, at : at + _LANES]
    square *= _KEPT
    for values in regressors:
        square += values[row : row + _LANES, None] * values[at : at + _LANES]


def add_targets(moments: np.ndarray, regressors: np.ndarray, targets: np.ndarray, at: int) -> None:
    """The same for eight elements of the last row: products of `regressors` and `targets`."""
    sums = moments[-1, at : at + _LANES]
    sums *= _KEPT
    for values, target in zip(regressors, targets, strict=True):
        sums += target * values[at : at + _LANES]


def subtract(target: np.ndarray, source: np.ndarray, scale: np.float32, at: int) -> None:
    """From eight elements of `target` those of `source` times `scale`."""
    target[at : at + _LANES] -= scale * source[at : at + _LANES]


_FLOATS, _DOUBLES = ir.VectorType(ir.FloatType(), _LANES), ir.VectorType(ir.DoubleType(), 4)


def _load(builder: ir.IRBuilder, pointer: ir.Value, kind: ir.VectorType = _FLOATS) -> ir.Value:
    return builder.load(builder.bitcast(pointer, kind.as_pointer()), align=4)


def _store(builder: ir.IRBuilder, vector: ir.Value, pointer: ir.Value) -> None:
    builder.store(vector, builder.bitcast(pointer, _FLOATS.as_pointer()), align=4)


def _in_all_lanes(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES))


def _element(builder: ir.IRBuilder, array: Any, *indices: ir.Value) -> ir.Value:
    """A pointer to it, in an array whose elements lie in C's order."""
    place = indices[0]
    for index, side in zip(indices[1:], cgutils.unpack_tuple(builder, array.shape)[1:], strict=True):
        place = builder.add(builder.mul(place, side), index)
    return builder.gep(array.data, [place])


def _add_all(
    builder: ir.IRBuilder,
    regressors: Any,
    at: ir.Value,
    sums: Sequence[ir.Value],
    factor: Callable[[ir.Value, int], ir.Value],
) -> None:
    """Each of `sums` points to eight, of which a share is kept. To these are added, for every row of `regressors`,
    eight of it, from `at` on, times the number that `factor` points to for the row and the n-th of `sums`.
    """
    kept = _in_all_lanes(builder, ir.Constant(ir.FloatType(), float(_KEPT)))
    registers = [cgutils.alloca_once(builder, _FLOATS) for _ in sums]
    for pointer, register in zip(sums, registers, strict=True):
        builder.store(builder.fmul(_load(builder, pointer), kept), register)
    with cgutils.for_range(builder, cgutils.unpack_tuple(builder, regressors.shape)[0]) as loop:
        values = _load(builder, _element(builder, regressors, loop.index, at))
        for n, register in enumerate(registers):
            times = _in_all_lanes(builder, builder.load(factor(loop.index, n)))
            builder.store(builder.fadd(builder.load(register), builder.fmul(times, values)), register)
    for pointer, register in zip(sums, registers, strict=True):
        _store(builder, builder.load(register), pointer)


def _arrays(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> list[Any]:
    kinds = signature.args[: len(arguments)]
    return [context.make_array(kind)(context, builder, of) for kind, of in zip(kinds, arguments, strict=True)]


@intrinsic
def _product(_typing: Any, a: Any, b: Any, count: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        arrays = _arrays(context, builder, signature, arguments[:2])
        register = cgutils.alloca_once_value(builder, ir.Constant(_DOUBLES, [0.0] * 4))
        step = ir.Constant(arguments[2].type, 4)
        with cgutils.for_range_slice(builder, step.type(0), arguments[2], step) as (k, _):
            one, other = (
                builder.fpext(
                    _load(builder, _element(builder, array, k), ir.VectorType(ir.FloatType(), 4)), _DOUBLES
                )
                for array in arrays
            )
            builder.store(builder.fadd(builder.load(register), builder.fmul(one, other)), register)
        sums = builder.load(register)
        one, two, three, four = (builder.extract_element(sums, ir.Constant(ir.IntType(32), n)) for n in range(4))
        return builder.fadd(builder.fadd(one, two), builder.fadd(three, four))

    return types.float64(a, b, count), code


@intrinsic
def _add_products(_typing: Any, moments: Any, regressors: Any, row: Any, at: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        sums, values = _arrays(context, builder, signature, arguments[:2])
        rows = [builder.add(arguments[2], arguments[2].type(n)) for n in range(_LANES)]
        pointers = [_element(builder, sums, row, arguments[3]) for row in rows]
        _add_all(builder, values, arguments[3], pointers, lambda s, n: _element(builder, values, s, rows[n]))
        return context.get_dummy_value()

    return types.void(moments, regressors, row, at), code


@intrinsic
def _add_targets(_typing: Any, moments: Any, regressors: Any, targets: Any, at: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        sums, values, times = _arrays(context, builder, signature, arguments[:3])
        rows = cgutils.unpack_tuple(builder, sums.shape)[0]
        pointer = _element(builder, sums, builder.sub(rows, rows.type(1)), arguments[3])
        _add_all(builder, values, arguments[3], [pointer], lambda s, n: _element(builder, times, s))
        return context.get_dummy_value()

    return types.void(moments, regressors, targets, at), code


@intrinsic
def _subtract(_typing: Any, target: Any, source: Any, scale: Any, at: Any) -> Any:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        scale, at = arguments[2:]
        to, of = (_element(builder, array, at) for array in _arrays(context, builder, signature, arguments[:2]))
        taken = builder.fmul(_in_all_lanes(builder, scale), _load(builder, of))
        _store(builder, builder.fsub(_load(builder, to), taken), to)
        return context.get_dummy_value()

    return types.void(target, source, scale, at), code


def _are_floats(*arrays: Any) -> bool:
    return all(isinstance(a, types.Array) and a.dtype == types.float32 and a.layout == "C" for a in arrays)


# What stands for each function where it is compiled; for arrays of other kinds nothing does.
_inline = {"jit_options": {"forceinline": True, **OPTIONS}}
overload(product, **_inline)(
    lambda a, b, count: (lambda a, b, count: _product(a, b, count)) if _are_floats(a, b) else None
)
overload(add_products, **_inline)(
    lambda moments, regressors, row, at: (
        (lambda moments, regressors, row, at: _add_products(moments, regressors, row, at))
        if _are_floats(moments, regressors)
        else None
    )
)
overload(add_targets, **_inline)(
    lambda moments, regressors, targets, at: (
        (lambda moments, regressors, targets, at: _add_targets(moments, regressors, targets, at))
        if _are_floats(moments, regressors, targets)
        else None
    )
)
overload(subtract, **_inline)(
    lambda target, source, scale, at: (
        (lambda target, source, scale, at: _subtract(target, source, scale, at))
        if _are_floats(target, source) and scale == types.float32
        else None
    )
)
