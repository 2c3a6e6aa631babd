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
    NODES,
    PIXELS,
    PROBABILITY_BITS,
    SEEN_BITS,
    SHARE_BITS,
    UNKNOWN,
    USUAL_ERROR,
    VALUES,
    WIDTHS,
    State,
    check_bits,
    code_plane,
)
from codec.entropy.mixing_tables import MISSED, TABLES, ending, started
from codec.entropy.mixture import FRACTIONS, LogisticMixture, Mixture, Plane
from codec.entropy.neighbours import neighbours, stored_size
from codec.errors import EncodeError

_BYTES_A_PIXEL = 18  # at most: nine decisions of 14 bits, and what a carry costs
_BUCKETS_A_PIXEL, _MOST_BUCKETS = 4, 1 << 17
_LEAST_BITS_A_DECISION = -math.log2(1 - LEAST / (1 << PROBABILITY_BITS))
_NOTHING_TOLD = np.zeros(0, np.uint32)


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
        self.size, self.order = size, order
        self.margin, self.state = 0, None
        self.register = started(data or b"")
        self.written: list[bytes] = []
        self.check = Check()
        self.data = np.frombuffer(data or b"", np.uint8).copy()  # read-only arrays would be another type to compile
        compile_loop()

    @staticmethod
    def least_bits(channels: int) -> float:
        """What a pixel of `channels` coded channels costs at least: eight decisions in the first, one in others."""
        return (8 + channels - 1) * _LEAST_BITS_A_DECISION

    def write(self, mixture: Mixture, pixels: Tensor, plane: Plane) -> None:
        """Codes `pixels` `[1, h, w]`, 0…255. Raises EncodeError if the coder does not give them back."""
        values = pixels.flatten().cpu().numpy().astype(np.int16)
        out = np.empty(_BYTES_A_PIXEL * (len(values) + 1), np.uint8)
        told = np.empty(DECISIONS * len(values), np.uint32)
        self.register[3] = 0
        made = self._code(False, values, mixture, plane, out, told)
        self.written.append(out[: self.register[3]].tobytes())
        self.check.follow(self.written[-1], told[:made])

    def read(self, mixture: Mixture, plane: Plane) -> Tensor:
        """The next pixels, float `[1, h, w]`; any, where the data are not those of such an image: see `end`.

        Raises BitstreamError where the data end too soon.
        """
        shape = mixture.means[:, 0].shape
        values = np.zeros(shape.numel(), np.int16)
        self._code(True, values, mixture, plane, self.data, _NOTHING_TOLD)
        if self.register[3] > len(self.data):
            raise BitstreamError("the section of the pixels ends too soon")
        return torch.from_numpy(values).view(shape).to(mixture.means)

    def finish(self) -> bytes:
        """All that was written. Raises EncodeError if it is not what the coder was told."""
        last = ending(self.register)
        self.check.follow(last, _NOTHING_TOLD, all_there=True)
        return b"".join([*self.written, last])

    def bits(self) -> float:
        """How many were written."""
        return 8.0 * (sum(map(len, self.written)) + len(ending(self.register)))

    def end(self) -> None:
        """Raises BitstreamError if what was read is not all of the data, or more than those."""
        last = ending(self.register)
        if self.data[self.register[3] :].tobytes() != last or len(self.data) < self.register[3]:
            raise BitstreamError("the section of the pixels ends too soon, or goes on after the last of them")

    def _code(
        self, decoding: bool, values: np.ndarray, mixture: Mixture, plane: Plane, data: np.ndarray, told: np.ndarray
    ) -> int:
        # Arrays of another kind, or in another order, would be another type to compile.
        means, scales, behind = (
            np.ascontiguousarray(part.cpu().numpy(), np.int32) for part in self.model.rounded(mixture)
        )
        if self.state is None:  # of an image's planes the first lies on the coarsest grid
            self.margin = plane.step
            self.state = _nothing_learned(self.size, self.margin)
        around = neighbours(plane, self.size, self.order, self.margin)
        columns = mixture.means.shape[-1]
        return code_plane(
            decoding, values, columns, means, scales, behind, around, self.state, TABLES, self.register, data, told
        )


class Check:
    """Reads behind a writer what it wrote: as soon as it can, so that little of it has to be kept."""

    def __init__(self) -> None:
        self.register: np.ndarray | None = None
        self.data, self.told = np.zeros(0, np.uint8), _NOTHING_TOLD

    def follow(self, written: bytes, told: np.ndarray, all_there: bool = False) -> None:
        """Takes what was written next, of what the coder was told. Raises EncodeError if the bits are others."""
        self.data = np.concatenate([self.data, np.frombuffer(written, np.uint8)])
        self.told = np.concatenate([self.told, told])
        if self.register is None:
            if len(self.data) < 8 and not all_there:
                return
            self.register = started(self.data.tobytes())
        count = check_bits(self.register, self.data, self.told, all_there)
        if count < 0:
            raise EncodeError(
                "the coder does not give back what it wrote: this machine does not compute as it should"
            )
        self.told = self.told[count:].copy()
        self.data = self.data[self.register[3] :].copy()
        self.register[3] = 0


def _nothing_learned(size: tuple[int, int, int], margin: int) -> State:
    by_certainty = np.zeros((CLASSES, DECISIONS * CERTAINTIES, INPUTS))
    by_width = np.zeros((CLASSES, WIDTHS * WIDTHS, INPUTS))
    for weights in (by_certainty, by_width):
        weights[..., 0] = 0.8
    width = np.zeros((CLASSES, ERRORS), np.float32)
    width[:, 0] = USUAL_ERROR
    buckets = min(_MOST_BUCKETS, 1 << (_BUCKETS_A_PIXEL * math.prod(size) - 1).bit_length())
    return State(
        pixels=np.full(stored_size(size, margin), UNKNOWN, np.int16),
        errors=np.full(stored_size(size, margin), UNKNOWN, np.int16),
        shift_moments=np.zeros((CLASSES, ERRORS + 1, ERRORS), np.float32),
        width_moments=np.zeros((CLASSES, ERRORS + 1, ERRORS), np.float32),
        pixel_moments=np.zeros((CLASSES, PIXELS + 1, PIXELS), np.float32),
        shift=np.zeros((CLASSES, ERRORS), np.float32),
        width=width,
        pixel_shift=np.zeros((CLASSES, PIXELS), np.float32),
        by_certainty=by_certainty.reshape(CLASSES, -1),
        by_width=by_width.reshape(CLASSES, -1),
        missed=np.tile(MISSED, (CLASSES, 1)),
        counts=np.full((CONTEXTS, NODES * buckets), 1 << (SHARE_BITS + SEEN_BITS - 1), np.uint16),
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
    one, size, plane = np.ones((1, 1), np.int32), (1, 1, 1), Plane(0, 0, 0, 0, 1, 0, 0)
    values, told, out = (
        np.zeros(1, np.int16),
        np.empty(DECISIONS, np.uint32),
        np.empty(2 * _BYTES_A_PIXEL, np.uint8),
    )
    register, around, state = started(), neighbours(plane, size, (0,), 1), _nothing_learned(size, 1)
    means = VALUES // 2 * FRACTIONS * one
    timer.start()
    try:
        made = code_plane(False, values, 1, means, one, one, around, state, TABLES, register, out, told)
        check_bits(started(), out, told[:made], False)
    finally:
        timer.cancel()
