"""Runs the jobs of a sweep on this machine: a process tree each, some at a time, each with GPUs of its own."""

import codecs
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from codec.sweeps.plan import Job, gpus_wanted
from codec.sweeps.queue import SweepQueue, reason, say
from codec.sweeps.record import INTERRUPTED, Sweep
from codec.training.faults import JobFailedError
from codec.training.run_state import RunState

_POLL = 0.1  # seconds
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class LocalQueue(SweepQueue):
    """Starts `jobs` in order, `n_jobs` at a time or, where that is None, as `gpus` allow; one at a time without.

    What happens is printed when it happens; where only one job can run at a time, its own output too. All of it is
    in the job's log. With `fail_fast`, the first job that fails stops the others. Interrupted, stops them all.
    """

    def __init__(
        self, sweep: Sweep, jobs: Sequence[Job], gpus: Sequence[str], n_jobs: int | None, fail_fast: bool
    ) -> None:
        self.at_most = n_jobs or max(1, len(gpus))
        super().__init__(sweep, jobs, f", {self.at_most} at a time")
        self.gpus = gpus
        self.n_jobs = n_jobs
        self.fail_fast = fail_fast
        self.free = list(gpus)
        self.running: list[JobProcess] = []
        self.waiting: deque[Job] = deque()
        for job in (job for job in jobs if not (job.done or job.failure)):
            job.gpus = wanted = gpus_wanted(job.config, len(gpus))
            if wanted > len(gpus):
                by = "strategy" in job.config
                key = f"strategy.devices={job.config.strategy.devices}" if by else f"device={job.config.device}"
                job.fail(f"{key}: this job wants {wanted} GPU{'s' * (wanted > 1)}, and there are {len(gpus)}")

    def _run(self, jobs: Sequence[Job]) -> None:
        self.waiting.extend(jobs)
        try:
            while self.waiting or self.running:
                if self.fail_fast and self.outcomes["failed"]:
                    self._give_up()
                if self.waiting and self._may_start(self.waiting[0]):
                    self._start(self.waiting.popleft())
                else:
                    self._look()
        except BaseException:
            if self.running:
                say(f"stopping {len(self.running)} running; interrupt again to kill")
            self._stop()
            raise

    def _may_start(self, job: Job) -> bool:
        alone = self.n_jobs is None and job.gpus == 0 and any(p.job.gpus == 0 for p in self.running)
        return len(self.running) < self.at_most and job.gpus <= len(self.free) and not alone

    def _start(self, job: Job) -> None:
        given = [self.free.pop(0) for _ in range(job.gpus)]
        on = f" on GPU {','.join(given)}" if given else ""
        say(f"job {job.record.number} started{on}: {self.what_differs(job)}")
        self.running.append(JobProcess(job, given, self._environment(job, given), live=self.at_most == 1))

    def _environment(self, job: Job, gpus: Sequence[str]) -> dict[str, str]:
        # By SLURM_NTASKS Lightning takes it that srun started all processes of a training, and starts none itself.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_NTASKS")}
        environment |= self.environment(job)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        if self.at_most > 1:  # or each would take all cores
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.at_most)))
        return environment

    def _look(self) -> None:
        """Waits a moment, shows what jobs printed and says which have ended."""
        time.sleep(_POLL)
        for process in list(self.running):
            status = process.poll()
            if status is not None:
                self.running.remove(process)
                self.free += process.gpus
                self.ended(process.job, process.why(status) if status else None)

    def _give_up(self) -> None:
        for job in self.waiting:
            job.failure = JobFailedError(f"job {job.record.number} was not started, since another one failed")
        self.waiting.clear()
        for process in self.running:
            process.interrupt()

    def _stop(self) -> None:
        """Interrupts what runs and waits for it to end; a further interrupt kills it."""
        for process in self.running:
            process.interrupt()
        try:
            while self.running:
                self._look()
        except BaseException:
            for process in self.running:
                process.kill()
            while self.running:
                self._look()
            raise


class JobProcess:
    """A running job, the leader of a process group of its own, with its output in the job's log."""

    def __init__(self, job: Job, gpus: list[str], environment: dict[str, str], live: bool) -> None:
        self.job = job
        self.gpus = gpus
        self.live = live
        self.interrupted = False
        self.log = Path(job.record.log)
        self._line_ended = True
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with self.log.open("ab") as log:  # of a retried job the earlier output is kept
            log.write(f"$ {shlex.join(job.command)}\n".encode())
            self._start = self._shown = log.tell()
            log.flush()
            self._process = subprocess.Popen(
                job.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if _LIBC is None else _end_with_parent,
            )

    def poll(self) -> int | None:
        """The exit status once the job's main process has ended, when none of its others is left; else None."""
        status = self._process.poll()
        if status is not None:
            self.kill()
        if self.live:
            self._show()
            if status is not None and not self._line_ended:
                sys.stdout.write("\n")
        return status

    def interrupt(self) -> None:
        """Asks the main process, once, to stop, which stops the others that train with it."""
        if not self.interrupted:
            self.interrupted = True
            self._process.terminate()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def why(self, status: int) -> str:
        """One line that says why the job ended with `status`: as it recorded itself, else its log's last error."""
        state = RunState.read(self.job.run.path)
        recorded = state if state is not None and state.pid == self._process.pid else None
        if self.interrupted or (recorded is not None and recorded.state == "cut off"):
            return INTERRUPTED
        with self.log.open("rb") as log:
            log.seek(self._start)
            text = log.read().decode(errors="replace")
        ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return reason(recorded, text, ended)

    def _show(self) -> None:
        with self.log.open("rb") as log:
            log.seek(self._shown)
            text = log.read()
        self._shown += len(text)
        self._line_ended = text.endswith(b"\n") if text else self._line_ended
        sys.stdout.write(self._decoder.decode(text))
        sys.stdout.flush()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]


def _end_with_parent() -> None:
    """Has the kernel end this process when its parent, the sweep, is killed and cannot do so itself."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
