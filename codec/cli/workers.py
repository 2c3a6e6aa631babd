"""The jobs of a command done, one after the other or several at a time; what fails, fails alone."""

import ctypes
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from codec.cli.console import STANDARD, complain, is_user_s, reason, say
from codec.cli.paths import Job, Plan
from codec.data.image_list import printable

T = TypeVar("T")


def each(plan: Plan, one: Callable[[Job], str], workers: int = 1) -> int:
    """Does every job and says, in their order, what came of it; returns the exit status, 1 if an input failed."""
    for fault in plan.faults:
        complain(fault)
    if plan.skipped:
        complain(f"{plan.skipped} that exist{'s already is' if plan.skipped == 1 else ' already are'} left out")
    failed, count = len(plan.faults), len(plan.jobs)

    def attempt(job: Job) -> str | Exception:
        try:
            if isinstance(job.target, Path):
                job.target.parent.mkdir(parents=True, exist_ok=True)
            return one(job)
        except Exception as error:  # whatever is wrong with one file
            return error

    with closing(_outcomes(attempt, plan.jobs, min(workers, count))) as outcomes:
        for n, (job, outcome) in enumerate(zip(plan.jobs, outcomes, strict=True), 1):
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


def _report(error: Exception, job: Job) -> None:
    if isinstance(error, BrokenPipeError):  # nobody reads what this command writes
        raise error
    if is_user_s(error):
        complain(reason(error, job.source))
    else:  # a fault of the program: all that is known of it is printable
        traceback.print_exception(error, file=sys.stderr)
        complain(f"{printable(job.source)}: {type(error).__name__}, a fault of this program, see above")


def _outcomes(attempt: Callable[[Job], T], jobs: list[Job], workers: int) -> Iterator[T]:
    """What `attempt` gives for every job, in order, `workers` of them at a time.

    Threads, which share imports and weights: torch lets go of Python's lock while it computes. Closed early, all of
    them end.
    """
    if workers < 2:
        yield from map(attempt, jobs)
        return
    from concurrent.futures import Future  # brings logging along, for which no other command should wait

    results = [Future[T]() for _ in jobs]
    todo = SimpleQueue[tuple[Job, Future[T]]]()
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
