"""Several images coded at a time, by threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from codec.checks import check_integer

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def side_by_side(workers: int) -> Iterator[None]:
    """Prepares what all threads share, so that none changes it under another, and divides the cores among them."""
    if workers < 2:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        # What every encode and decode sets, and puts back where it was.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in their order, `size` of them at a time."""
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def each(one: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """What `one` makes of every item, in order, `jobs` at a time. Raises ArgumentError unless `jobs` is from 1."""
    check_integer("jobs", jobs, 1)
    if jobs == 1:
        yield from map(one, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    waiting: deque[Future[R]] = deque()
    with side_by_side(jobs), ThreadPoolExecutor(jobs) as pool:
        for item in items:  # of which few are to be in memory at once
            waiting.append(pool.submit(one, item))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
