"""What only an extra brings is missed by what needs it alone, and that says what to install."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run_python, run_warm
from tiny_plan import PLAN, only_tiny

from experiments.points import read_points

WITHOUT_JPEG_XL = "import sys; sys.modules['pillow_jxl'] = None\n"  # as Python treats what is not installed
WITHOUT_WANDB = """
import sys
class NotInstalled:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "wandb":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotInstalled)
"""
SAID = "JPEG XL needs pillow-jxl-plugin: pip install 'quintet-codec[jpegxl]'"


def run_code(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return run_warm(["-c", code, *arguments], cwd, {**os.environ, "PYTHONPATH": str(ROOT)})


def test_without_its_package_the_jpeg_xl_baseline_says_what_to_install(tmp_path: Path) -> None:
    code = f"{WITHOUT_JPEG_XL}from codec.training.evaluate import main; main()"
    options = ("model=jpegxl", "data=samples", "data.limit=1", "logger=none")
    done = run_code(code, *options, cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"error: model: {SAID}")
    assert not (tmp_path / "runs").exists()


def test_without_its_package_a_table_is_made_of_all_other_codecs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = only_tiny(tmp_path, monkeypatch)
    stated = yaml.safe_load(PLAN)
    jpeg, png = stated["evaluations"][-2:]
    stated |= {"trainings": {}, "evaluations": [jpeg, {**jpeg, "codec": "jpegxl", "model": "jpegxl"}, png]}
    (plans / "tiny.yaml").write_text(yaml.safe_dump(stated))
    code = (
        f"{WITHOUT_JPEG_XL}from pathlib import Path; from experiments.tables import make, plan\n"
        f"plan.PLANS = Path({str(plans)!r}); plan.TABLES = make.TABLES = ['tiny']\n"
        "make.RESULTS = Path('results'); sys.exit(make.main(['tiny']))\n"
    )
    done = run_code(code, cwd=tmp_path)
    said = [line for line in done.stdout.splitlines() if "jpegxl" in line]
    assert said == [f"tiny: without jpegxl: {SAID}"]
    points = read_points(tmp_path / "results/points.csv")
    assert {row["codec"] for row in points} == {"jpeg", "png"}


def test_without_its_package_the_dashboard_says_what_to_install(tmp_path: Path) -> None:
    code = "import runpy, sys; sys.modules['wandb_workspaces'] = None\nrunpy.run_module('experiments.dashboard')"
    done = run_code(code, cwd=tmp_path)
    said = "error: a dashboard needs wandb-workspaces: pip install 'quintet-codec[dashboard]'\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_without_wandb_other_loggers_train_and_measure(tmp_path: Path) -> None:
    code = f"{WITHOUT_WANDB}from codec.training.train import main; main()"
    options = ("debug=one_step", "data.crop_size=32", "data.eval_crop=32", "data.batch_size=1", "name=plain")
    run_python("-c", code, *options, "logger=csv", cwd=tmp_path, PYTHONPATH=str(ROOT))
    (trained,) = (tmp_path / "runs").glob("plain-*")
    assert json.loads((trained / "results.json").read_text())["images"] == 1
    code = f"{WITHOUT_WANDB}from codec.training.evaluate import main; main()"
    options = ("model=jpeg", "data=samples", "data.limit=1", "logger=none", "name=measured")
    run_python("-c", code, *options, cwd=tmp_path, PYTHONPATH=str(ROOT))
    (measured,) = (tmp_path / "runs").glob("measured-*/results.json")
    assert json.loads(measured.read_text())["images"] == 1


@pytest.mark.parametrize("entry", ["train", "evaluate"])
def test_without_wandb_its_logger_says_what_to_install(entry: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['wandb'] = None; from codec.training.{entry} import main; main()"
    done = run_code(code, "model=jpeg", "data=samples", "logger=wandb", cwd=tmp_path)
    said = "error: logger=wandb: W&B is not installed: pip install wandb, or logger=csv"
    assert (done.returncode, said in done.stderr.splitlines()) == (2, True)
