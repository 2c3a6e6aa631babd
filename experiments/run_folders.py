"""Run folders as a command line names them."""

import glob
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def find_runs(pattern: str, holding: str = "results.json") -> list[Path]:
    """The folders named `pattern` that hold a file named `holding`; both may have *.

    The hash at the end of a run folder's name may be left out. Raises ValueError where there is no such folder.
    """
    bare = pattern.rstrip("/")
    names = [name for form in (bare, f"{bare}-{'[0-9a-f]' * 8}") for name in sorted(glob.glob(form))]  # noqa: PTH207
    folders = [Path(name) for name in dict.fromkeys(names) if any(Path(name).glob(holding))]
    if not folders:
        raise ValueError(f"no {holding} in {pattern or 'nothing'}")
    return folders


def named(folders: Iterable[Path]) -> dict[str, Path]:
    """The folders by their names, without the hash where that leaves the name the only one."""
    folders = list(dict.fromkeys(folders))
    short = {folder: re.sub("-[0-9a-f]{8}$", "", folder.resolve().name) for folder in folders}
    counts = Counter(short.values())
    return {short[folder] if counts[short[folder]] == 1 else str(folder): folder for folder in folders}
