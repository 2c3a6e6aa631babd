"""From a sweep to jobs: plan, queue, this machine or SLURM, status."""
