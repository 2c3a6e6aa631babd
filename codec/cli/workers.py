"""The jobs of a command done, one after the other or several at a time; what fails, fails alone."""

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from codec.cli.console import STANDARD, complain, is_user_s, reason, say
from codec.cli.paths import Job, Plan
from codec.data.image_list import printable
from codec.side_by_side import batched

R = TypeVar("R")
T = TypeVar("T")


def each(plan: Plan, one: Callable[[Job], str], workers: int = 1) -> int:
    """Does every job and says, in their order, what came of it; returns the exit status, 1 if an input failed."""
    return each_batch(plan, lambda jobs: [tried(one, job) for job in jobs], 1, workers)


def each_batch(
    plan: Plan, several: Callable[[list[Job]], list[str | Exception]], size: int, workers: int = 1
) -> int:
    """As `each`, by what does `size` jobs at a time and gives what came of them, or why one failed."""
    for fault in plan.faults:
        complain(fault)
    if plan.skipped:
        complain(f"{plan.skipped} that exist{'s already is' if plan.skipped == 1 else ' already are'} left out")
    failed, count = len(plan.faults), len(plan.jobs)

    batches = list(batched(plan.jobs, max(1, min(size, -(-count // max(1, workers))))))
    with closing(_outcomes(several, batches, min(workers, len(batches)))) as outcomes:
        for n, (job, outcome) in enumerate(zip(plan.jobs, chain.from_iterable(outcomes), strict=True), 1):
            if isinstance(outcome, str):
                progress = f"[{n}/{count}] " if count > 1 else ""
                said = f"{progress}{printable(job.source)} → {printable(job.target)}: {outcome}"
                say(said, beside_data=job.target == STANDARD)
            else:
                failed += 1
                _report(outcome, job)
    if failed and count + len(plan.faults) > 1:
        complain(f"{failed} of {count + len(plan.faults)} files failed")
    return 1 if failed else 0


def tried(one: Callable[[Job], T], job: Job) -> T | Exception:
    """What `one` makes of a job, the folder of its target being there, or whatever is wrong with it."""
    try:
        if isinstance(job.target, Path):
            job.target.parent.mkdir(parents=True, exist_ok=True)
        return one(job)
    except Exception as error:
        return error


def _report(error: Exception, job: Job) -> None:
    if isinstance(error, BrokenPipeError):  # nobody reads what this command writes
        raise error
    if is_user_s(error):
        complain(reason(error, job.source))
    else:  # a fault of the program: all that is known of it is printable
        traceback.print_exception(error, file=sys.stderr)
        complain(f"{printable(job.source)}: {type(error).__name__}, a fault of this program, see above")


def _outcomes(attempt: Callable[[R], T], jobs: list[R], workers: int) -> Iterator[T]:
    """What `attempt` gives for each of `jobs`, in order, `workers` of them at a time.

    Threads, which share imports and weights: torch lets go of Python's lock while it computes. Closed early, all of
    them end.
    """
    if workers < 2:
        yield from map(attempt, jobs)
        return
    from concurrent.futures import Future  # brings logging along, for which no other command should wait

    results = [Future[T]() for _ in jobs]
    todo = SimpleQueue[tuple[R, Future[T]]]()
    for pair in zip(jobs, results, strict=True):
        todo.put(pair)

    def work() -> None:
        with suppress(Empty, KeyboardInterrupt):
            while True:
                job, result = todo.get_nowait()
                result.set_result(attempt(job))

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for result in results:
            yield result.result()
    except BaseException:
        for thread in threads:  # as Ctrl-C does it to the main thread: what is half written is removed
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
        raise
    finally:
        for thread in threads:
            thread.join()
