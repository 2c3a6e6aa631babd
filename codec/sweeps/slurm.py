"""Runs the jobs of a sweep on a SLURM cluster: submits what is not done, waits, and says what became of it."""

import getpass
import json
import pickle
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codec.errors import ConfigError, install
from codec.sweeps.plan import Job, gpus_wanted
from codec.sweeps.queue import SweepQueue, reason, say
from codec.sweeps.record import Sweep
from codec.training.run_state import RunState
from codec.whole_file import whole_file

ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
_SUBMITTED = "submitted.json"
_PATIENCE = 60.0  # seconds; so long a node's shared folder may hide what another node wrote there


class SlurmQueue(SweepQueue):
    """Submits `jobs`, those with equal `requests` to sbatch as one array, and waits until all have ended.

    A job that an earlier start of the sweep submitted and that has not ended is waited for, not submitted again.
    Interrupted, leaves them there.
    """

    def __init__(
        self, sweep: Sweep, jobs: Sequence[Job], requests: Sequence[dict[str, Any]], poll_s: float
    ) -> None:
        super().__init__(sweep, jobs, " in SLURM's queue")
        self.requests = dict(zip((job.record.number for job in jobs), requests, strict=True))
        self.poll_s = poll_s
        self.folder = sweep.folder / "slurm"
        self.waiting: dict[str, SubmittedJob] = {}  # by SLURM's number

    def run(self) -> None:
        _check_that_slurm_is_here()
        super().run()

    def _run(self, jobs: Sequence[Job]) -> None:
        try:
            self._submit(jobs)
            while self.waiting:
                time.sleep(self.poll_s)
                self._look()
        finally:
            if left := len(self.waiting):
                stop = shlex.join(["scancel", *sorted({number.split("_")[0] for number in self.waiting})])
                say(f"{left} stay in SLURM's queue: the same command waits for them again, {stop} stops them")
                self.outcomes["in SLURM's queue"] = left

    def _submit(self, jobs: Sequence[Job]) -> None:
        numbers = submitted(self.sweep.folder)
        queue = states() if jobs else {}
        if queue is None:  # whether an earlier start's jobs are still there, nobody knows then
            raise ConfigError("SLURM does not answer: nothing was submitted; squeue says why")
        arrays: dict[str, list[Job]] = {}
        for job in jobs:
            number = numbers.get(job.run.path.name)
            if queue.get(number, "COMPLETED") not in ENDED:
                self._wait_for(job, number, "is still")
            else:
                arrays.setdefault(json.dumps(self.requests[job.record.number], sort_keys=True), []).append(job)
        for array in arrays.values():
            for job, number in zip(array, self._submit_array(array), strict=True):
                numbers[job.run.path.name] = number
                self._wait_for(job, number, "submitted as")
            with whole_file(self.folder / _SUBMITTED) as out:
                out.write(json.dumps(numbers, indent=2).encode())

    def _submit_array(self, jobs: Sequence[Job]) -> list[str]:
        """SLURM's numbers of the jobs: 12_0, 12_1, … of an array, 12 of a single one."""
        import submitit

        from codec.sweeps.slurm_task import SlurmTask

        self.folder.mkdir(parents=True, exist_ok=True)
        tasks = [
            SlurmTask(job.command, Path(job.record.log).resolve(), job.run.path.resolve(), self.environment(job))
            for job in jobs
        ]
        request = dict(self.requests[jobs[0].record.number])
        executor = submitit.SlurmExecutor(folder=self.folder, max_num_timeout=request.pop("max_num_timeout"))
        executor.update_parameters(**request)
        try:
            return [job.job_id for job in executor.submit_array(tasks)]
        except submitit.core.utils.FailedJobError as error:
            said = re.search(r"sbatch: error: (.+)", str(error))
            raise ConfigError(f"sbatch refused the sweep: {said[1] if said else error}") from None

    def _wait_for(self, job: Job, number: str, how: str) -> None:
        self.waiting[number] = SubmittedJob(job, RunState.read(job.run.path))
        say(f"job {job.record.number} {how} SLURM job {number}: {self.what_differs(job)}")

    def _look(self) -> None:
        """Says which jobs have ended; of one that left no result, once it must have come here if there is one."""
        queue = states()
        if queue is None:  # the controller is away: it knows the jobs when it is back
            return
        for number, waiting in list(self.waiting.items()):
            state, job = queue.get(number), waiting.job
            if state is not None and state not in ENDED:
                waiting.ended = None
                continue
            results = self._results(number)
            errors = [text for outcome, text in results.values() if outcome == "error"]
            succeeded = state == "COMPLETED" or (0 in results and not errors) or job.run.is_done(job.config)
            waiting.ended = waiting.ended or time.monotonic()
            in_vain = time.monotonic() - waiting.ended >= _PATIENCE
            if succeeded or errors or state == "CANCELLED" or in_vain:
                del self.waiting[number]
                self.ended(job, None if succeeded else self._why(waiting, number, state, errors))

    def _results(self, number: str) -> dict[int, tuple[str, Any]]:
        """What submitit has of an ended job's tasks, by rank: ("success", None) or ("error", a traceback)."""
        files = {int(file.stem.split("_")[-2]): file for file in self.folder.glob(f"{number}_*_result.pkl")}
        return {rank: pickle.loads(file.read_bytes()) for rank, file in files.items()}  # noqa: S301 - our own job's

    def _why(self, waiting: "SubmittedJob", number: str, state: str | None, errors: Sequence[str]) -> str:
        """One line that says why a job failed, by what it recorded since, its logs, submitit or SLURM."""
        recorded = RunState.read(waiting.job.run.path)
        log = Path(waiting.job.record.log)
        ranks = [file.read_text(errors="replace") for file in sorted(log.parent.glob(f"{log.stem}.*log"))]
        starts = [rank.rpartition("\n$ ")[2] for rank in ranks]  # the last ones
        ended = f"SLURM ended job {number}" + (f": {state}" if state else "") + f"; see also {self.folder}/"
        return reason(recorded if recorded != waiting.before else None, "\n".join([*errors, *starts]), ended)


