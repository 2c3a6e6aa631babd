"""What a sweep asks SLURM for, read from the file it hands to sbatch; needs no SLURM."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_python

pytest.importorskip("submitit", reason="pip install 'quintet[slurm]'")

COMMANDS = {
    "sbatch": "echo Submitted batch job 12",
    "srun": "exit 1",
    "squeue": "exit 0",
}  # it has run, and is gone


@pytest.fixture
def submitted(tmp_path: Path):
    """`submitted(script, *overrides)`: the ended process, and what it asked for, the options of sbatch and srun."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in COMMANDS.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)

    def submit(script: str, *overrides: str) -> tuple[subprocess.CompletedProcess, dict[str, str], str]:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        slurm = ("-m", "hydra/launcher=slurm", "hydra.launcher.poll_s=0.01")
        done = run_python(ROOT / script, *slurm, *overrides, cwd=tmp_path, check=False, PATH=path)
        (text,) = [file.read_text() for file in tmp_path.glob("runs/sweeps/*/slurm/*_submission.sh")] or [""]
        options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))
        return done, options, next((line for line in text.splitlines() if line.startswith("srun ")), "")

    return submit


def test_two_nodes_of_eight_gpus_are_asked_for_by_one_command(submitted) -> None:
    sizes = ("strategy=ddp", "strategy.devices=8", "strategy.num_nodes=2")
    limits = ("hydra.launcher.partition=gpu", "hydra.launcher.cpus_per_task=6", "hydra.launcher.timeout_min=600")
    done, asked, srun = submitted("train.py", "model=diffusion", *sizes, *limits)
    wanted = {"nodes": "2", "ntasks-per-node": "8", "gpus-per-node": "8", "cpus-per-task": "6", "partition": "gpu"}
    assert wanted.items() <= asked.items(), done.stdout + done.stderr
    assert (asked["time"], asked["signal"], asked["requeue"]) == ("600", "USR2@120", "")
    assert "array" not in asked
    assert " --cpus-per-task=6 " in srun  # which srun does not take over from sbatch since SLURM 22.05
    assert " --kill-on-bad-exit=1 " in srun


def test_points_are_an_array_with_a_limit_and_on_the_cpu_without_gpus(submitted) -> None:
    done, asked, _ = submitted("train.py", "seed=0,1,2", "strategy=cpu", "hydra.launcher.array_parallelism=2")
    assert asked["array"] == "0-2%2", done.stdout + done.stderr
    assert asked["ntasks-per-node"] == "1"
    assert "gpus-per-node" not in asked


def test_further_options_of_sbatch_are_passed_on(submitted) -> None:
    further = "+hydra.launcher.additional_parameters.reservation=night"
    done, asked, _ = submitted("train.py", "hydra.launcher.mem_gb=64", further)
    assert {"reservation": "night", "mem": "64GB", "requeue": ""}.items() <= asked.items(), done.stderr


def test_an_evaluation_asks_for_one_task(submitted) -> None:
    done, asked, _ = submitted("evaluate.py", "model=jpeg", "model.quality=20,50", "data=samples", "device=cpu")
    assert (asked["ntasks-per-node"], asked["nodes"], asked["array"]) == ("1", "1", "0-1%2"), done.stderr
    assert "gpus-per-node" not in asked


def test_a_job_that_ends_without_a_result_has_failed(submitted) -> None:
    done, _, _ = submitted("train.py", "seed=0")
    assert done.returncode == 1
    assert re.search(r"^job 0 failed: SLURM ended job 12; see also \S+/slurm/; log: \S+/0\.log$", done.stdout, re.M)
    assert done.stdout.splitlines()[-1].startswith("sweep: 1 failed; ")


def test_devices_auto_is_no_number_of_tasks(submitted) -> None:
    done, asked, _ = submitted("train.py", "strategy=ddp")
    assert done.returncode == 1
    assert not asked
    assert "job 0 failed: strategy.devices=auto: say how many in a SLURM job" in done.stdout


def test_without_slurm_the_sweep_is_refused_in_a_line(tmp_path: Path) -> None:
    if any(Path(folder, "srun").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        path = str(Path(sys.executable).parent)
    else:
        path = os.environ["PATH"]
    done = run_python(
        ROOT / "train.py", "-m", "hydra/launcher=slurm", "seed=0", cwd=tmp_path, check=False, PATH=path
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: hydra/launcher=slurm: no SLURM here")
