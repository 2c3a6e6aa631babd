"""`hydra/sweeper=optuna`: what is searched, what is refused, and that a search goes on where it was left."""

import json
import re
import subprocess
from pathlib import Path

import optuna
import pytest
from conftest import ROOT, run_python
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweeping import TINY, TRAIN

from codec.training.config import ConfigError
from hydra_plugins.quintet_optuna_sweeper import search_space, try_again

# A job of no cost: the lowest value is at x=0.3; a file tells it to fail, another to be killed with its sweep.
APP = """
import os, signal, sys
from pathlib import Path
import hydra
from hydra.core.config_store import ConfigStore

ConfigStore.instance().store("app", {"x": 0.0, "kind": "a"})

@hydra.main(version_base="1.3", config_path=None, config_name="app")
def main(config):
    print("x:", config.x, flush=True)
    if Path("none").exists():
        return None
    if Path("fail").exists():
        Path("fail").unlink()
        raise RuntimeError("no luck")
    if Path("kill").exists():
        Path("kill").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return (config.x - 0.3) ** 2

main()
"""


def parsed(*overrides: str) -> dict:
    return search_space(OverridesParser.create().parse_overrides(list(overrides)))


def test_intervals_are_numbers_and_anything_else_is_one_of_its_values() -> None:
    assert parsed("optimizer.lr=tag(log, interval(1e-4, 1e-2))", "model.latent_channels=int(interval(8, 64))") == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "model.latent_channels": IntDistribution(8, 64),
    }
    assert parsed("quantization=4bit,6bit", "batch=range(2,9,3)") == {
        "quantization": CategoricalDistribution(["4bit", "6bit"]),
        "batch": CategoricalDistribution(["2", "5", "8"]),
    }


@pytest.mark.parametrize("override", ["loss.rate_weight=interval(0, 1)", "loss=mse,vgg", "data=samples,kodak"])
def test_what_changes_the_meaning_of_val_loss_is_not_searched(override: str) -> None:
    with pytest.raises(ConfigError, match=f"{re.escape(override)}: a search compares val/loss"):
        parsed(override)


def test_a_search_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"give what to search, e.g. 'optimizer.lr=interval\(1e-4, 1e-2\)'"):
        parsed()


def search(folder: Path, n_trials: int, *overrides: str, check: bool = True) -> subprocess.CompletedProcess:
    (folder / "app.py").write_text(APP)
    ours = (f"hydra.searchpath=[file://{ROOT}/conf]", "hydra/sweeper=optuna", "hydra.sweep.dir=sweep")
    command = ("app.py", "-m", *ours, f"hydra.sweeper.n_trials={n_trials}", "x=interval(0, 1)", *overrides)
    return run_python(*command, cwd=folder, check=check, PYTHONPATH=str(ROOT))


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    (file,) = folder.rglob("search.db")
    return optuna.load_study(study_name="search", storage=f"sqlite:///{file}").trials


def drawn(process: subprocess.CompletedProcess) -> list[str]:
    return re.findall(r"x: (\S+)", process.stdout)


def test_a_search_goes_on_where_it_was_left_and_draws_nothing_twice(tmp_path: Path) -> None:
    first = drawn(search(tmp_path, 3))
    assert drawn(search(tmp_path, 3)) == []
    process = search(tmp_path, 5)
    assert len(set(first + drawn(process))) == 5
    assert re.findall("search: (trial.*)", process.stdout) == ["trial 4 of 5", "trial 5 of 5"]
    best = min(trials(tmp_path), key=lambda trial: trial.value)
    assert len(trials(tmp_path)) == 5
    assert f"search: 5 trials finished; best: job {best.number}, val/loss {best.value:.6g}, x=" in process.stdout


def test_a_trial_that_failed_or_was_killed_is_repeated_first_and_failing_ends_no_search(
    tmp_path: Path,
) -> None:
    (tmp_path / "fail").touch()
    process = search(tmp_path, 3, check=False)
    failed, *others = drawn(process)
    assert process.returncode != 0
    assert len(others) == 2
    assert "search: 2 trials finished" in process.stdout
    (tmp_path / "kill").touch()
    assert drawn(search(tmp_path, 3, check=False)) == [failed]
    assert drawn(search(tmp_path, 3)) == [failed]
    assert sum(trial.value is not None for trial in trials(tmp_path)) == 3


def test_jobs_without_a_value_are_refused(tmp_path: Path) -> None:
    (tmp_path / "none").touch()
    process = search(tmp_path, 3, check=False)
    assert process.returncode != 0
    assert "only train.py gives a val/loss to search by" in process.stderr


def test_trials_that_another_sweep_runs_are_left_to_it(tmp_path: Path) -> None:
    study = optuna.create_study()
    for folder in ("here", "there"):
        study.ask({"x": FloatDistribution(0, 1)}).set_user_attr("sweep", str(tmp_path / folder))
    try_again(study, tmp_path / "here")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "RUNNING", "WAITING"]


def test_trainings_are_searched_and_go_on_with_the_same_storage_in_another_sweep(
    tmp_path: Path,
) -> None:
    search = ("hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///search.db")
    command = (TRAIN, "-m", *search, *TINY, "optimizer.lr=tag(log, interval(1e-4, 1e-2))")
    numbers = []
    for n_trials, runs in ((1, "runs"), (2, "other")):
        process = run_python(*command, f"hydra.sweeper.n_trials={n_trials}", f"runs={runs}", cwd=tmp_path)
        (file,) = tmp_path.glob(f"{runs}/sweeps/*/sweep.json")
        numbers.append([job["number"] for job in json.loads(file.read_text())["jobs"]])
        assert f"search: {n_trials} trials finished; best: job " in process.stdout
    assert numbers == [[0], [1]]
    assert len({path.name for path in tmp_path.glob("*/conv_baseline_*")}) == 2
    assert [(trial.number, trial.value > 0) for trial in trials(tmp_path)] == [(0, True), (1, True)]
