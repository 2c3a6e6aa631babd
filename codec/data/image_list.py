"""Which files of a folder are images; torch, numpy and Pillow are not needed to know."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

SUFFIXES = frozenset(
    ".apng .avif .bmp .gif .jfif .jp2 .jpe .jpeg .jpg .jxl .mpo .pbm .pgm .png .pnm .ppm .tga .tif .tiff .webp".split()  # noqa: SIM905, E501
)


def _fail(error: OSError) -> None:
    raise error


def list_images(
    folder: str | Path, suffixes: Collection[str] = SUFFIXES, unreadable: Callable[[OSError], None] = _fail
) -> list[Path]:
    """All image files in `folder` and below, by suffix, in sorted order; hidden files and folders are left out.

    Links to folders are followed, but no folder is entered twice: its images are found where it really is, if that
    is in `folder`, else below the first link to it. Raises OSError for the first folder or file that cannot be
    looked at, unless `unreadable` takes such errors.
    """
    found: list[Path] = []
    entered: set[tuple[int, int]] = set()
    waiting = [Path(folder)]  # links come after all real folders
    while waiting:
        links: list[Path] = []
        for start in waiting:
            for here, folders, files in os.walk(start, onerror=unreadable):
                status = os.stat(here)  # noqa: PTH116  # a Path for every folder would only cost time
                identity = (status.st_dev, status.st_ino)
                if identity in entered:
                    folders.clear()
                    continue
                entered.add(identity)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                links += [Path(here, name) for name in folders if os.path.islink(os.path.join(here, name))]  # noqa: PTH114, PTH118
                found += [
                    Path(here, name)
                    for name in files
                    if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes  # noqa: PTH122
                ]
        waiting = sorted(links)
    return sorted(path for path in found if _is_file(path, unreadable))


def _is_file(path: Path, unreadable: Callable[[OSError], None]) -> bool:
    """False also for a link to nothing."""
    try:
        return path.is_file()
    except OSError as error:
        unreadable(error)
        return False


def printable(name: str | Path) -> str:
    """A path or a name as text that can be printed and stored: bytes that are not UTF-8 become hexadecimal."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
