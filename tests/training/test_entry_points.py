"""Every command tells torch's threads to wait without spinning, before torch is there to start them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# Python imports this at its start. Where torch is first imported it says how threads will wait, and ends Python.
LOOKOUT = """
import atexit, os, sys

def say():
    print("waits:", os.environ.get("OMP_WAIT_POLICY"), flush=True)

class Lookout:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            say()
            os._exit(0)

atexit.register(say)
sys.meta_path.insert(0, Lookout())
"""
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
    for folder in ("codec", "experiments")
    for file in (ROOT / folder).rglob("*.py")
    if "__main__" in file.read_text()
)
COMMANDS = [["train.py"], ["evaluate.py"], *(["-m", module] for module in MODULES)]


@pytest.fixture
def lookout(tmp_path: Path) -> dict[str, str]:
    """An environment in which no process gets as far as torch."""
    (tmp_path / "sitecustomize.py").write_text(LOOKOUT)
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return {**kept, "PYTHONPATH": f"{tmp_path}:{ROOT}"}


def waits(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("waits: ")]
    return lines[-1] if lines else done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_has_threads_wait_without_spinning(command: list[str], lookout: dict[str, str]) -> None:
    assert waits(command, lookout) == "waits: passive"


def test_what_the_user_says_of_waiting_threads_stays(lookout: dict[str, str]) -> None:
    assert waits(["-m", "experiments.bench"], {**lookout, "OMP_WAIT_POLICY": "active"}) == "waits: active"
