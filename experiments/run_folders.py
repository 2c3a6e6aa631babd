"""Run folders as a command line names them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from codec.run_names import paths_called, without_hash


def find_runs(pattern: str, holding: str = "results.json") -> list[Path]:
    """The folders called `pattern` that hold a file named `holding`; both may have *.

    The hash at the end of a run folder's name may be left out. Raises ValueError where there is no such folder.
    """
    folders = [folder for folder in paths_called(pattern.rstrip("/")) if any(folder.glob(holding))]
    if not folders:
        raise ValueError(f"no {holding} in {pattern or 'nothing'}")
    return folders


def named(folders: Iterable[Path]) -> dict[str, Path]:
    """The folders by their names, without the hash where that leaves the name the only one."""
    folders = list(dict.fromkeys(folders))
    short = {folder: without_hash(folder.resolve().name) for folder in folders}
    counts = Counter(short.values())
    return {short[folder] if counts[short[folder]] == 1 else str(folder): folder for folder in folders}
