"""What can be said without torch is said before it is imported: refusals, help, and that a run is done."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, composed, run_python

from codec.training.paths import entry_command
from codec.training.run_folder import RunFolder

# Runs an entry point to its end, and says what it has imported by then.
PROGRAM = """
import sys
entry = sys.argv.pop(1)
try:
    __import__(f"codec.training.{entry}", fromlist=["main"]).main()
finally:
    print("heavy:", sorted({"torch", "lightning", "wandb", "scipy"} & set(sys.modules)), file=sys.stderr)
"""


def ended(entry: str, *overrides: str, cwd: Path):
    return run_python("-c", PROGRAM, entry, *overrides, cwd=cwd, check=False, PYTHONPATH=str(ROOT))


@pytest.mark.parametrize(
    ("entry", "overrides"),
    [
        ("train", ["epochs=zwei", "data.batch_size=0"]),
        ("train", ["data=folder"]),
        ("train", ["modle=jpeg"]),
        ("train", ["model=jpeg"]),
        ("evaluate", ["model=jpg"]),
        ("train", ["name=a/b"]),
        ("train", ["strategy.devices=0", "trainer.max_time=abc"]),
        ("train", ["data=folder", "data.train.root=nowhere"]),
        ("train", ["data=bsd300", "data.train.root=nowhere"]),
        ("train", ["data=folder_bsd300", "data.train.sources.folder.root=.", "data.test.root=nowhere"]),
        ("evaluate", ["model=jpeg", "data=kodak", "data.test.root=nowhere"]),
        ("train", ["start_from=nowhere"]),
        ("train", ["model.widths=[1,x]"]),
        ("train", ["optimizer._target_=foo.Bar"]),
        ("train", ["-m", "hydra.launcher.n_jobs=0", "seed=0,1"]),
        ("evaluate", ["run=nowhere"]),
        ("evaluate", ["model=jpeg", "data=samples", "device=tpu"]),
        ("evaluate", ["model=jpeg", "data=samples", "data.limit=0"]),
    ],
)
def test_a_wrong_override_is_refused_before_torch_is_imported(entry: str, overrides: list, tmp_path: Path) -> None:
    done = ended(entry, *overrides, cwd=tmp_path)
    *errors, heavy = done.stderr.splitlines()
    assert done.returncode == 2
    assert errors
    assert all(line.startswith("error: ") for line in errors)
    if overrides[-1] == "data.test.root=nowhere":
        assert errors[0].startswith("error: data.test.root=nowhere: no such folder: ")
        assert "QUINTET_DOWNLOAD=true" in errors[0]
    assert heavy == "heavy: []"


@pytest.mark.parametrize("entry", ["train", "evaluate"])
def test_help_is_shown_before_torch_is_imported(entry: str, tmp_path: Path) -> None:
    done = ended(entry, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python {entry}.py" in done.stdout
    assert done.stderr.splitlines() == ["heavy: []"]


def test_a_run_that_is_done_is_shown_before_torch_is_imported(here: Path) -> None:
    run = RunFolder.of(composed("train", ["name=first"])).path
    run.mkdir(parents=True)
    (run / "results.json").write_text(json.dumps({"val_loss": 0.5, "bpp": 0.25, "psnr": 30.0}))
    done = ended("train", "name=first", cwd=here)
    assert done.returncode == 0
    assert f"{run} is done; resume=false trains it again, more_epochs=N goes on" in done.stdout
    assert "0.2500" in done.stdout
    assert done.stderr.splitlines() == ["heavy: []"]


def test_an_installed_package_finds_its_configs_inside_itself_and_runs_its_modules(tmp_path: Path) -> None:
    """As a wheel is laid out: no script and no conf/ beside the package."""
    left_out = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(ROOT / "codec", tmp_path / "site/codec", ignore=left_out)
    shutil.copytree(ROOT / "conf", tmp_path / "site/codec/conf")
    shutil.copytree(ROOT / "hydra_plugins", tmp_path / "site/hydra_plugins", ignore=left_out)
    told = "from codec.training.paths import *; print(conf_folder()); print(*entry_command('train'))"
    site = {"PYTHONPATH": str(tmp_path / "site")}
    done = run_python("-c", told, cwd=tmp_path, **site)
    assert done.stdout.splitlines() == [str(tmp_path / "site/codec/conf"), "-m codec.training.train"]
    done = run_python("-m", "codec.training.train", "epochs=3", "--cfg", "job", cwd=tmp_path, **site)
    assert "epochs: 3\n" in done.stdout


def test_in_a_checkout_the_entry_points_are_the_scripts_as_one_types_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert entry_command("train") == ["train.py"]
    monkeypatch.chdir(ROOT / "tests")
    assert entry_command("evaluate") == [str(ROOT / "evaluate.py")]
