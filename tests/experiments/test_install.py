"""What `make setup` installs: the lock names every package once, exactly and by hashes, and fits pyproject.toml."""

import re
import tomllib
from types import SimpleNamespace

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from codec.errors import DISTRIBUTION
from experiments import install

LOCK = install.locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]


def test_every_package_of_the_lock_is_pinned_and_hashed() -> None:
    assert len(LOCK) > 100
    for name, lines in LOCK.items():
        first, *hashes = lines.replace(" \\", "").splitlines()
        assert re.fullmatch(rf"{name}==[\w.]+( ; .+)?", first)
        assert hashes, name
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), name


def test_the_lock_meets_what_the_project_and_all_its_extras_ask_for() -> None:
    extras = PROJECT["optional-dependencies"].values()
    asked = map(Requirement, (*PROJECT["dependencies"], *(line for extra in extras for line in extra)))
    for requirement in asked:
        if requirement.name != DISTRIBUTION:
            (pinned,) = Requirement(
                LOCK[canonicalize_name(requirement.name)].splitlines()[0].strip(" \\")
            ).specifier
            assert requirement.specifier.contains(pinned.version), requirement


def test_the_distribution_is_called_what_error_texts_say_and_its_extras_are_all_for_developers() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    (own,) = (line for line in PROJECT["optional-dependencies"]["dev"] if Requirement(line).name == DISTRIBUTION)
    assert Requirement(own).extras == PROJECT["optional-dependencies"].keys() - {"dev"}


def test_every_package_of_the_checkout_is_in_the_wheel() -> None:
    tops = ("codec", "experiments")
    found = {
        ".".join(file.parent.relative_to(ROOT).parts) for top in tops for file in (ROOT / top).rglob("__init__.py")
    }
    found |= {f"hydra_plugins.{folder.parent.name}" for folder in (ROOT / "hydra_plugins").glob("*/__init__.py")}
    assert set(SETUPTOOLS["packages"]) == found | {"codec.conf"}


def test_without_cuda_all_is_installed_but_what_is_for_it() -> None:
    left_out = {name for name in LOCK if name.startswith(install.OF_CUDA)}
    assert {"triton", "nvidia-cublas", "nvidia-cudnn-cu13", "cuda-toolkit"} < left_out
    assert all("sys_platform == 'linux'" in LOCK[name] for name in left_out)


@pytest.mark.parametrize("kind", install.COST)
def test_the_cost_is_told_first_and_a_disk_that_is_too_small_refused(kind, monkeypatch, capsys) -> None:
    download, on_disk, _ = install.COST[kind]
    install.announce(kind)
    assert f"about {download} GB to download, {on_disk} GB on disk" in capsys.readouterr().out
    monkeypatch.setattr(install.shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    with pytest.raises(SystemExit, match=rf"^error: the packages take {on_disk} GB in .+, 1\.0 GB are free there$"):
        install.announce(kind)
