"""AdaptiveMixing: codes the pixels of an image under the networks' mixtures, and learns while it does.

What has been coded so far corrects the mixtures, and is mixed with them (see codec.entropy.mixing_kernel). Nothing
of that is sent: a decoder learns the same, for all of it is arithmetic that is the same on every machine.
"""

import math
import sys
import threading

import numpy as np
import torch
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy.mixing_kernel import (
    CERTAINTIES,
    CLASSES,
    CONTEXTS,
    DECISIONS,
    ERRORS,
    INPUTS,
    LEAST,
    MIXTURES,
    PIXELS,
    PROBABILITY_BITS,
    UNKNOWN,
    USUAL_ERROR,
    VALUES,
    WIDTHS,
    State,
    code_plane,
)
from codec.entropy.mixing_tables import LOGARITHMS, RATES, TAIL, ending, started
from codec.entropy.mixture import (
    FRACTIONS,
    WEIGHT_TOTAL,
    LogisticMixture,
    Mixture,
    Plane,
)

_BYTES_A_PIXEL = 18  # at most: nine decisions of 14 bits, and what a carry costs
_BUCKETS_A_PIXEL, _MOST_BUCKETS = 4, 1 << 17
_LEAST_BITS_A_DECISION = -math.log2(1 - LEAST / (1 << PROBABILITY_BITS))


class AdaptiveMixing:
    """Writes the planes of an image `[C, H, W]`, or reads them from `data`; `order` is its channels' in coding."""

    def __init__(
        self,
        model: LogisticMixture,
        size: tuple[int, int, int],
        order: tuple[int, ...],
        data: bytes | None = None,
    ) -> None:
        self.model = model
        self.order = np.array(order, np.int64)
        self.state = _nothing_learned(size)
        self.register = started(data or b"")
        self.written: list[bytes] = []
        self.data = np.frombuffer(data or b"", np.uint8).copy()  # read-only arrays would be another type to compile
        compile_loop()

    @staticmethod
    def least_bits(channels: int) -> float:
        """What a pixel of `channels` coded channels costs at least: eight decisions in the first, one in others."""
        return (8 + channels - 1) * _LEAST_BITS_A_DECISION

    def write(self, mixture: Mixture, pixels: Tensor, plane: Plane) -> None:
        """Codes `pixels` `[1, h, w]`, 0…255."""
        values = pixels.flatten().cpu().numpy().astype(np.int16)
        out = np.empty(_BYTES_A_PIXEL * (len(values) + 1), np.uint8)
        self.register[3] = 0
        self._code(False, values, mixture, plane, out)
        self.written.append(out[: self.register[3]].tobytes())

    def read(self, mixture: Mixture, plane: Plane) -> Tensor:
        """The next pixels, float `[1, h, w]`; any, where the data are not those of such an image: see `end`.

        Raises BitstreamError where the data end too soon.
        """
        shape = mixture.means[:, 0].shape
        values = np.zeros(shape.numel(), np.int16)
        self._code(True, values, mixture, plane, self.data)
        if self.register[3] > len(self.data):
            raise BitstreamError("the section of the pixels ends too soon")
        return torch.from_numpy(values).view(shape).to(mixture.means)

    def finish(self) -> bytes:
        """All that was written."""
        return b"".join([*self.written, ending(self.register)])

    def bits(self) -> float:
        """How many were written."""
        return 8.0 * len(self.finish())

    def end(self) -> None:
        """Raises BitstreamError if what was read is not all of the data, or more than those."""
        last = ending(self.register)
        if self.data[self.register[3] :].tobytes() != last or len(self.data) < self.register[3]:
            raise BitstreamError("the section of the pixels ends too soon, or goes on after the last of them")

    def _code(self, decoding: bool, values: np.ndarray, mixture: Mixture, plane: Plane, data: np.ndarray) -> None:
        means, scales, weights = (part.cpu().numpy() for part in self.model.integers(mixture))
        code_plane(
            decoding,
            values,
            mixture.means.shape[-1],
            # Arrays in another order would be another type to compile.
            np.ascontiguousarray(means / FRACTIONS),
            np.ascontiguousarray(RATES[scales]),
            np.ascontiguousarray(weights / WEIGHT_TOTAL),
            plane,
            self.order,
            self.state,
            self.register,
            data,
        )


def _nothing_learned(size: tuple[int, int, int]) -> State:
    by_certainty = np.zeros((CLASSES, DECISIONS, CERTAINTIES, INPUTS))
    by_width = np.zeros((CLASSES, WIDTHS, WIDTHS, INPUTS))
    for weights in (by_certainty, by_width):
        weights[..., :MIXTURES] = 0.8 / MIXTURES
    width = np.zeros((CLASSES, ERRORS))
    width[:, 0] = USUAL_ERROR
    buckets = min(_MOST_BUCKETS, 1 << (_BUCKETS_A_PIXEL * math.prod(size) - 1).bit_length())
    counts = np.zeros((CONTEXTS, buckets, 8, 2), np.float32)
    counts[..., 0] = 0.5
    return State(
        pixels=np.zeros(size, np.int16),
        errors=np.full(size, UNKNOWN, np.int16),
        shift_moments=np.zeros((CLASSES, ERRORS, ERRORS + 1)),
        shift=np.zeros((CLASSES, ERRORS)),
        width_moments=np.zeros((CLASSES, ERRORS, ERRORS + 1)),
        width=width,
        pixel_moments=np.zeros((CLASSES, PIXELS, PIXELS + 1)),
        pixel_shift=np.zeros((CLASSES, PIXELS)),
        by_certainty=by_certainty,
        by_width=by_width,
        counts=counts,
        tail=TAIL,
        logarithms=LOGARITHMS,
    )


_compiling = threading.Lock()
_compiled = False


def compile_loop() -> None:
    """Has numba compile the loop, or load what it has kept of that; once in a process."""
    global _compiled
    with _compiling:
        if not _compiled:
            _code_one_pixel()
        _compiled = True


def _code_one_pixel() -> None:
    line = "compiling the lossless coder's inner loop, once in this environment (about 15 s) ...\n"
    timer = threading.Timer(4.0, lambda: sys.stderr.write(line))
    one = np.ones((1, 1))
    timer.start()
    try:
        code_plane(
            False,
            np.zeros(1, np.int16),
            1,
            VALUES / 2 * one,
            one,
            one,
            Plane(0, 0, 0, 0, 1, 0, 0),
            np.zeros(1, np.int64),
            _nothing_learned((1, 1, 1)),
            started(),
            np.empty(2 * _BYTES_A_PIXEL, np.uint8),
        )
    finally:
        timer.cancel()
