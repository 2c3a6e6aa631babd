"""per_image.jsonl in a run's folder: what is measured, image by image, until per_image.csv says it all.

The first line says of what: weights, machine, program. Every further line is an image: its row, and its file's size
and date. A measurement that was cut short goes on from there, if both are still the same.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from codec.data.image_file import read_image, write_image
from codec.errors import number_of

FILE, THUMBNAILS = "per_image.jsonl", "thumbnails"


def forget_rows(folder: Path) -> None:
    """Deletes what an unfinished measurement has left in `folder`."""
    (folder / FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / THUMBNAILS, ignore_errors=True)


class MeasuredRows:
    """The rows of images in `folder` that were measured `of` the same as now; `add` appends another at once.

    A last line that a kill has cut is left out. Where `of` differs, all rows are: one line on stderr says so.
    """

    def __init__(self, folder: Path, of: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.entries: dict[str, dict[str, Any]] = {}
        file = folder / FILE
        lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
        try:
            whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
        except ValueError:  # not what was written here
            print(f"all images are measured again: {file} is damaged", file=sys.stderr)
            whole = []
        if whole and whole[0] == of:
            self.entries = {entry["row"]["name"]: entry for entry in whole[1:]}
        elif len(whole) > 1:
            other = ", ".join(key for key in of if whole[0].get(key) != of[key])
            again = number_of(len(whole) - 1, "image")
            print(f"measured again: {again}, as {other} changed meanwhile", file=sys.stderr)
        self._count = len(whole) - 1 if self.entries else 0
        if not self.entries:
            forget_rows(folder)
        self._file = file.open("ab", buffering=0)
        if self.entries:
            self._file.truncate(sum(map(len, lines[: len(whole)])))
        else:
            self._append(of)

    def of(self, name: str, path: Path) -> dict[str, float | str] | None:
        """The row of the image called `name`, unless its file at `path` has changed since it was measured."""
        entry = self.entries.get(name)
        return entry["row"] if entry is not None and entry["file"] == _stamp(path) else None

    def thumbnail(self, name: str) -> Tensor | None:
        """The thumbnail that was given with the row, uint8 `[C, h, w]`."""
        file = self.folder / THUMBNAILS / f"{self.entries[name]['number']}.png"
        return read_image(file) if file.is_file() else None

    def add(self, row: dict[str, float | str], path: Path, thumbnail: Tensor | None) -> None:
        """Appends the row of the image at `path`. Raises OSError."""
        if thumbnail is not None:
            (self.folder / THUMBNAILS).mkdir(exist_ok=True)
            write_image(self.folder / THUMBNAILS / f"{self._count}.png", thumbnail)
        entry = {"row": row, "file": _stamp(path), "number": self._count}
        self._append(entry)
        self._count += 1
        self.entries[row["name"]] = entry

    def close(self) -> None:
        self._file.close()

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:  # a full disk, which names no file
            raise OSError(error.errno, error.strerror, str((self.folder / FILE).absolute())) from error


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
