"""W&B's own sweeps: the command that its agent makes of our sweep file trains, without W&B's server."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from omegaconf import DictConfig, OmegaConf
from wandb_files import read_back, run_without_key

from experiments.compose import composed

FILE = ROOT / "experiments/wandb_sweep.yaml"
SWEEP = yaml.safe_load(FILE.read_text())
SMALL = {
    "data": "samples",
    "strategy": "cpu",
    "epochs": 1,
    "test": "false",
    "data.limit": 4,
    "data.num_workers": 0,
    "data.crop_size": 64,
    "data.crops_per_image": 1,
    "data.eval_crop": 192,
    "model.widths": "[8,8]",
    "model.latent_channels": 4,
}

# What `wandb agent` does with a point that the server sends it, and all that it does with it.
AGENT = """
import json, sys
from wandb.wandb_agent import Agent

sweep, run_id, arguments = json.loads(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
agent = Agent(api=None, queue=None, sweep_id="s0")
agent._sweep_command = sweep["command"]
point = {"type": "run", "run_id": run_id, "program": sweep["program"], "args": arguments}
agent._process_command(point)
sys.exit(agent._run_processes[run_id].wait())
"""


def ranges() -> dict[str, list]:
    """The values of every parameter of the sweep file, of an interval its ends."""
    return {
        key: given.get("values") or ([given["value"]] if "value" in given else [given["min"], given["max"]])
        for key, given in SWEEP["parameters"].items()
    }


def composed_points() -> list[DictConfig]:
    """The configs of all points, ends for intervals."""
    configs = []
    for values in product(*ranges().values()):
        overrides = [f"{key}={value}" for key, value in zip(ranges(), values, strict=True)]
        with composed("train", overrides) as config:
            OmegaConf.resolve(config.loss)
            OmegaConf.resolve(config.data)
            configs.append(config)
    return configs


def run_agent(run_id: str, point: dict, cwd: Path) -> subprocess.CompletedProcess:
    """What `wandb agent` does when the server sends it this point as the run `run_id`."""
    (cwd / "agent.py").write_text(AGENT)
    sweep = {**SWEEP, "program": str(ROOT / SWEEP["program"])}
    return run_without_key(
        cwd / "agent.py",
        *(json.dumps(sweep), run_id, json.dumps(point)),
        cwd=cwd,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        WANDB_MODE="offline",
        WANDB_SWEEP_ID="s0",
    )


def test_every_point_is_a_config_and_all_have_the_loss_and_the_data_that_make_val_loss_comparable() -> None:
    first, *others = composed_points()
    assert len(others) == 5
    assert len({(config.optimizer.lr, config.quantization.bits) for config in (first, *others)}) == 6
    for config in others:
        assert (config.loss, config.data) == (first.loss, first.data)


def test_the_agents_command_trains_as_its_run_and_logs_what_is_compared_also_of_a_point_that_is_done(
    tmp_path: Path,
) -> None:
    first = {key: {"value": values[0]} for key, values in ranges().items()}
    arguments = {**first, **{key: {"value": value} for key, value in SMALL.items()}}
    process = run_agent("point0", arguments, tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    (run,) = (tmp_path / "runs").glob("conv_baseline_samples_*")
    trained = read_back(tmp_path)  # the agent sets WANDB_DIR
    assert (trained.run.run_id, trained.run.sweep_id) == ("point0", "s0")
    assert trained.run.display_name.startswith("model=conv_baseline data=samples quantization=4bit ")
    assert trained.config["optimizer"]["lr"] == arguments["optimizer.lr"]["value"]
    metric, best = SWEEP["metric"]["name"], {"minimize": "min", "maximize": "max"}[SWEEP["metric"]["goal"]]
    (lowest,) = [row[metric] for row in trained.history if metric in row]
    assert trained.summary[metric] == {best: lowest}

    (tmp_path / "wandb").rename(tmp_path / "of the training")
    curves = sorted(run.glob("metrics/*"))
    process = run_agent("point1", arguments, tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    assert f"{run.relative_to(tmp_path)} is done" in process.stdout
    told = read_back(tmp_path)
    assert (told.run.run_id, told.run.sweep_id, told.exit.exit_code) == ("point1", "s0", 0)
    assert told.run.display_name == trained.run.display_name
    assert told.summary[metric] == pytest.approx({best: lowest})
    assert sorted(run.glob("metrics/*")) == curves
