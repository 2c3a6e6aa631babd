"""What the queues of all launchers have in common: what jobs are told, and what is said of them, and when."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

from codec.sweeps.plan import Job
from codec.sweeps.record import INTERRUPTED, Sweep
from codec.training.faults import USER_ERRORS
from codec.training.job import GROUP, NAME
from codec.training.run_state import RunState, first_line

_KINDS = ("finished", "skipped", "failed", "interrupted", "not started", "in SLURM's queue")


class SweepQueue(ABC):
    """Has each of `jobs` that is not done already run, and says what came of it; `where` is for the first line."""

    def __init__(self, sweep: Sweep, jobs: Sequence[Job], where: str) -> None:
        self.sweep = sweep
        self.jobs = jobs
        self.where = where
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Returns when every job has ended; each knows then whether it failed."""
        say(f"sweep of {len(self.jobs)} job{'s' * (len(self.jobs) != 1)}{self.where}; logs: {self.sweep.folder}/")
        try:
            left = [job for job in self.jobs if not self._settled(job)]
            self.sweep.write()
            self._run(left)
        finally:
            self.sweep.write()
            self.outcomes["not started"] = len(self.jobs) - self.outcomes.total()
            told = ", ".join(f"{self.outcomes[kind]} {kind}" for kind in _KINDS if self.outcomes[kind])
            missing = any(self.outcomes[kind] for kind in ("failed", "interrupted", "not started"))
            say(f"sweep: {told}" + ("; the same command does what is missing" if missing else ""))

    @abstractmethod
    def _run(self, jobs: Sequence[Job]) -> None:
        """Runs `jobs`, and calls `ended` for each."""

    def ended(self, job: Job, reason: str | None = None) -> None:
        """Takes down, and says, that a job has finished or, for a `reason`, failed."""
        if reason is None:
            try:
                job.value = job.run.val_loss
            except USER_ERRORS as error:
                reason = first_line(error)
        if reason is None:
            self._count("finished", f"job {job.record.number} finished: {job.run.path}")
        else:
            job.fail(reason)
            self.sweep.write()
            self._count("interrupted" if reason == INTERRUPTED else "failed", str(job.failure))

    def what_differs(self, job: Job) -> str:
        """The overrides of `job` that the sweep varies."""
        return self.sweep.what_differs(job.record.overrides)

    def environment(self, job: Job) -> dict[str, str]:
        """What a process of `job` is told besides its command."""
        return {GROUP: self.sweep.name, NAME: self.what_differs(job), "PYTHONUNBUFFERED": "1"}

    def _settled(self, job: Job) -> bool:
        """Whether nothing is run for `job`, which is then said."""
        number = job.record.number
        if job.failure:
            self._count("failed", str(job.failure))
        elif job.done:
            self._count("skipped", f"job {number} skipped: {job.run.path} is done")
        elif job.same_as is not None:
            self._count("skipped", f"job {number} skipped: it is job {job.same_as.record.number}, the same folder")
        else:
            return False
        return True

    def _count(self, kind: str, line: str) -> None:
        self.outcomes[kind] += 1
        say(line)


def reason(recorded: RunState | None, output: str, otherwise: str) -> str:
    """One line that says why a job failed: what it recorded itself, else what its output tells, else `otherwise`.

    Of the output it is the first error made for users, else the last exception's line.
    """
    if recorded is not None and recorded.error:
        return recorded.error
    told = re.findall(r"^error: (.+)$", output, re.MULTILINE)
    raised = re.findall(r"^(?:\[rank\d+\]: ?)?([\w.]*(?:Error|Exception)\b.*)$", output, re.MULTILINE)
    return next(iter([*told[:1], *raised[-1:]]), otherwise)


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)
