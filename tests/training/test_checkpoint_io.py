"""Checkpoints are written whole or not at all, and a torn one costs a run nothing but what came after another."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import made, save
from conftest import composed
from full_disk import fill, small_disk

from codec.checkpoint import load_codec
from codec.checkpoint_files import find_checkpoint, is_whole
from codec.training.assembly import training_parts
from codec.training.checkpoint_io import WholeCheckpoints, checkpoint_to_resume

TEARS = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "no zip": lambda data: b"weights" * 1000,
    "a lost block": lambda data: data[:4096] + bytes(4096) + data[8192:],
}


class Kills:
    """Ends its process, without any clearing up, when it is saved."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A run's folder of checkpoints: the last of step 6, the best of step 4, and weights alone of step 5."""
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    for name, step in (("last", 6), ("best", 4)):
        save(made(), folder / f"{name}.ckpt", global_step=step, optimizer_states=[])
    save(made(), folder / "epoch_004.ckpt", global_step=5)
    return folder


def tear(file: Path, how: str) -> bytes:
    file.write_bytes(TEARS[how](file.read_bytes()))
    return file.read_bytes()


@pytest.mark.parametrize("strategy", ["auto", "cpu", "ddp"])
def test_every_training_writes_its_checkpoints_so(strategy: str) -> None:
    config = composed("train", [f"strategy={strategy}", "strategy.accelerator=cpu", "folder=runs/x"])
    assert isinstance(training_parts(config).trainer.strategy.checkpoint_io, WholeCheckpoints)


def test_nothing_is_written_to_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "is not there"))
    WholeCheckpoints().save_checkpoint({"step": torch.tensor(1)}, tmp_path / "new/last.ckpt")
    assert WholeCheckpoints().load_checkpoint(tmp_path / "new/last.ckpt", weights_only=True) == {"step": 1}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["last.ckpt"]


def test_a_kill_while_it_is_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"step": torch.tensor(1)}, last)
    child = os.fork()
    if child == 0:
        WholeCheckpoints().save_checkpoint({"step": torch.tensor(2), "then": Kills()}, last)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert torch.load(last, weights_only=True) == {"step": 1}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_full_disk_leaves_the_earlier_one_and_is_told_with_the_full_path(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disk.parent)
    last = Path("disk/last.ckpt")
    WholeCheckpoints().save_checkpoint({"step": 1}, last)
    fill(disk)
    with pytest.raises(OSError, match="No space left on device") as caught:
        WholeCheckpoints().save_checkpoint({"step": 2, "weights": torch.zeros(1000)}, last)
    assert str(caught.value) == f"[Errno 28] No space left on device: '{disk}/last.ckpt'"
    assert torch.load(last, weights_only=True) == {"step": 1}
    assert {path.name for path in disk.iterdir()} == {"filler", "last.ckpt"}


def test_a_whole_checkpoint_is_resumed_as_it_is(checkpoints: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(checkpoints.iterdir())
    assert checkpoint_to_resume(checkpoints) == checkpoints / "last.ckpt"
    assert sorted(checkpoints.iterdir()) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("how", TEARS)
def test_a_torn_last_checkpoint_is_kept_and_replaced_by_the_newest_that_can_be_resumed(
    how: str, checkpoints: Path, capsys: pytest.CaptureFixture
) -> None:
    last = checkpoints / "last.ckpt"
    torn = tear(last, how)
    assert checkpoint_to_resume(checkpoints) == last
    assert torch.load(last, weights_only=True)["global_step"] == 4
    assert (checkpoints / "last.ckpt.torn").read_bytes() == torn
    assert capsys.readouterr().err == f"{last} is torn: going on from best.ckpt; it is kept as last.ckpt.torn\n"
    assert checkpoint_to_resume(checkpoints) == last


@pytest.mark.parametrize("how", TEARS)
def test_where_all_are_torn_training_begins_anew_and_says_so(
    how: str, checkpoints: Path, capsys: pytest.CaptureFixture
) -> None:
    torn = [tear(checkpoints / f"{name}.ckpt", how) for name in ("last", "best")]
    assert checkpoint_to_resume(checkpoints) is None
    assert "last.ckpt is torn: training begins anew; it is kept as last.ckpt.torn" in capsys.readouterr().err
    assert [(checkpoints / name).read_bytes() for name in ("last.ckpt.torn", "best.ckpt")] == torn
    assert not (checkpoints / "last.ckpt").exists()


@pytest.mark.parametrize("how", [how for how in TEARS if how != "a lost block"])
def test_a_torn_best_checkpoint_is_said_and_the_last_one_used(
    how: str, checkpoints: Path, capsys: pytest.CaptureFixture
) -> None:
    tear(checkpoints / "best.ckpt", how)
    assert find_checkpoint(checkpoints.parent) == checkpoints / "last.ckpt"
    assert load_codec(checkpoints.parent).fingerprint() == made().fingerprint()
    assert capsys.readouterr().err == f"{checkpoints / 'best.ckpt'} is torn: last.ckpt is used instead\n"
    tear(checkpoints / "last.ckpt", how)
    assert find_checkpoint(checkpoints.parent) == checkpoints / "best.ckpt"


def test_a_lost_block_is_seen_in_the_checksums(checkpoints: Path) -> None:
    tear(checkpoints / "best.ckpt", "a lost block")
    assert is_whole(checkpoints / "best.ckpt")
    assert not is_whole(checkpoints / "best.ckpt", every_byte=True)
