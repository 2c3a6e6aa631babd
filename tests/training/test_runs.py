"""Run folders: the same request finds the same folder, and the folder tells how it was made."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from codec.run_names import without_hash
from codec.training import provenance
from codec.training.config import ConfigError
from codec.training.provenance import commit
from codec.training.run_folder import RunFolder, choices, folder_of


def folder(*overrides: str, name: str = "a", config_name: str = "train") -> Path:
    return RunFolder.of(composed(config_name, [f"name={name}", *overrides])).path


@pytest.fixture
def hydra_job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes this process the Hydra job of the given choices."""

    def start(**chosen: str | None) -> None:
        config = OmegaConf.create({"hydra": {"runtime": {"choices": chosen}}})
        monkeypatch.setattr(HydraConfig.instance(), "cfg", config)

    return start


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout with one commit, in which the package is taken to lie."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    package = tmp_path / "checkout" / "codec"
    package.mkdir(parents=True)
    (package / "a.py").write_text("before\n")
    monkeypatch.setattr(provenance, "__file__", str(package / "training/provenance.py"))
    git(package.parent, "init")
    git(package, "add", ".")
    git(package, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-m", "first")
    return package.parent


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is taken to lie outside any git checkout."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "training/provenance.py"))
    monkeypatch.setattr(provenance, "version", lambda: "1.2.3")


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()


# ---- which folder


def test_the_same_request_finds_the_same_folder() -> None:
    assert folder() == folder()
    assert folder().parent == Path("runs")
    assert folder().name.startswith("a-")
    assert len(folder().name) == len("a-") + 8


def test_a_value_that_is_said_though_it_is_the_default_changes_nothing() -> None:
    assert folder("seed=0", "model=conv_baseline", "quantization.bits=6") == folder()


@pytest.mark.parametrize(
    "override",
    [
        "logger=csv",
        "logger=none",
        "logger.wandb.project=mine",
        "resume=false",
        "data.num_workers=7",
        "data.cache=false",
        "callbacks.progress.seconds=1",
        "~callbacks.progress",
        "callbacks.panel.images=1",
        "+expected={psnr: 23}",
    ],
)
def test_how_a_run_is_watched_does_not_move_it(override: str) -> None:
    assert folder(override) == folder()


def test_runs_moves_the_folder_and_keeps_its_name() -> None:
    assert folder("runs=else where/there") == Path("else where/there") / folder().name


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "epochs=21",
        "model=conv_enhanced",
        "model.latent_channels=8",
        "loss.rate_weight=0.001",
        "loss=vgg",
        "optimizer.lr=1e-4",
        "optimizer=adamw",
        "scheduler=cosine",
        "quantization=4bit",
        "data=bsd300",
        "data.crop_size=64",
        "strategy.precision=bf16-mixed",
        "callbacks=ema",
    ],
)
def test_what_a_run_computes_moves_it(override: str) -> None:
    assert folder(override) != folder()


def test_an_evaluation_is_not_moved_by_what_it_keeps() -> None:
    overrides = ("model=jpeg", "data=samples")
    plain = folder(*overrides, config_name="evaluate")
    assert folder(*overrides, "save_files=true", "logger=wandb", config_name="evaluate") == plain
    assert folder(*overrides, "model.quality=51", config_name="evaluate") != plain


def test_without_a_name_the_choices_are_the_name(hydra_job) -> None:
    hydra_job(model="conv_baseline", data="samples", quantization="6bit", loss="mse", experiment=None)
    assert folder(name="null").name.startswith("conv_baseline_samples_6bit_mse-")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=jpeg", "model.quality=20", "data=samples"], "jpeg-q20_on_samples"),
        (["model=jpeg2000", "data=samples"], "jpeg2000-ratio24_on_samples"),
        (["model=png", "data=samples"], "png_on_samples"),
        (["pretrained=diffusion_wavelet", "quality=30.5", "data=samples"], "diffusion_wavelet-q30.5_on_samples"),
        (["pretrained=conv_baseline", "data=samples"], "conv_baseline_on_samples"),
        (["run=runs/mine-01234567", "target_bpp=0.5", "data=samples"], "mine-01234567-bpp0.5_on_samples"),
        (["run=runs/lr0.01-01234567", "data=samples"], "lr0.01-01234567_on_samples"),
        (["model=jpeg", "target_bpp=0.5", "data=samples"], "jpeg-bpp0.5_on_samples"),
        (["model=webp_lossless", "data=samples"], "webp_lossless_on_samples"),
    ],
)
def test_an_evaluation_s_name_tells_the_rate_that_was_asked_for(
    overrides: list[str], name: str, hydra_job: Callable[..., None]
) -> None:
    hydra_job(**dict(option.split("=") for option in overrides if option.startswith(("model=", "data="))))
    assert without_hash(folder_of(composed("evaluate", overrides)).path.name) == name


@pytest.mark.parametrize("name", ["a b", "../a", "a/b", "'ä/'", "'a\nb'", "'a;b'", "'*'", "'a\\b'"])
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="^name=.*\n?.*: allowed are letters, digits"):
        folder(name=name)


