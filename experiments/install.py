"""`make setup`: installs what requirements.lock names, and this checkout, into the environment that runs it.

Every file that pip fetches by the lock has to have a hash of the lock. On Linux, torch brings CUDA along; one
without it is taken from `--torch-index`, the address of an index of PyTorch's wheels for CPUs. Needs nothing beyond
Python's standard library.
"""

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FROM_TORCH_INDEX = ("torch", "torchvision")
OF_CUDA = ("nvidia-", "cuda-", "triton")
# GB to download and on disk, of Python 3.11 on Linux x86-64, those without CUDA by the sizes of the wheels; minutes
# as reckoned for 100 Mbit/s and 2 cores to unpack.
COST = {"cuda": (3.3, 6.5, 8), "cpu": (0.5, 1.7, 2)}


def main() -> None:
    """Says what it will cost, then installs; ends with pip's status where pip fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-index", metavar="URL", default="", help="torch and torchvision come from there")
    index = parser.parse_args().torch_index
    kind = "cuda" if platform.system() == "Linux" and not index else "cpu"
    packages = locked((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    pins = {name: packages[name].split()[0] for name in FROM_TORCH_INDEX}
    if installed("torch") == pins["torch"].rpartition("=")[2]:  # as it is: with CUDA or without
        kind = "cuda" if installed("nvidia-cublas") else "cpu"
        if index:
            print(f"torch is there already, with{'out' * (kind == 'cpu')} CUDA: make clean first to change that")
    else:
        announce(kind)
        if index:  # its files have no hash in the lock: pip compares them with those of the index
            local = "+cpu" if platform.system() != "Darwin" else ""
            pip("--no-deps", "--index-url", index, *(f"{pin}{local}" for pin in pins.values()))
    # What builds the others comes first, so that nothing is fetched that the lock does not name.
    install([packages["setuptools"]])
    install([lines for name, lines in packages.items() if kind == "cuda" or not name.startswith(OF_CUDA)])
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def locked(text: str) -> dict[str, str]:
    """`{name: its lines}` of a lock: name==version, markers, and hashes."""
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    return {block.partition("==")[0]: block for block in blocks}


def installed(name: str) -> str | None:
    """The installed version, without what follows its `+`; None where there is none."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def announce(kind: str) -> None:
    """Says what the installation takes; ends the process where the disk has less."""
    download, on_disk, minutes = COST[kind]
    free = shutil.disk_usage(sys.prefix).free / 1e9
    if free < on_disk:
        sys.exit(f"error: the packages take {on_disk} GB in {sys.prefix}, {free:.1f} GB are free there")
    print(
        f"torch {'with CUDA' if kind == 'cuda' else 'for the CPU'} and the other packages: about {download} GB to "
        f"download, {on_disk} GB on disk, {minutes} minutes at 100 Mbit/s",
        flush=True,
    )
    if kind == "cuda" and not has_gpu():
        print(
            "no NVIDIA GPU is here: make setup TORCH_INDEX=URL takes torch without CUDA, 0.5 GB in all, from an "
            "index of PyTorch's wheels for CPUs; its installation page names one",
            flush=True,
        )


def has_gpu() -> bool:
    """Whether an NVIDIA driver is here."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def install(blocks: Iterable[str]) -> None:
    """Installs these parts of the lock."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("".join(blocks), encoding="utf-8")
        pip("--require-hashes", "--no-deps", "--no-build-isolation", "--requirement", str(file))


def pip(*arguments: str) -> None:
    """Runs `pip install`, with its progress on the terminal; ends with its status where it fails."""
    status = subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