@dataclass
class SubmittedJob:
    """A job that SLURM has: the state of its run before, and since when SLURM says that it has `ended`."""

    job: Job
    before: RunState | None
    ended: float | None = None


def submitted(sweep: Path) -> dict[str, str]:
    """SLURM's number of every job that was submitted for the sweep in a folder, by the name of its run's folder."""
    file = sweep / "slurm" / _SUBMITTED
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def requested(job: Job, launcher: DictConfig) -> dict[str, Any]:
    """What `job` asks sbatch for, of a composed `hydra/launcher=slurm`, in submitit's words; {} of a failed one.

    Where the number of tasks is not a number, the job has failed.
    """
    if job.failure:
        return {}
    asked = OmegaConf.to_container(launcher, resolve=True)
    for key in ("_target_", "poll_s"):
        del asked[key]
    for key, option in (("tasks_per_node", "strategy.devices"), ("nodes", "strategy.num_nodes")):
        if not (str(asked[key]).isdecimal() and int(asked[key]) >= 1):
            job.fail(
                f"{option}={asked[key]}: say how many in a SLURM job, which starts a task for each, e.g. {option}=8"
            )
            return {}
    tasks = int(asked.pop("tasks_per_node"))
    gpus = asked.pop("gpus_per_node")
    memory, timeout = asked.pop("mem_gb"), asked.pop("timeout_min")
    return {
        **{key: value for key, value in asked.items() if value is not None},
        "ntasks_per_node": tasks,
        "time": timeout,
        "job_name": Path(job.record.log).parent.name,
        "gpus_per_node": (tasks if gpus is None and gpus_wanted(job.config, present=1) else gpus) or None,
        "mem": None if memory is None else f"{memory}GB",
        "srun_args": [f"--cpus-per-task={asked['cpus_per_task']}", "--kill-on-bad-exit=1"],
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **asked["additional_parameters"]},
    }


def _check_that_slurm_is_here() -> None:
    if find_spec("submitit") is None:
        raise ConfigError(f"hydra/launcher=slurm needs submitit: {install('slurm')}")
    if shutil.which("srun") is None:
        raise ConfigError("hydra/launcher=slurm: no SLURM here, srun is not on the PATH; use hydra/launcher=local")


def states() -> dict[str, str] | None:
    """The state of every job of this user that SLURM remembers, by its number; None where SLURM does not answer."""
    command = ["squeue", "--noheader", "--array", "--states", "all", "--user", getpass.getuser()]
    try:
        asked = subprocess.run(
            [*command, "--format", "%i %T"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(line.split()[:2] for line in asked.stdout.splitlines() if line.strip())
