"""Hydra's launcher `local`: every job of a sweep is `python train.py …` of its own, some at a time."""

# Hydra imports this module at every start, with -m and without: what takes time is imported where it is used.
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LocalLauncher(Launcher):
    """Runs `n_jobs` at a time, or as many as there are GPUs for; `fail_fast` stops all when one has failed.

    A job's value is the lowest `val/loss` of its run, which sweepers minimise; of an evaluation there is none.
    """

    def __init__(self, n_jobs: int | None, fail_fast: bool) -> None:
        from codec.checks import check_integer

        if n_jobs is not None:
            check_integer("hydra.launcher.n_jobs", n_jobs, 1)
        self.n_jobs = n_jobs
        self.fail_fast = fail_fast

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from codec.job_queue import JobQueue, visible_gpus
        from codec.sweep import Sweep
        from codec.sweep_jobs import plan, script_of

        script = script_of(self.task_function)
        folder = self.config.hydra.sweep.dir
        sweep = Sweep.read(folder) if initial_job_idx else Sweep.begin(folder, script, "local")
        gpus = visible_gpus()
        jobs = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            jobs.append(plan(sweep, number, overrides, config, len(gpus)))
        JobQueue(sweep, jobs, gpus, self.n_jobs, self.fail_fast).run()
        return [Returned.of(job) for job in jobs]


class Returned(JobReturn):
    """Hydra's, which would print a line of its own for a job that failed."""

    @classmethod
    def of(cls, job: Any) -> "Returned":
        failed = job.failure is not None
        returned = cls(overrides=job.record.overrides, cfg=job.config)
        returned.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
        returned._return_value = job.failure if failed else job.value
        return returned

    @property
    def return_value(self) -> Any:
        if self.status is JobStatus.FAILED:
            raise self._return_value
        return self._return_value
