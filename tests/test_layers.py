"""Which way imports point: the contracts of pyproject.toml hold, and refuse what they are there for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, run_python

AGAINST = (
    ("codec/metrics.py", "codec.training.results"),
    ("codec/data/folder.py", "codec.cli.main"),
    ("codec/whole_file.py", "experiments.points"),
    ("codec/cli/main.py", "codec.training.results"),
    ("codec/training/results.py", "codec.sweeps.record"),
    ("codec/sweeps/record.py", "codec.cli.main"),
    ("codec/networks/blocks.py", "codec.entropy.tables"),
    ("codec/entropy/tables.py", "codec.learned_codec"),
    ("codec/schemes/conv_autoencoder.py", "codec.schemes.diffusion"),
    ("codec/pretrained/__init__.py", "codec.checkpoint"),
    ("codec/data/source.py", "codec.data.module"),
)


def lint(folder: Path) -> subprocess.CompletedProcess:
    code = "from importlinter.cli import lint_imports_command as lint; lint()"
    return run_python("-c", code, "--no-logo", "--no-cache", cwd=folder, check=False)


def test_imports_point_one_way() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said of a copy in which functions import AGAINST the arrows, and a file is new."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("codec", "experiments", "hydra_plugins"):
        for file in (ROOT / name).rglob("*.py"):
            copy = folder / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    shutil.copyfile(ROOT / "pyproject.toml", folder / "pyproject.toml")
    for importer, imported in AGAINST:
        with (folder / importer).open("a") as file:
            file.write(f"\n\ndef late() -> None:\n    import {imported}\n")
    (folder / "codec/novelty.py").touch()
    done = lint(folder)
    assert done.returncode == 1
    return done.stdout


@pytest.mark.parametrize(("importer", "imported"), AGAINST[:-1])
def test_an_import_the_other_way_is_refused_also_inside_a_function(importer, imported, refused: str) -> None:
    name = importer.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert re.search(rf"{name}\s+->\s+{imported}\s", refused), refused


def test_modules_of_one_folder_form_no_circle(refused: str) -> None:
    assert "No cycles are allowed in codec.data." in refused


def test_a_new_file_at_the_top_of_codec_is_asked_for_its_place(refused: str) -> None:
    assert "- codec.novelty\n" in refused
