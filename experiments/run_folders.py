"""Run folders as a command line names them."""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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


def image_rows(folder: Path) -> list[dict[str, str]]:
    """What a finished run's folder holds of each image, as texts."""
    with (folder / "per_image.csv").open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def warn_of_other_images(runs: Mapping[str, Sequence[Path]], compared: str) -> None:
    """Says which of `runs`, finished ones by name, are not of the same images: their `compared` do not compare.

    Images are told apart by name; where a folder does not tell them, nothing is said of it.
    """
    images = {name: {_image_names(folder) for folder in of} - {None} for name, of in runs.items()}
    first = None
    for name, found in images.items():
        if len(found) > 1:
            print(f"{name} is of different images: its {compared} do not compare", file=sys.stderr)
        elif found and first is None:
            first = name
        elif found and found != images[first]:
            said = f"{name} and {first} are not of the same images"
            print(f"{said}: their {compared} do not compare", file=sys.stderr)


def _image_names(folder: Path) -> frozenset[str] | None:
    if not (folder / "per_image.csv").is_file():
        return None
    return frozenset(row["name"] for row in image_rows(folder))
