"""state.json in a run's folder: what its last start came to, written by the run itself under every launcher."""

import json
import os
import platform
import subprocess
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from codec.errors import ConfigError
from codec.training.faults import USER_ERRORS, messages
from codec.training.job import GROUP
from codec.whole_file import whole_file

FILE, LOCK = "state.json", ".lock"


@dataclass(frozen=True)
class RunState:
    """`state` is running, done, failed or cut off; read back, also killed: running, but nobody is at work there."""

    state: str
    error: str | None  # of a failed run: the first line of what was raised
    host: str
    pid: int
    slurm_job_id: str | None
    started: str  # ISO 8601, UTC
    updated: str
    devices: int  # processes that train together

    @classmethod
    def read(cls, folder: str | Path) -> "RunState | None":
        """The state of the run in `folder`; None where no start was recorded, or its record is torn."""
        file = Path(folder, FILE)
        if not file.is_file():
            return None
        try:
            state = cls(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):  # what the run has done is told by its checkpoints and results
            return None
        killed = state.state == "running" and not state._alive(file.parent)
        return replace(state, state="killed") if killed else state

    def write(self, folder: Path) -> None:
        """Replaces state.json in `folder`, whole or not at all."""
        with whole_file(folder / FILE) as file:
            file.write((json.dumps(asdict(self), indent=2) + "\n").encode())

    def _alive(self, folder: Path) -> bool:
        """Whether somebody works there; believed of other machines, unless it is a SLURM job that does not run."""
        if self.host == platform.node():
            return is_locked(folder)
        if self.slurm_job_id is None:
            return True
        command = ["squeue", "--noheader", "--jobs", self.slurm_job_id, "--states", "RUNNING", "--format", "%A"]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):  # no SLURM here to ask
            return True
        if asked.returncode != 0:  # SLURM does not answer, or has forgotten the job
            return "Invalid job id" not in asked.stderr
        return self.slurm_job_id in asked.stdout.split()  # of an array's number all its jobs are told


def is_locked(folder: Path) -> bool:
    """Whether a process of this machine holds the lock of the run in `folder`."""
    if not (folder / LOCK).is_file():
        return False
    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True


def lock(folder: Path) -> AcquireReturnProxy:
    """Keeps other processes from working in `folder` until the block, or this process, ends.

    Raises ConfigError if one is at work there.
    """
    try:  # with a timeout above 0, since is_locked takes the lock for a moment
        return FileLock(folder.resolve() / LOCK, is_singleton=True).acquire(timeout=1)
    except Timeout:
        raise ConfigError(f"{folder} is being worked on by another process: wait for it, or stop it") from None


class Recorder:
    """`with Recorder(folder) as record:` keeps state.json: `record.begin` sets it running, the block's end another.

    Of processes that train together the first writes; each writes that it failed, and the first to fail is kept,
    since the others fail of its absence. A failure before `begin` is kept too where a folder is there or a launcher
    asks what became of it.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.rank = rank
        self.begun = False

    def begin(self, devices: int = 1) -> None:
        """Says that this process works in the folder, whose lock it holds, with `devices` processes in all."""
        self.begun = True
        self._begin("running", None, devices)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        # On a full disk what is to be told is the error that has ended the run, not that of this file.
        with nullcontext() if error is None else suppress(OSError):
            self._record(error)

    def _record(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, KeyboardInterrupt):
            if self.begun or (self.rank > 0 and (self.folder / FILE).is_file()):  # SLURM starts all ranks at once
                self._end("failed", first_line(error))
            elif not is_locked(self.folder) and (self.folder.is_dir() or os.environ.get(GROUP)):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._begin("failed", first_line(error), devices=1)
        elif self.begun:
            self._end("done" if error is None else "cut off", None)

    def _begin(self, state: str, error: str | None, devices: int) -> None:
        job, now = os.environ.get("SLURM_JOB_ID"), _now()
        RunState(state, error, platform.node(), os.getpid(), job, now, now, devices).write(self.folder)

    def _end(self, state: str, error: str | None) -> None:
        begun = RunState(**json.loads((self.folder / FILE).read_text(encoding="utf-8")))
        if begun.state == "running":
            replace(begun, state=state, error=error, updated=_now()).write(self.folder)


def first_line(error: BaseException) -> str:
    """One line that says what was raised: the text of an error made for users, else its type too."""
    if isinstance(error, USER_ERRORS):
        return messages(error)[0]
    return f"{type(error).__name__}: {error}".splitlines()[0].removesuffix(": ")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
