"""Online, offline or not at all, and under which names: what `wandb.init` is asked for. No server is spoken to."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from codec.loggers import sweep_group, wandb_logger, where_to_look


@pytest.fixture
def initialised(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The arguments of the last `wandb.init`, which is replaced."""
    arguments: dict = {}

    def init(**given: object) -> SimpleNamespace:
        arguments.update(given)
        settings = SimpleNamespace(mode=given["mode"])
        return SimpleNamespace(
            settings=settings,
            url="https://wandb.example/r",
            dir=f"{given['dir']}/wandb/x/files",
            define_metric=lambda *_, **__: None,
        )

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", init)
    return arguments


def login(monkeypatch: pytest.MonkeyPatch, answer: bool | Exception) -> None:
    def replaced(prompt: bool = True) -> bool:
        assert not prompt
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(wandb, "login", replaced)


def test_with_a_key_the_run_is_online_and_a_resumed_one_continues_it(
    initialised: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch, True)
    logger = wandb_logger("runs/small-0123abcd", "quintet", entity="us", group="g", tags=["a", "b", "a"])
    assert where_to_look([logger]) == "W&B: https://wandb.example/r"
    assert initialised["mode"] == "online"
    assert (initialised["id"], initialised["resume"]) == ("small-0123abcd", "allow")
    assert (initialised["name"], initialised["dir"]) == ("small", "runs/small-0123abcd")
    assert (initialised["project"], initialised["entity"], initialised["group"]) == ("quintet", "us", "g")
    assert (initialised["tags"], initialised["job_type"]) == (["a", "b"], "train")


def test_without_a_key_it_is_offline_and_silent(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    login(monkeypatch, False)
    assert wandb_logger("runs/small-0123abcd", "quintet").experiment is not None
    assert (initialised["mode"], initialised["resume"], initialised["group"]) == ("offline", None, None)
    assert capfd.readouterr() == ("", "")


def test_with_a_key_and_no_way_to_the_server_it_is_offline_and_says_so_in_one_line(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    login(monkeypatch, wandb.errors.AuthenticationError("cannot reach the server\nat all"))
    assert wandb_logger("runs/small-0123abcd", "quintet").experiment is not None
    assert initialised["mode"] == "offline"
    assert capfd.readouterr().err == "W&B: offline, since cannot reach the server\n"


@pytest.mark.parametrize(
    ("mode", "answer", "message"),
    [
        ("online", False, "WANDB_MODE=online: no API key"),
        ("online", wandb.errors.AuthenticationError("the key is wrong"), "WANDB_MODE=online: the key is wrong"),
        ("ofline", True, "WANDB_MODE=ofline: allowed are online, offline"),
    ],
)
def test_a_mode_that_cannot_be_had_is_refused(
    mode: str, answer: bool | Exception, message: str, initialised: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch, answer)
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(ValueError, match=message):
        wandb_logger("runs/small-0123abcd", "quintet")
    assert not initialised


def test_every_start_of_an_offline_run_is_named_for_the_upload(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login(monkeypatch, False)
    run = tmp_path / "my run-0123abcd"
    for start in ("offline-run-2", "offline-run-1"):
        (run / "wandb" / start).mkdir(parents=True)
    line = where_to_look([wandb_logger(str(run), "quintet")])
    assert line.endswith(f"wandb sync '{run}/wandb/offline-run-1' '{run}/wandb/offline-run-2'")


def test_a_sweep_of_many_overrides_has_a_group_that_wandb_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["hydra.mode=MULTIRUN"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    HydraConfig.instance().set_config(config)
    groups = set()
    for epochs in (20, 30):
        fixed = [f"epochs={epochs}", *(f"data.train.root=/{letter * 20}" for letter in "abcdef")]
        command = ["train.py", "-m", "logger.wandb.tags=[x]", *fixed, "loss.rate_weight=0.1,0.2"]
        monkeypatch.setattr(sys, "argv", command)
        groups.add(sweep_group())
    assert len(groups) == 2
    for group in groups:
        assert len(group) == 128
        assert group.startswith("loss.rate_weight=0.1,0.2 epochs=")


@pytest.mark.parametrize("thumbnails", [-1, 2.5, None])
def test_a_wrong_number_of_thumbnails_is_refused(thumbnails: object, initialised: dict) -> None:
    with pytest.raises(ValueError, match=f"thumbnails={thumbnails}: allowed are the integers from 0"):
        wandb_logger("runs/small-0123abcd", "quintet", thumbnails=thumbnails)
