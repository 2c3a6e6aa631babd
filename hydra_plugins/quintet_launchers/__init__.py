"""Hydra's launchers `local` and `slurm`: every job of a sweep is `python train.py …`, a command of its own."""

# Hydra imports this module at every start, with -m and without: what takes time is imported where it is used.
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from codec.sweeps.plan import Job
    from codec.sweeps.record import Sweep


class SweepLauncher(Launcher):
    """Makes jobs of the points of a sweep and has them run.

    A job's value is the lowest `val/loss` of its run, which sweepers minimise; of an evaluation there is none.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns what came of every job, its value or its failure. Raises ConfigError if this sweep runs now."""
        from codec.sweeps.plan import plan, script_of
        from codec.sweeps.record import Sweep
        from codec.training.run_state import lock

        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder):
            launcher = self.config.hydra.runtime.choices["hydra/launcher"]
            sweep = Sweep.begin(folder, script_of(self.task_function), launcher, initial_job_idx)
            jobs: list[Job] = []
            configs: list[DictConfig] = []
            for number, overrides in enumerate(job_overrides, initial_job_idx):
                configs.append(self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides)))
                jobs.append(plan(sweep, number, overrides, configs[-1], jobs))
            self._run(sweep, jobs, configs)
        return [Returned.of(job) for job in jobs]

    @abstractmethod
    def _run(self, sweep: Sweep, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
        """Returns when all jobs have ended, which know then what came of them; `configs` have Hydra's own part."""


class LocalLauncher(SweepLauncher):
    """Runs `n_jobs` at a time, or as many as there are GPUs for; `fail_fast` stops all when one has failed."""

    def __init__(self, n_jobs: int | None, fail_fast: bool) -> None:
        from codec.checks import check_integer

        if n_jobs is not None:
            check_integer("hydra.launcher.n_jobs", n_jobs, 1)
        self.n_jobs = n_jobs
        self.fail_fast = fail_fast

    def _run(self, sweep: Sweep, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
        from codec.sweeps.local import LocalQueue, visible_gpus

        LocalQueue(sweep, jobs, visible_gpus(), self.n_jobs, self.fail_fast).run()


class SlurmLauncher(SweepLauncher):
    """Submits the points that are not done and waits for them; `poll_s` is how often it looks, in seconds.

    `sbatch` is what the jobs ask SLURM for; each job takes it from its own config, as `strategy.devices` may be
    swept.
    """

    def __init__(self, poll_s: float, **sbatch: Any) -> None:
        self.poll_s = poll_s

    def _run(self, sweep: Sweep, jobs: Sequence[Job], configs: Sequence[DictConfig]) -> None:
        from codec.sweeps.slurm import SlurmQueue, requested

        requests = [requested(job, config.hydra.launcher) for job, config in zip(jobs, configs, strict=True)]
        SlurmQueue(sweep, jobs, requests, self.poll_s).run()


class Returned(JobReturn):
    """Hydra's, which would print a line of its own for a job that failed."""

    @classmethod
    def of(cls, job: Job) -> Returned:
        """What came of `job`, or of the one that has its folder."""
        outcome = job.same_as or job
        returned = cls(overrides=job.record.overrides, cfg=job.config)
        returned.status = JobStatus.FAILED if outcome.failure else JobStatus.COMPLETED
        returned._return_value = outcome.failure or outcome.value
        return returned

    @property
    def return_value(self) -> Any:
        if self.status is JobStatus.FAILED:
            raise self._return_value
        return self._return_value
