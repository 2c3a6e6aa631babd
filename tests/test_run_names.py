"""A run's folder by its name, with and without the hash."""

import os
from pathlib import Path

import pytest

from codec.checkpoint_files import find_checkpoint
from codec.errors import CheckpointError
from codec.run_names import paths_called, without_hash
from experiments.run_folders import find_runs, named

RUNS = ("runs/a", "runs/a-0123abcd", "runs/b-89abcdef", "runs/b-c-00000000", "runs/[x]-00000000")


@pytest.fixture(autouse=True)
def runs(here: Path) -> None:
    for run in RUNS:
        (here / run / "checkpoints").mkdir(parents=True)
        (here / run / "checkpoints/best.ckpt").touch()
        (here / run / "results.json").touch()


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("b-c-00000000", "b-c"),
        ("q=50,80-0123abcd", "q=50,80"),
        ("a", "a"),
        ("a-0123abc", "a-0123abc"),
        ("a-0123abcde", "a-0123abcde"),
        ("a-0123ABCD", "a-0123ABCD"),
        ("a-0123abcd.ckpt", "a-0123abcd.ckpt"),
    ],
)
def test_a_hash_is_eight_digits_at_the_end(folder: str, name: str) -> None:
    assert without_hash(folder) == name


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("runs/a", ["runs/a", "runs/a-0123abcd"]),
        ("runs/a-0123abcd", ["runs/a-0123abcd"]),
        ("runs/b", ["runs/b-89abcdef"]),
        ("runs/b*", ["runs/b-89abcdef", "runs/b-c-00000000"]),
        ("runs/none", []),
        ("", []),
    ],
)
def test_what_is_called_so_comes_first_and_each_once(pattern: str, found: list[str]) -> None:
    assert list(map(str, paths_called(pattern))) == found


def test_a_checkpoint_is_that_of_the_one_folder_that_is_meant() -> None:
    for name, folder in {"a": "a", "b": "b-89abcdef", "[x]": "[x]-00000000"}.items():
        assert find_checkpoint(f"runs/{name}") == Path("runs", folder, "checkpoints/best.ckpt")
    Path("runs/b-00000000").mkdir()
    for newest, other in (("b-00000000", "b-89abcdef"), ("b-89abcdef", "b-00000000")):
        os.utime(f"runs/{newest}", (2e9, 2e9))
        os.utime(f"runs/{other}", (1e9, 1e9))
        with pytest.raises(CheckpointError, match=f"whole name of one, runs/{newest}, the newest, or {other}$"):
            find_checkpoint("runs/b")
    with pytest.raises(CheckpointError, match=r"no checkpoint at runs/\*:"):
        find_checkpoint("runs/*")  # a name is no pattern


def test_runs_are_folders_that_hold_what_is_wanted() -> None:
    Path("runs/a/results.json").unlink()
    assert find_runs("runs/a/") == [Path("runs/a-0123abcd")]
    with pytest.raises(ValueError, match=r"no metrics/\*\.csv in runs/a"):
        find_runs("runs/a", "metrics/*.csv")


def test_runs_are_told_by_their_names_unless_two_share_one() -> None:
    first, second, other = Path("runs/a"), Path("runs/a-0123abcd"), Path("runs/b-89abcdef")
    assert named([first, second, other, other]) == {str(first): first, str(second): second, "b": other}
