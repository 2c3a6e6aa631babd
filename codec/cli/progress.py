"""How far coding an image has come, on terminals."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported only where an image is coded
    from codec.learned_codec import LearnedCodec

_WIDTH = 40
_AFTER = 1.0  # seconds: what is done sooner needs no bar


@contextmanager
def progress_of(codec: "LearnedCodec", jobs: int) -> Iterator[None]:
    """Shows a bar on standard error while `codec` codes in this block, if that is a terminal.

    Several threads, `jobs`, would share one line: they have none.
    """
    if jobs > 1 or not sys.stderr.isatty():
        yield
        return
    started, shown = time.monotonic(), False

    def show(share: float) -> None:
        nonlocal shown
        if shown or time.monotonic() - started > _AFTER:
            shown = True
            done = round(_WIDTH * share)
            print(f"\r[{'#' * done}{'.' * (_WIDTH - done)}] {share:4.0%}", end="", file=sys.stderr, flush=True)

    codec.progress = show
    try:
        yield
    finally:
        codec.progress = None
        if shown:
            print(f"\r{' ' * (_WIDTH + 8)}\r", end="", file=sys.stderr, flush=True)
