"""A wheel, installed where nothing of the checkout is: all that the package can do works there too."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from conftest import ROOT, folder_of
from torch import Tensor

from codec.data.image_file import read_image, write_image
from codec.entropy.coder import _built_by_this_environment
from codec.errors import DISTRIBUTION

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
# Found by their path, without what installs the checkout into this environment.
LIBRARIES = sysconfig.get_paths()["purelib"]
SMALL = (
    *("debug=one_step", "data=samples", "data.limit=3", "data.crop_size=64", "data.num_workers=0"),
    *("data.batch_size=2", "model.widths=[8,8]", "model.latent_channels=4", "logger=csv", "strategy=cpu"),
)
CODE = """
import sys
from codec.cli import main
main(["compress", "photo.png", "photo.qnt"]) or sys.exit(main(["decompress", "photo.qnt", "decoded.png"]))
"""


def run(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess:
    with _built_by_this_environment():  # which has compiled torchac already
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of an environment are that has the wheel, beside the libraries of this one.

    It lies in a git repository that is not ours.
    """
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("codec", "conf", "experiments", "hydra_plugins"):
        shutil.copytree(
            ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("*.svg", "*.png", "*.jpg")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip"]
    run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, "./source"],
        folder,
    )
    shutil.rmtree(folder / "source")
    (wheel,) = folder.glob("*.whl")
    theirs = folder / "theirs"
    theirs.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    run([*git, "init"], theirs)
    run([*git, "commit", "--allow-empty", "--message", "theirs"], theirs)
    venv.create(theirs / ".venv", with_pip=False)
    python = theirs / ".venv/bin/python"
    run([*pip, "--python", python, "install", "--no-deps", "--no-index", "--no-compile", wheel], folder)
    (libraries,) = (theirs / ".venv/lib").glob("python*/site-packages")
    (libraries / "libraries.pth").write_text(LIBRARIES + "\n")
    return python.parent


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


def test_nothing_of_the_checkout_is_seen(scripts: Path, empty: Path) -> None:
    code = "import codec, experiments, hydra_plugins.quintet_launchers as h; print(codec, experiments, h)"
    printed = run([scripts / "python", "-c", code], empty).stdout
    assert printed.count(str(scripts.parent)) == 3


def test_it_has_every_file_of_conf_of_the_weights_and_of_the_tables_plans(scripts: Path) -> None:
    (libraries,) = scripts.parent.glob("lib/python*/site-packages")
    for there, here in {
        "codec/conf": ROOT / "conf",
        "codec/pretrained": ROOT / "codec/pretrained",
        "experiments/tables/plans": ROOT / "experiments/tables/plans",
    }.items():
        wanted = {path.relative_to(here) for path in here.rglob("*.*") if "__pycache__" not in path.parts}
        assert {path.relative_to(libraries / there) for path in (libraries / there).rglob("*.*")} == wanted


def test_it_writes_a_report_of_the_packages_points(scripts: Path, empty: Path) -> None:
    run([scripts / "python", "-m", "experiments.report", "--no-pictures"], empty)
    assert "diffusion_wavelet" in (empty / "runs/report.html").read_text(encoding="utf-8")


def test_the_command_lists_codes_and_decodes(scripts: Path, empty: Path, photographs: list[Tensor]) -> None:
    assert "diffusion_wavelet" in run([scripts / "codec", "models"], empty).stdout
    write_image(empty / "photo.png", photographs[0][:, :64, :96].contiguous())
    run([scripts / "python", "-c", CODE], empty)
    assert read_image(empty / "decoded.png").shape == (3, 64, 96)
    assert (empty / "photo.qnt").stat().st_size < 64 * 96


def test_it_trains_a_step_evaluates_and_says_of_which_version(scripts: Path, empty: Path) -> None:
    run([scripts / "quintet-train", *SMALL], empty)
    trained = folder_of(empty / "runs", "debug_one_step")
    results = json.loads((trained / "results.json").read_text())
    assert results["images"] == 1
    assert results["commit"] == VERSION
    assert (trained / "provenance/commit.txt").read_text() == f"not a git checkout; {DISTRIBUTION} {VERSION}\n"
    run([scripts / "quintet-evaluate", "model=png", "data=samples", "data.limit=3", "name=png"], empty)
    measured = json.loads((folder_of(empty / "runs", "png") / "results.json").read_text())
    assert measured["psnr"] == "inf"


def test_its_points_are_compared_and_its_tables_are_written_where_they_are_made(scripts: Path, empty: Path) -> None:
    command = [scripts / "python", "-m", "experiments.tables.bd_rate", "--data", "kodak", "--anchor", "jpeg"]
    printed = run([*command, "--codecs", "jpeg,webp", "--published", "vtm"], empty).stdout
    assert "webp" in printed
    assert "vtm" in printed
    code = (
        "from experiments.points import POINTS, record, read_points as read; record([], POINTS); print(len(read()))"
    )
    known = int(run([scripts / "python", "-c", code], empty).stdout)
    assert len((empty / "results/points.csv").read_text().splitlines()) == known + 1 > 100
