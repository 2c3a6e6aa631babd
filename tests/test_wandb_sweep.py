"""W&B's own sweeps: the command that its agent makes of our sweep file trains, without W&B's server."""

import json
import os
import sys
from pathlib import Path

import yaml
from conftest import ROOT
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

sweep, arguments = map(json.loads, sys.argv[1:])
agent = Agent(api=None, queue=None, sweep_id="s0")
agent._sweep_command = sweep["command"]
point = {"type": "run", "run_id": "point0", "program": sweep["program"], "args": arguments}
agent._process_command(point)
sys.exit(agent._run_processes["point0"].wait())
"""


def points() -> list[dict]:
    """The lowest and the highest point of the sweep file, as the server sends them."""
    ranges = {
        key: given.get("values") or [given.get("min", given.get("value")), given.get("max", given.get("value"))]
        for key, given in SWEEP["parameters"].items()
    }
    return [{key: {"value": values[at]} for key, values in ranges.items()} for at in (0, -1)]


def test_every_point_is_a_config_that_composes() -> None:
    for point in points():
        overrides = [f"{key}={given['value']}" for key, given in point.items()]
        with composed("train", overrides) as config:
            assert config.optimizer.lr == point["optimizer.lr"]["value"]


def test_what_is_compared_is_logged_and_stays_comparable() -> None:
    assert SWEEP["metric"] == {"name": "val/loss", "goal": "minimize"}
    for key, settings in SWEEP["parameters"].items():
        assert "value" in settings or key.partition(".")[0] not in ("loss", "data")


def test_the_command_of_wandbs_agent_trains_and_logs_as_its_run(tmp_path: Path) -> None:
    arguments = {**points()[0], **{key: {"value": value} for key, value in SMALL.items()}}
    sweep = {**SWEEP, "program": str(ROOT / SWEEP["program"])}
    (tmp_path / "agent.py").write_text(AGENT)
    process = run_without_key(
        tmp_path / "agent.py",
        json.dumps(sweep),
        json.dumps(arguments),
        cwd=tmp_path,
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        WANDB_MODE="offline",
        WANDB_SWEEP_ID="s0",
    )
    assert process.returncode == 0, process.stderr[-3000:]
    (run,) = (tmp_path / "runs").glob("conv_baseline_samples_*")
    written = read_back(run)
    assert (written.run.run_id, written.run.sweep_id) == ("point0", "s0")
    assert written.run.display_name.startswith("model=conv_baseline data=samples quantization=4bit ")
    assert "val/loss" in written.summary
    assert written.config["optimizer"]["lr"] == arguments["optimizer.lr"]["value"]
