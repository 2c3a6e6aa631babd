"""SIGTERM as an interrupt, and what keeps one from being lost."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_asked = threading.Event()


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Has SIGTERM raise KeyboardInterrupt in this block, unless somebody else handles it."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _asked.clear()


def raise_if_lost() -> None:
    """Raises KeyboardInterrupt if SIGTERM has come, but where Python drops what is raised: in a `__del__`."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(*_: object) -> None:
    _asked.set()
    raise KeyboardInterrupt
