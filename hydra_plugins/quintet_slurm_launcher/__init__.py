"""Hydra's launcher `slurm`: every job of a sweep is `python train.py …` as a job of SLURM, through submitit."""

# Hydra imports this module at every start, with -m and without: what takes time is imported where it is used.
import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """Submits the points that are not done and waits for them; `poll_s` is how often it looks, in seconds.

    `sbatch` is what the jobs ask SLURM for; each job takes it from its own config, as `strategy.devices` may be
    swept. A job's value is the lowest `val/loss` of its run, which sweepers minimise.
    """

    def __init__(self, poll_s: float, **sbatch: Any) -> None:
        self.poll_s = poll_s

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from codec.slurm_queue import SlurmQueue, requested
        from codec.sweep import Sweep
        from codec.sweep_jobs import plan, script_of
        from hydra_plugins.quintet_local_launcher import Returned

        script = script_of(self.task_function)
        folder = self.config.hydra.sweep.dir
        sweep = Sweep.read(folder) if initial_job_idx else Sweep.begin(folder, script, "slurm")
        jobs, requests = [], []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            job = plan(sweep, number, overrides, config, gpus=sys.maxsize)  # how many a node has, SLURM knows
            jobs.append(job)
            requests.append(requested(job, config.hydra.launcher))
        SlurmQueue(sweep, jobs, requests, self.poll_s).run()
        return [Returned.of(job) for job in jobs]
