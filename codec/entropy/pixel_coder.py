"""What codes the pixels of an image under the networks' mixtures."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Protocol

from torch import Tensor

from codec.entropy.digits import CountedDigits, Digits
from codec.entropy.mixture import Mixture, Plane

ADAPTATIONS = ("none", "mixing")

# The planes of some pixels, in coding order: their distributions, and the pixels, which a decoder writes there
# before it asks for the next.
Visit = Iterator[tuple[Mixture, Tensor, Plane]]


class PixelCoder(Protocol):
    """Writes the planes of one image, or reads them from data, in the same order."""

    @staticmethod
    def least_bits(channels: int) -> float:
        """What a pixel of `channels` coded channels costs at least."""

    def write(self, mixture: Mixture, pixels: Tensor, plane: Plane) -> None:
        """Codes `pixels` `[1, h, w]`, 0…255. Raises EncodeError if the coder does not give them back."""

    def read(self, mixture: Mixture, plane: Plane) -> Tensor:
        """The next pixels, float `[1, h, w]`."""

    def finish(self) -> bytes:
        """All that was written."""

    def bits(self) -> float:
        """How many that are."""

    def end(self) -> None:
        """Raises BitstreamError if what was read is not all of the data."""


def pixel_coder(adaptation: str, counted: bool = False) -> type[PixelCoder]:
    """The class that codes with an adaptation of ADAPTATIONS; `counted`: whose bits only are wanted."""
    if adaptation == "none":
        return CountedDigits if counted else Digits
    from codec.entropy.mixing import AdaptiveMixing  # numba takes a second to import

    return AdaptiveMixing


def in_turns(visits: Iterable[Visit]) -> Visit:
    """The first plane of each, then the second of each, and so on."""
    waiting = deque(visits)
    while waiting:
        visit = waiting.popleft()
        if (plane := next(visit, None)) is not None:
            waiting.append(visit)
            yield plane


def read_in_turns(visits: Iterable[Visit], read: Callable[[Mixture, Plane], Tensor]) -> None:
    """Writes what `read` gives for the planes, in the order of `in_turns`.

    It is called in one other thread, beside which the distributions of the next visit's plane are found.
    """
    with ThreadPoolExecutor(1) as beside:
        waiting = deque((visit, None, None) for visit in visits)
        while waiting:
            visit, target, pixels = waiting.popleft()
            if target is not None:
                target.copy_(pixels.result())
            if (asked := next(visit, None)) is not None:
                mixture, target, plane = asked
                waiting.append((visit, target, beside.submit(copy_context().run, read, mixture, plane)))
