"""Behind: work that follows other work, done beside it."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

_MOST = 2  # calls that wait: what they are to work on is kept until then


class Behind:
    """Has one other thread make the calls that are asked for here, in their order.

    At the end of the `with` block all have been made. What one of them raises is raised here, by a later call or at
    the end; those behind it are not made.
    """

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call
        self._thread = ThreadPoolExecutor(1)
        self._failed = False
        self._waiting: deque[Future] = deque()

    def __call__(self, *arguments: Any) -> None:
        self._waiting.append(self._thread.submit(self._made, *arguments))
        if len(self._waiting) > _MOST:
            self._waiting.popleft().result()

    def _made(self, *arguments: Any) -> None:
        if self._failed:
            return
        try:
            self._call(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            while self._waiting and error is None:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
