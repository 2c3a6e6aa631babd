"""What a source of images is, and what all sources share: splits by seed, threads, one-line faults."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from rich import get_console
from rich.progress import track

from codec.data.image_list import printable
from codec.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


FETCH = "put QUINTET_DOWNLOAD=true before the command, which then fetches them"


class SourceError(UserError, ValueError):
    """A source that has no images to give; `key` is its argument at fault, as in "root"."""


class ImageSource(Protocol):
    """Where images come from. The constructor only stores and checks its arguments (ValueError)."""

    def prepare(self) -> None:
        """Downloads and builds what is missing; called by one process. Raises SourceError, DownloadError."""

    def images(self, split: str) -> list[Path]:
        """The image files of `split`, "train" or "test", in an order that never changes. Raises SourceError."""


def check_folder(name: str, folder: Path, remedy: str) -> None:
    """Raises SourceError unless `folder`, the value of argument `name`, is a folder."""
    if not folder.is_dir():
        raise SourceError(name, folder, f"no such folder: {remedy}")


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """`names` in an order that depends on nothing but each name and the seed.

    So a subset (the first N) or a split grows and shrinks with the folder instead of being drawn anew.
    """
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def hold_out(names: Mapping[Path, str], fraction: float, seed: int) -> tuple[list[Path], list[Path]]:
    """Splits named paths into (kept, held out), the second of round(fraction · N) images, each in the given order.

    Which ones is a function of the seed and the names.
    """
    held = set(shuffled(names.values(), seed)[: round(fraction * len(names))])
    kept = [path for path, name in names.items() if name not in held]
    return kept, [path for path, name in names.items() if name in held]


def named(paths: Sequence[Path]) -> dict[Path, str]:
    """Each path, in this order, and its name of `relative_names`."""
    return dict(zip(paths, relative_names(paths), strict=True))


def relative_names(paths: Sequence[Path]) -> list[str]:
    """The paths relative to the deepest folder that holds them all, with forward slashes, as printable text."""
    if not paths:
        return []
    # Of several sources one may be given by a relative path, one by an absolute.
    absolute = [Path(os.path.normpath(path.absolute())) for path in paths]
    root = os.path.commonpath([path.parent for path in absolute])
    return [printable(path.relative_to(root).as_posix()) for path in absolute]


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """`[function(item) for item in items]` with a progress bar; image decoders run beside each other in threads."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        quiet = len(items) < 2 or not get_console().is_terminal  # a log would keep an empty line of each bar
        results = pool.map(function, items)
        return list(track(results, description=title, total=len(items), transient=True, disable=quiet))
