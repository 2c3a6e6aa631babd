"""`~` in a config is the home folder, wherever it stands; where there is none, one line says so."""

from pathlib import Path

import pytest
from conftest import composed
from omegaconf import OmegaConf
from sweeping import planned

from codec.errors import ConfigError
from codec.training.paths import expand_home
from codec.training.run_folder import RunFolder


def test_every_path_of_a_config_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = (
        "name=a",
        "runs='~/r'",
        "start_from='~/s'",
        "data=folder",
        "data.train.root='~/p'",
        "data.train.test_root='~/t'",
    )
    config = composed("train", [*given, "+further=['~/a',b]"])
    expand_home(config)
    assert (config.runs, config.start_from, config.further[0]) == ("/home/me/r", "/home/me/s", "/home/me/a")
    assert (config.data.train.root, config.data.test.test_root) == ("/home/me/p", "/home/me/t")
    assert RunFolder.of(config).path.parent == Path("/home/me/r")
    assert "~" not in OmegaConf.to_yaml(config, resolve=True)


def test_so_may_a_path_that_the_environment_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("QUINTET_DATA", "~/data")
    config = composed("evaluate", ["data=kodak", "run='~/runs/a'"])
    expand_home(config)
    assert (config.data.test.root, config.run) == ("/home/me/data/kodak", "/home/me/runs/a")


def test_a_sweep_and_its_jobs_are_below_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    job, config = planned(tmp_path, "runs='~/r'")
    assert job.run.path.parent == tmp_path / "r"
    assert config.hydra.sweep.dir.startswith(f"{tmp_path}/r/sweeps/")


def test_an_unknown_home_folder_is_one_line_that_names_the_key() -> None:
    config = composed("train", ["data=folder", "data.train.root='~nobody-at-all/p'"])
    with pytest.raises(ConfigError, match=r"^data\.train\.root=~nobody-at-all/p: there is no such home folder"):
        expand_home(config)
