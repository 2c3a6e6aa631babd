"""Online, offline or not at all: what `wandb.init` is asked for. No server is spoken to."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from conftest import composed
from hydra.utils import instantiate

from codec.training.loggers import where_to_look
from codec.training.wandb_logger import wandb_logger


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
            summary={"trainer/global_step": 0},
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


def test_with_a_key_the_run_is_online(initialised: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    login(monkeypatch, True)
    logger = wandb_logger("runs/small-0123abcd", "quintet", entity="us", group="g", tags=["a", "b", "a"])
    assert where_to_look([logger]) == "W&B: https://wandb.example/r"
    assert initialised["mode"] == "online"
    assert (initialised["id"], initialised["resume"]) == ("small-0123abcd", None)
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


def test_wandbs_own_variables_are_heeded(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login(monkeypatch, True)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = {"MODE": "dryrun", "PROJECT": "mine", "ENTITY": "us", "NAME": "first", "DIR": "~/elsewhere"}
    for name, value in asked.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    settings = composed("train", ["logger=wandb", f"folder={tmp_path}/small-0123abcd"]).logger.wandb
    assert instantiate(settings).experiment is not None
    assert (initialised["mode"], initialised["project"], initialised["entity"]) == ("offline", "mine", "us")
    assert (initialised["name"], initialised["dir"]) == ("first", str(elsewhere))
    assert initialised["id"] == "small-0123abcd"


def checkpointed(folder: Path, *starts: str) -> Path:
    """A run's folder with a checkpoint to resume from, and with the W&B files of earlier `starts`."""
    run = folder / "my run-0123abcd"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    for start in starts:
        (run / "wandb" / start).mkdir(parents=True)
        (run / "wandb" / start / f"run-{run.name}.wandb").write_bytes(b":W&B\xbe\xe1\x00")
    return run


@pytest.mark.parametrize("key", [True, False])
def test_a_resumed_training_continues_its_run(
    key: bool, initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login(monkeypatch, key)
    run = checkpointed(tmp_path)
    assert wandb_logger(str(run), "quintet").experiment is not None
    assert (initialised["mode"], initialised["id"]) == ("online" if key else "offline", run.name)
    assert initialised["resume"] == "allow"


def test_a_training_that_begins_anew_sets_the_offline_files_of_earlier_ones_aside(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login(monkeypatch, False)
    run = checkpointed(tmp_path, "offline-run-1-my")
    logger = wandb_logger(str(run), "quintet")
    (run / "checkpoints/last.ckpt").unlink()  # as resume=false does, once the logger is made
    assert logger.experiment is not None
    assert initialised["resume"] is None
    assert [path.name for path in run.glob("wandb/*")] == ["set_aside"]


def test_what_began_offline_stays_offline_until_it_is_uploaded(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    login(monkeypatch, True)
    run = checkpointed(tmp_path, "offline-run-1-my")
    assert wandb_logger(str(run), "quintet").experiment is not None
    assert initialised["mode"] == "offline"
    assert capfd.readouterr().err == "W&B: offline, since the beginning of this run is not uploaded yet\n"
    (run / f"wandb/offline-run-1-my/run-{run.name}.wandb.synced").touch()
    assert wandb_logger(str(run), "quintet").experiment is not None
    assert initialised["mode"] == "online"


def test_all_starts_of_an_offline_run_are_named_for_the_upload(
    initialised: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    login(monkeypatch, False)
    run = checkpointed(tmp_path)
    assert where_to_look([wandb_logger(str(run), "quintet")]).endswith(f"wandb sync '{run}/wandb'")


@pytest.mark.parametrize("thumbnails", [-1, 2.5, None])
def test_a_wrong_number_of_thumbnails_is_refused(thumbnails: object, initialised: dict) -> None:
    with pytest.raises(ValueError, match="thumbnails=.*: allowed are the integers from 0"):
        wandb_logger("runs/small-0123abcd", "quintet", thumbnails=thumbnails)
