"""Runs the jobs of a sweep on a SLURM cluster: submits what is not done, waits, and says what became of it."""

import getpass
import json
import pickle
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codec.config import ConfigError
from codec.data.image_file import whole_file
from codec.run_state import RunState
from codec.sweep import ENVIRONMENT, Sweep
from codec.sweep_jobs import Job

_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


class SlurmQueue:
    """Submits `jobs`, those with equal `requests` to sbatch as one array, and waits until all have ended.

    A job that an earlier start of the sweep submitted and that has not ended is waited for, not submitted again.
    """

    def __init__(
        self, sweep: Sweep, jobs: Sequence[Job], requests: Sequence[dict[str, Any]], poll_s: float
    ) -> None:
        self.sweep = sweep
        self.jobs = jobs
        self.requests = requests
        self.poll_s = poll_s
        self.folder = sweep.folder / "slurm"
        self.waiting: dict[str, Job] = {}  # by SLURM's number
        self.outcomes: Counter[str] = Counter()
        self._before: dict[str, RunState | None] = {}
        self._missing: set[str] = set()

    def run(self) -> None:
        """Returns when every job has ended; each knows then whether it failed. Interrupted, leaves them there."""
        _check_that_slurm_is_here()
        count = f"{len(self.jobs)} job{'s' * (len(self.jobs) != 1)}"
        _say(f"sweep of {count} in SLURM's queue; logs: {self.sweep.folder}/")
        self._submit()
        try:
            while self.waiting:
                time.sleep(self.poll_s)
                self._look()
        except KeyboardInterrupt:
            _say(
                f"{len(self.waiting)} stay in SLURM's queue: the same command waits for them again, "
                f"scancel {' '.join(sorted({number.split('_')[0] for number in self.waiting}))} stops them"
            )
            raise
        finally:
            self.sweep.write()
        self._sum_up()

    def _submit(self) -> None:
        file = self.folder / "submitted.json"
        submitted = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        queue = states() or {}
        arrays: dict[str, tuple[dict[str, Any], list[Job]]] = {}
        for job, request in zip(self.jobs, self.requests, strict=True):
            number = submitted.get(job.record.folder)
            if job.failure:
                self.outcomes["failed"] += 1
                _say(str(job.failure))
            elif job.done:
                job.value = job.run.val_loss
                self.outcomes["skipped"] += 1
                _say(f"job {job.record.number} skipped: {job.run.path} is done")
            elif queue.get(number, "COMPLETED") not in _ENDED:
                self._wait_for(job, number, "is still")
            else:
                arrays.setdefault(json.dumps(request, sort_keys=True), (request, []))[1].append(job)
        for request, jobs in arrays.values():
            for job, number in zip(jobs, self._submit_array(jobs, request), strict=True):
                submitted[job.record.folder] = number
                self._wait_for(job, number, "submitted as")
            with whole_file(file) as out:
                out.write(json.dumps(submitted, indent=2).encode())

    def _submit_array(self, jobs: Sequence[Job], request: dict[str, Any]) -> list[str]:
        """SLURM's numbers of the jobs: 12_0, 12_1, … of an array, 12 of a single one."""
        import submitit

        from codec.slurm_task import SlurmTask

        environment = {ENVIRONMENT: self.sweep.name}
        self.folder.mkdir(parents=True, exist_ok=True)
        tasks = [SlurmTask(job.command, Path(job.record.log).resolve(), environment) for job in jobs]
        timeouts = request["max_num_timeout"]
        executor = submitit.SlurmExecutor(folder=self.folder, max_num_timeout=timeouts)
        executor.update_parameters(**{key: value for key, value in request.items() if key != "max_num_timeout"})
        try:
            return [job.job_id for job in executor.submit_array(tasks)]
        except submitit.core.utils.FailedJobError as error:
            said = re.search(r"sbatch: error: (.+)", str(error))
            raise ConfigError(f"sbatch refused the sweep: {said[1] if said else error}") from None

    def _wait_for(self, job: Job, number: str, how: str) -> None:
        self.waiting[number] = job
        self._before[number] = RunState.read(job.run.path)
        _say(f"job {job.record.number} {how} SLURM job {number}: {' '.join(job.record.overrides)}")

    def _look(self) -> None:
        queue = states()
        if queue is None:  # the controller is away: it knows the jobs when it is back
            return
        for number, job in list(self.waiting.items()):
            succeeded, failed = (self._result(number, which) for which in ("success", "error"))
            ended = queue.get(number, "ended") in (*_ENDED, "ended")
            if not (succeeded or failed) and ended and number not in self._missing:
                self._missing.add(number)  # it may be between two queues, or its result on its way here
                continue
            if not ended:
                self._missing.discard(number)
            if not (succeeded or failed or ended):
                continue
            del self.waiting[number]
            self.outcomes["finished" if succeeded else "failed"] += 1
            if succeeded:
                job.value = job.run.val_loss
                _say(f"job {job.record.number} finished: {job.run.path}")
            else:
                job.fail(self._why(job, number, failed, queue.get(number)))
                self.sweep.write()
                _say(str(job.failure))

    def _result(self, number: str, which: str) -> str | None:
        """What submitit says of an ended job's first task, if it is that it ended so: its traceback, or "None"."""
        file = self.folder / f"{number}_0_result.pkl"
        if not file.is_file():
            return None
        outcome, value = pickle.loads(file.read_bytes())  # noqa: S301 - written by our own job
        return str(value) if outcome == which else None

    def _why(self, job: Job, number: str, error: str | None, state: str | None) -> str:
        """One line that says why a job failed: as it recorded itself, else what its log, submitit or SLURM say."""
        recorded = RunState.read(job.run.path)
        if recorded is not None and recorded.error and recorded != self._before[number]:
            return recorded.error
        log = Path(job.record.log)
        ranks = [file.read_text(errors="replace") for file in sorted(log.parent.glob(f"{log.stem}.*log"))]
        text = "\n".join(rank.rpartition("\n$ ")[2] for rank in ranks)  # of the last start
        told = re.findall(r"^error: (.+)$", text, re.MULTILINE)
        raised = error.strip().splitlines()[-1].partition(": ")[2] if error else None
        ended = f"SLURM ended job {number}" + (f": {state}" if state else "") + f"; see also {self.folder}/"
        return [*told[:1], *([raised] if raised else []), ended][0]

    def _sum_up(self) -> None:
        kinds = ("finished", "skipped", "failed")
        text = ", ".join(f"{self.outcomes[kind]} {kind}" for kind in kinds if self.outcomes[kind])
        _say(f"sweep: {text}" + ("; the same command does what is missing" if self.outcomes["failed"] else ""))


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
        "gpus_per_node": (tasks if gpus is None and job.gpus else gpus) or None,
        "mem": None if memory is None else f"{memory}GB",
        "srun_args": [f"--cpus-per-task={asked['cpus_per_task']}", "--kill-on-bad-exit=1"],
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **asked["additional_parameters"]},
    }


def _check_that_slurm_is_here() -> None:
    if find_spec("submitit") is None:
        raise ConfigError("hydra/launcher=slurm needs submitit: pip install 'quintet[slurm]'")
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


def _say(line: str) -> None:
    print(line, flush=True)
