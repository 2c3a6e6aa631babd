"""The README's commands and its sixth scheme are run as they stand there, in a copy of the checkout."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, make_codec, run_python
from torch import Tensor

from codec.data.image_file import write_image

README = (ROOT / "README.md").read_text()
# What makes a training of the README one of seconds; the folder's name stays what the README says.
QUICK = (
    "logger=csv epochs=1 data.num_workers=0 data.batch_size=2 trainer.limit_train_batches=1 "
    "trainer.limit_val_batches=1 trainer.limit_test_batches=1"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, photographs: list[Tensor]) -> Path:
    """The code without its past, beside a few photographs of a user."""
    for name in ("codec", "conf", "experiments", "hydra_plugins", "train.py", "evaluate.py"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    (tmp_path / "photos").mkdir()
    for n in range(12):
        write_image(tmp_path / f"photos/{n}.png", photographs[n % 3][:, n : n + 272, n : n + 272].contiguous())
    write_image(tmp_path / "photo.jpg", photographs[0])
    return tmp_path


def test_every_command_of_the_readme_works(checkout: Path) -> None:
    commands = [
        line for block in blocks("sh") for line in block.splitlines() if line and not line.startswith("source")
    ]
    assert len(commands) >= 10
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "codec":
            arguments = ["-m", "codec.cli", *arguments]
        elif arguments[0] == "train.py" and "--help" not in arguments:
            arguments += shlex.split(QUICK)
        assert program in ("codec", "python")
        run_python(*arguments, cwd=checkout, PYTHONPATH=str(checkout))
    assert (checkout / "decoded.png").is_file()
    assert len(list((checkout / "compressed").glob("*.qnt"))) == 12


def test_make_commands_of_the_readme_are_targets() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"`?make ([a-z-]+)", README)) - {"and"}
    assert {"demo", "test", "setup"} <= named <= set(targets)


def test_every_file_and_option_named_in_the_readme_exists() -> None:
    for link in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    for group, options in re.findall(r"^\| `(\w+)` \| (.*) \|$", README, re.MULTILINE):
        if group in ("model", "data", "loss", "prior", "strategy", "experiment"):
            known = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
            named = set(re.findall(r"`([a-z0-9_]+)`", options))
            assert named <= known, named - known


def test_a_sixth_scheme_costs_the_two_files_of_the_readme(checkout: Path) -> None:
    (code,), (config,) = blocks("python"), blocks("yaml")
    assert len(code.splitlines()) <= 25
    (checkout / "codec/schemes/tiny.py").write_text(code)
    (checkout / "conf/model/tiny.yaml").write_text(config)
    assert yaml.safe_load(config)["_target_"] == "codec.schemes.tiny.Tiny"
    environment = {"PYTHONPATH": str(checkout)}
    command = ["train.py", "model=tiny", "name=sixth", "data.limit=3", "strategy=cpu", *shlex.split(QUICK)]
    run_python(*command, cwd=checkout, **environment)
    for arguments in ("compress photo.jpg a.qnt", "decompress a.qnt a.png"):
        run_python("-m", "codec.cli", *arguments.split(), "--checkpoint", "runs/sixth", cwd=checkout, **environment)
    assert (checkout / "a.png").is_file()
    shutil.copytree(ROOT / "tests", checkout / "tests")
    shutil.copy(ROOT / "pyproject.toml", checkout)
    contract = ["-m", "pytest", "tests/test_contract.py", "-k", "tiny and not baseline and not format"]
    done = run_python(*contract, cwd=checkout, **environment)
    assert re.search(r"\d{2,} passed", done.stdout)


def test_schemes_import_no_other_scheme_and_stay_short() -> None:
    for path in (ROOT / "codec/schemes").glob("*.py"):
        text = path.read_text()
        assert "codec.schemes" not in text
        assert len(text.splitlines()) <= 350
    assert make_codec("conv_baseline").tag != make_codec("conv_enhanced").tag


def test_the_library_imports_nothing_from_above_it() -> None:
    for path in (ROOT / "codec").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (experiments|train|evaluate)\b", path.read_text(), re.MULTILINE), (
            path
        )
