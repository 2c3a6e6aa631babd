"""A process of a job as SLURM runs it: submitit calls this on the job's nodes, once a task."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from submitit.helpers import DelayedSubmission

_POLL = 0.1  # seconds
_TO_STOP = 60.0  # what a training gets to end itself, of the preset's signal_delay_s
_TO_BE_TAKEN = 600.0  # what SLURM gets to take the node after it said so


class SlurmTask:
    """Runs `command`, which works in the folder `run`, with its output in `log`, that of ranks above 0 beside it.

    When SLURM takes the node back, on submitit's signal or on SIGTERM, the training is ended with its last
    checkpoint in place, and no result is left: the job, queued again by submitit or by SLURM, goes on from there.
    Raises RuntimeError where the command fails.
    """

    def __init__(self, command: list[str], log: Path, run: Path, environment: dict[str, str]) -> None:
        self.command = command
        self.log = log
        self.run = run
        self.environment = environment

    def __call__(self) -> None:
        self._taken = False
        self._requeue = signal.getsignal(signal.SIGUSR2)
        rank = int(os.environ["SLURM_PROCID"])
        command = [*self.command, *(["resume=true"] if self._has_begun() else [])]
        with (self.log.with_suffix(f".rank{rank}.log") if rank else self.log).open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            self._process = subprocess.Popen(
                command,
                env={**_threads(), **os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_leave_requeueing_to_submitit,
            )
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.signal(signal.SIGUSR2, self._on_signal)
        while self._process.poll() is None:
            time.sleep(_POLL)
        if self._taken:  # the end of one task would take the others with it, before the job is queued again
            time.sleep(_TO_BE_TAKEN)
            sys.exit(128 + signal.SIGTERM)
        if self._process.returncode != 0:
            raise RuntimeError(f"exit status {self._process.returncode}")

    def checkpoint(self) -> DelayedSubmission:
        """What the job does when it is run again: the same."""
        return DelayedSubmission(SlurmTask(self.command, self.log, self.run, self.environment))

    def _has_begun(self) -> bool:
        """Whether this SLURM job, now queued again, began in its folder: what `resume=false` asks for was done."""
        file = self.run / "state.json"
        return file.is_file() and json.loads(file.read_text())["slurm_job_id"] == os.environ["SLURM_JOB_ID"]

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop()
        self._requeue(number, frame)  # of the tasks of a job, the first queues it again

    def _stop(self) -> None:
        if self._taken:
            return
        self._taken = True
        self._process.terminate()
        deadline = time.monotonic() + _TO_STOP
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL)
        self._process.kill()


def _threads() -> dict[str, str]:
    """As many threads as SLURM gave the task processors, where it does not bind them."""
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    return {"OMP_NUM_THREADS": given} if given else {}


def _leave_requeueing_to_submitit() -> None:
    """Keeps Lightning from handling SIGUSR1, and SIGUSR2 from killing the training and its data workers."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
