"""Provenance: which code, packages and machine something was made by."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import DISTRIBUTION

if TYPE_CHECKING:
    import torch


def write_provenance(folder: Path, precision: str | None = None) -> None:
    """Adds this start's to those of earlier ones: command, commit and changes to it, packages, `precision`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "commands.txt").open("a") as file:
        file.write(shlex.join([Path(sys.executable).name, *sys.argv]) + "\n")
    start = sum(1 for _ in folder.glob("commit*.txt"))
    suffix = f"-{start}" if start else ""
    head = _git("rev-parse", "HEAD") or f"not a git checkout; {DISTRIBUTION} {version() or 'of no version'}\n"
    (folder / f"commit{suffix}.txt").write_text(head)
    new = _git("ls-files", "--others", "--exclude-standard", "*.py", "*.yaml").splitlines()
    added = "".join(_git("diff", "--no-index", "/dev/null", name, expected=1) for name in new)
    (folder / f"changes{suffix}.diff").write_text(_git("diff", "HEAD") + added, encoding="utf-8")
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions())
    (folder / f"packages{suffix}.txt").write_text("\n".join(packages) + "\n")
    if precision is not None:
        (folder / f"precision{suffix}.txt").write_text(f"{precision}\n")


def commit() -> str:
    """The checkout's commit, with "+changes" where its files were changed; outside a checkout the version.

    Tables are no change: what they say depends on nothing in them. "unknown" where nothing is installed either.
    """
    head = _git("rev-parse", "--short", "HEAD").strip()
    if not head:
        return version() or "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!experiments/results")
    return f"{head}{'+changes' if changed else ''}"


def version() -> str | None:
    """The version of this package that is installed, None where the code is used without an installation."""
    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return None


def hardware(device: "torch.device") -> str:
    """What codes or trains there, in words: "1 thread of 2, AMD EPYC 7B13", "NVIDIA H200"."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpus.read_text()) if cpus.is_file() else None
    threads = torch.get_num_threads()
    processor = " ".join(named[1].split()) if named else platform.processor() or platform.machine()
    return f"{threads} thread{'s' * (threads > 1)} of {os.cpu_count()}, {processor}"


def _git(*arguments: str, expected: int = 0) -> str:
    """What git says of the repository that this package is a part of; nothing where there is none."""
    package = Path(__file__).resolve().parents[1]
    # An environment in which a wheel is installed can lie in somebody's own repository, which ignores it.
    return _run_git(package.parent, *arguments, expected=expected) if _run_git(package, "ls-files", ".") else ""


def _run_git(here: Path, *arguments: str, expected: int = 0) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=here,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == expected else ""
