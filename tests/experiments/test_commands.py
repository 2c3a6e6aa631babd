"""The commands that people are told of are there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

TOLD = re.compile(r"(?:python|\$\(BIN\)/python)\S* -m ((?:codec|experiments)[\w.]*\w)")


def texts() -> list[Path]:
    """What people read or `make` runs: documentation, help texts and errors, and the results' own pages."""
    folders = [ROOT / name for name in ("docs", "conf", "codec", "experiments", "hydra_plugins")]
    inside = [file for folder in folders for suffix in ("md", "py", "yaml") for file in folder.rglob(f"*.{suffix}")]
    return [ROOT / "README.md", ROOT / "Makefile", ROOT / "pyproject.toml", *inside]


def commands() -> dict[str, list[str]]:
    """`{module: files that tell of it}`."""
    told: dict[str, list[str]] = {}
    for file in texts():
        for module in TOLD.findall(file.read_text(encoding="utf-8")):
            told.setdefault(module, []).append(str(file.relative_to(ROOT)))
    return told


@pytest.mark.parametrize(("module", "files"), commands().items())
def test_every_module_that_is_named_as_a_command_is_one(module: str, files: list[str]) -> None:
    spec = find_spec(module)
    assert spec is not None, files
    if spec.submodule_search_locations is not None:
        spec = find_spec(f"{module}.__main__")
        assert spec is not None, files
    assert '\nif __name__ == "__main__":' in Path(spec.origin).read_text(encoding="utf-8"), files


def test_the_documentation_and_the_makefile_name_the_commands_of_experiments() -> None:
    guides = {"README.md", "Makefile", *(f"docs/{file.name}" for file in ROOT.glob("docs/*.md"))}
    guides |= {f"docs/how-to/{file.name}" for file in ROOT.glob("docs/how-to/*.md")}
    told = {module for module, files in commands().items() if guides & set(files)}
    there = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for file in (ROOT / "experiments").rglob("*.py")
        if '\nif __name__ == "__main__":' in file.read_text(encoding="utf-8")
    }
    # Both are run by their files, by Pythons in which nothing of ours is installed.
    assert there - told == {"experiments.install", "experiments.bench.compressai_worker"}
    assert told - there == {"codec.sweeps.status"}
