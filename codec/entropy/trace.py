"""What the coder was told in each pass of a decoding and what came of it, as hashes that two machines can compare.

All that it is told are integers made from integers (see codec.networks.exact), so hashes should agree everywhere.
Where they do not, the first pass that differs is the one that diverged: by its tables or its network if what was
told differs, in the coder if only what was decoded does.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor


class Pass(NamedTuple):
    """A decoding pass: its part of the file, how many symbols it has, and hashes of 8 hex digits.

    `part` is y, y_1, … of a latent, the lossless schemes' z among them, z of side information, x of pixels. `told`
    is the hash of the integers that the coder was told of the symbols, `decoded` that of the symbols; None:
    decoding failed.
    """

    part: str
    symbols: int
    told: str
    decoded: str | None


_show: ContextVar[Callable[[Pass], None] | None] = ContextVar("show", default=None)


@contextmanager
def traced(show: Callable[[Pass], None]) -> Iterator[None]:
    """Calls `show` after every pass that is decoded in this block and thread, also after one that fails."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def observed(part: str, told: Callable[[], Sequence[Tensor]], decode: Callable[[], Tensor]) -> Tensor:
    """The symbols that `decode` gives; whoever traces is shown the pass.

    `told` gives all integers that the coder is told, the first of them a row for every symbol.
    """
    show = _show.get()
    if show is None:
        return decode()
    integers, symbols = told(), None
    try:
        symbols = decode()
    finally:
        decoded = None if symbols is None else short_hash(_bytes(symbols))
        show(Pass(part, len(integers[0]), short_hash(b"".join(map(_bytes, integers))), decoded))
    return symbols


def short_hash(data: bytes) -> str:
    """The first 8 hex digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:8]


def _bytes(integers: Tensor) -> bytes:
    return integers.long().cpu().numpy().astype("<i8").tobytes()