@pytest.mark.parametrize("name", ["conv_6bit", "a.b", "a-b", "'a,b'", "'lr=3'", "a+b", "'été'", "7"])
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert folder(name=name).name.startswith(f"{name.strip(chr(39))}-")


def test_choices_are_the_options_of_the_job_without_those_that_are_null(hydra_job) -> None:
    hydra_job(model="jpeg", data="kodak", experiment=None)
    assert choices("experiment", "model", "loss", "data") == ["jpeg", "kodak"]


def test_outside_a_hydra_job_there_are_no_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    assert choices("model", "data") == []


# ---- what lies in it


def begun(path: Path, *overrides: str) -> RunFolder:
    config = composed("train", ["name=a", f"runs={path}", *overrides])
    run = RunFolder.of(config)
    config.folder = str(run.path)
    run.begin(config)
    return run


def test_begin_writes_the_resolved_config(tmp_path: Path) -> None:
    run = begun(tmp_path, "quantization=4bit")
    text = (run.path / "config.yaml").read_text()
    assert "${" not in text
    written = OmegaConf.create(text)
    assert written.model.bottleneck.bits == 4
    assert written.callbacks.best.dirpath == f"{run.path}/checkpoints"


def test_begin_writes_where_the_run_came_from(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "name=a", "data.train.root=two words"])
    (checkout / "codec/a.py").write_text("after\n")
    provenance = begun(tmp_path).path / "provenance"
    command = (provenance / "commands.txt").read_text()
    assert command == f"{Path(sys.executable).name} train.py name=a 'data.train.root=two words'\n"
    assert (provenance / "commit.txt").read_text().strip() == git(checkout, "rev-parse", "HEAD")
    assert "-before\n+after\n" in (provenance / "changes.diff").read_text()
    packages = (provenance / "packages.txt").read_text().splitlines()
    assert f"torch=={version('torch')}" in packages
    assert packages == sorted(packages)


def test_a_later_start_keeps_what_an_earlier_one_wrote(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "first"])
    provenance = begun(tmp_path).path / "provenance"
    first = {path.name: path.read_text() for path in provenance.iterdir()}
    (checkout / "codec/a.py").write_text("after\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "second"])
    begun(tmp_path)
    begun(tmp_path)
    kinds = ("commit{}.txt", "changes{}.diff", "packages{}.txt")
    wanted = {kind.format(suffix) for kind in kinds for suffix in ("", "-1", "-2")} | {"commands.txt"}
    assert {path.name for path in provenance.iterdir()} == wanted
    commands = (provenance / "commands.txt").read_text().splitlines()
    assert [command.split()[-1] for command in commands] == ["first", "second", "second"]
    assert all((provenance / name).read_text() == text for name, text in first.items() if name != "commands.txt")
    assert "+after" in (provenance / "changes-1.diff").read_text()


def test_begin_outside_a_checkout_says_the_version(tmp_path: Path, outside) -> None:
    provenance = begun(tmp_path).path / "provenance"
    assert (provenance / "commit.txt").read_text() == "not a git checkout; quintet-codec 1.2.3\n"
    assert (provenance / "changes.diff").read_text() == ""


def test_resume_false_starts_from_nothing_and_resume_true_from_what_is_there(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert (run.results, run.checkpoint_to_resume()) == (None, None)
    (run.path / "checkpoints").mkdir()
    torch.save({}, run.path / "checkpoints/last.ckpt")
    (run.path / "results.json").write_text(json.dumps({"psnr": 30.5}))
    run = begun(tmp_path)
    assert run.results == {"psnr": 30.5}
    assert run.checkpoint_to_resume() == run.path / "checkpoints/last.ckpt"
    run = begun(tmp_path, "resume=false")
    assert (run.results, run.checkpoint_to_resume()) == (None, None)
    assert not (run.path / "checkpoints").exists()


# ---- the commit in results


def test_commit_is_the_short_hash_and_tells_of_changes(checkout: Path) -> None:
    short = git(checkout, "rev-parse", "--short", "HEAD")
    assert commit() == short
    (checkout / "photo.jpg").write_text("a user's own file is no change of the program")
    assert commit() == short
    tracked = checkout / git(checkout, "ls-files").splitlines()[0]
    tracked.write_text(tracked.read_text() + "\n")
    assert commit() == f"{short}+changes"


def test_commit_is_the_version_where_the_checkout_around_the_package_does_not_hold_it(
    checkout: Path, outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = checkout / ".venv/codec"
    package.mkdir(parents=True)
    (package / "a.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "training/provenance.py"))
    assert git(package, "rev-parse", "HEAD")
    assert commit() == "1.2.3"


def test_commit_is_the_version_without_git(outside, checkout: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() == "1.2.3"


def test_commit_is_the_version_outside_a_checkout_and_unknown_where_nothing_is_installed(
    outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit() == "1.2.3"
    monkeypatch.setattr(provenance, "version", lambda: None)
    assert commit() == "unknown"
