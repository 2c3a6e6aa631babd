"""make fuzz: whatever bytes come, a file decodes or is refused in one line, and nothing else happens.

    python -m experiments.fuzz --count 20000 --seed 1
    python -m experiments.fuzz --only conv_baseline checkpoint.ckpt

Files of the package's models and of the standard codecs, checkpoints and image files are mutated, their checksums
made right again, and read. Mutation n of a target depends on the seed, the target's name and n alone. A mutation
that ends in any other way than it may, or takes more time or memory than it may, is kept in the folder --keep, and
told with the command that repeats it.
"""

import argparse
import logging
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from experiments.fuzz.targets import Target, all_targets

# What one mutation may take. MB are those by which the process's peak rises.
MOST_SECONDS, MOST_MB = 5.0, 1000.0


class TooSlowError(BaseException):  # no reader takes it for a refusal
    """What was read has taken more CPU time than it may."""


@dataclass
class Outcome:
    """How the mutations of a target ended: `reasons` counts refusals by their text without numbers and names."""

    decoded: int = 0
    reasons: Counter = field(default_factory=Counter)
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def refused(self) -> int:
        return self.reasons.total()


def fuzzed(
    target: Target,
    count: int,
    seed: int,
    told: Callable[[int], None] = lambda _: None,
    most_seconds: float = MOST_SECONDS,
    most_mb: float = MOST_MB,
) -> Outcome:
    """Reads `count` mutations of a target; `told` is called with the number of those done.

    One that takes more than `most_seconds` of CPU time is broken off where Python can, and is a failure; so is one
    that takes more than `most_mb` of memory over what was taken before.
    """
    outcome = Outcome()
    for n in range(count):
        data = target.mutate(Random(f"{seed} {target.name} {n}"))
        started, before, slow = time.process_time(), _peak_mb(), False
        try:
            with _broken_off_after(most_seconds):
                target.read(data)
            outcome.decoded += 1
        except TooSlowError:
            slow = True  # told below, with those that no signal could break off
        except target.refusal as error:
            outcome.reasons[_kind(str(error))] += 1
            if "\n" in str(error) or len(str(error)) > 600:
                outcome.failures.append((n, data, f"not one short line: {str(error)[:200]!r}"))
        except Exception as error:  # what else there is, is what is looked for
            outcome.failures.append((n, data, f"{type(error).__name__}: {error}"[:300]))
        seconds, mb = time.process_time() - started, _peak_mb() - before
        if slow or seconds > most_seconds:
            outcome.failures.append((n, data, f"too slow: {seconds:.1f} s of CPU time, allowed are {most_seconds}"))
        if mb > most_mb:
            outcome.failures.append((n, data, f"too large: {mb:.0f} MB more, allowed are {most_mb:.0f}"))
        outcome.slowest = max(outcome.slowest, seconds)
        told(n + 1)
    return outcome


def table(outcomes: dict[str, Outcome], peaks: dict[str, float]) -> str:
    """Markdown: a row a target."""
    lines = [
        "| target | decoded | refused | anything else | slowest, CPU ms | memory, + MB | most frequent reason |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name, outcome in outcomes.items():
        most = outcome.reasons.most_common(1)
        reason = f"{most[0][1]} × {most[0][0]}" if most else "–"
        numbers = f"{outcome.decoded} | {outcome.refused} | {len(outcome.failures)} | {1000 * outcome.slowest:.0f}"
        lines.append(f"| {name} | {numbers} | {peaks[name]:.0f} | {reason} |")
    return "\n".join(lines)


def _kind(text: str) -> str:
    text = re.sub(r"^\S*/\S+ ?|'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8}\b", "…", text)
    return re.sub(r"…+", "…", re.sub(r"[-\d.,×]*\d", "N", text))[:70].replace("|", "/")


@contextmanager
def _broken_off_after(seconds: float) -> Iterator[None]:
    """Raises TooSlowError inside once it has taken so much CPU time."""

    def stop(*_: object) -> None:
        raise TooSlowError

    former = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser("python -m experiments.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="mutations of each target (5000)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other mutations (0)")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets, by the names in the table")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where failures are left (runs/fuzz)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of every damaged tag
    outcomes: dict[str, Outcome] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in all_targets(Path(folder)):
            if arguments.only and target.name not in arguments.only:
                continue

            def told(done: int, name: str = target.name) -> None:
                if done % 1000 == 0 or done == arguments.count:
                    print(f"{name}: {done} of {arguments.count}", file=sys.stderr, flush=True)

            before = _peak_mb()
            outcomes[target.name] = outcome = fuzzed(target, arguments.count, arguments.seed, told)
            peaks[target.name] = _peak_mb() - before
            for n, data, what in outcome.failures:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                kept = arguments.keep / f"{target.name}-seed{arguments.seed}-{n}"
                kept.write_bytes(data)
                print(f"{kept}: {what}", file=sys.stderr, flush=True)
    print(table(outcomes, peaks))
    return int(any(outcome.failures for outcome in outcomes.values()))
