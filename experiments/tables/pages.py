"""Markdown pages that commands write: dated, and written anew only where more than the date has changed."""

import re
from collections.abc import Iterable
from pathlib import Path

from codec.whole_file import whole_file

BORN_AS_JPEG = ("bsd300", "bsd300_256")  # as they are: resizing leaves nothing of their grid
JPEG_BORN_NOTE = (
    "BSD300's images were JPEGs of quality 95, 4:2:0: JPEG at quality ≥ 90 meets its own grid and looks too good, "
    "and lossless sizes are not those of camera originals."
)

_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")


def notes_on(datasets: Iterable[str]) -> list[str]:
    """What has to be known of figures on these data sets."""
    return [JPEG_BORN_NOTE] if set(datasets) & set(BORN_AS_JPEG) else []


def write_page(file: Path, text: str) -> bool:
    """Returns whether `file` changed: one that differs in lines with a date only is left as it is."""
    if file.is_file() and _undated(file.read_text(encoding="utf-8")) == _undated(text):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as out:
        out.write(text.encode())
    return True


def _undated(text: str) -> list[str]:
    return [line for line in text.splitlines() if not _DATE.search(line)]
