"""W&B's own folders of a run, one for every start: what a later start does with those of the earlier ones.

Their `.wandb` files are read by hand here, since W&B has nothing that would: its reader in Python,
`wandb.sdk.internal.datastore`, is gone since its core is a program in Go, and of that program's commands none says
where the last whole record of a file ends, or what a file holds. The records themselves are W&B's own protobuf.
"""

import glob
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

# A `.wandb` file is LevelDB's log format after a header: blocks, and records that lie in one of them or go on in
# the next, each part behind checksum, length and kind.
_HEADER, _BLOCK, _PART = 7, 32768, struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4

SET_ASIDE = "set_aside"


def files_of_starts(folder: str | Path, run: str) -> list[Path]:
    """The `.wandb` files that earlier starts of the run of this id left below `folder`."""
    return sorted(Path(folder).glob(f"wandb/*run-*/run-{glob.escape(run)}.wandb"))


def is_uploaded(file: Path) -> bool:
    """Whether W&B's server has this `.wandb` file: it was written online, or `wandb sync` has uploaded it."""
    return not file.parent.name.startswith("offline-") or file.with_suffix(".wandb.synced").exists()


def set_aside(folder: str | Path, run: str) -> None:
    """Moves the earlier starts of a training that begins anew to where `wandb sync` does not find them."""
    for file in files_of_starts(folder, run):
        start = file.parent
        aside = start.parent / SET_ASIDE
        aside.mkdir(exist_ok=True)
        start.rename(aside / start.name)


def cut_to_whole_records(file: Path) -> None:
    """Cuts off what a killed process wrote of a record: `wandb sync` stops there, and skips all later starts."""
    data = file.read_bytes()
    end = max((end for end, _ in _records(data)), default=min(_HEADER, len(data)))
    if end < len(data):
        with file.open("r+b") as opened:
            opened.truncate(end)


def last_value(file: Path, name: str) -> float | None:
    """The last value that a `.wandb` file has of `name`, such as the step it reaches; None where it has none."""
    last = None
    for _, record in _records(file.read_bytes()):
        for item in Record.FromString(record).history.item:
            if (item.key or ".".join(item.nested_key)) == name:
                last = json.loads(item.value_json)
    return last


@contextmanager
def staged_below(folder: str) -> Iterator[None]:
    """Has W&B keep the pictures of tables until their upload in the run's folder instead of the home folder."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = before or str(Path(folder, "wandb").resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]


def remove_staging(folder: str | Path) -> None:
    """Deletes the copies of tables and pictures that W&B has staged for an upload and that none will read.

    To be called when the run in `folder` is finished, and W&B's own process ended. Those that a start which is not
    uploaded refers to are kept.
    """
    staged = Path(folder, "wandb/artifacts/staging")
    needed = set()
    for file in Path(folder).glob("wandb/**/*run-*/run-*.wandb"):
        for _, record in _records(b"" if is_uploaded(file) else file.read_bytes()):
            manifest = Record.FromString(record).artifact.manifest
            needed |= {Path(entry.local_path).name for entry in manifest.contents}
            if manifest.manifest_file_path:  # a long list, in a file of its own
                return
    for path in staged.rglob("*"):
        if path.is_file() and path.name not in needed:
            path.unlink()
    for empty in (staged, staged.parent):
        with suppress(OSError):  # one that is not empty, or not there
            empty.rmdir()


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole records of a `.wandb` file, each with the position where it ends."""
    position, record = _HEADER, b""
    while position + _PART.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _PART.size:
            position += left
            continue
        _, length, kind = _PART.unpack_from(data, position)
        part = data[position + _PART.size : position + _PART.size + length]
        position += _PART.size + length
        if position > len(data) or kind == 0:
            return
        record = part if kind in (_WHOLE, _FIRST) else record + part
        if kind in (_WHOLE, _LAST):
            yield position, record
