"""From a sweep to jobs: plan, queue, this machine or SLURM, status.

A launcher is a queue here, a class for Hydra in hydra_plugins/quintet_launchers and a file in conf/hydra/launcher.
"""
