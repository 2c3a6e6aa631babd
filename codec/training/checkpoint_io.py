"""Checkpoints on disk: written whole or not at all, and what a run goes on from when one is torn all the same."""

import os
import sys
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from codec.checkpoint_files import is_whole
from codec.whole_file import whole_file

LAST = "last.ckpt"
TORN = ".torn"  # added to the name of a file that is kept and not used


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's, but for where it writes: Lightning writes to TMPDIR, and moves that over the last good file.

    Raises OSError that names the full path, and leaves the earlier checkpoint, where the disk is full.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: object | None = None
    ) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(Path(path)) as file:
            torch.save(checkpoint, file)


def checkpoint_to_resume(folder: Path) -> Path | None:
    """`folder`/last.ckpt, if training can go on from it, else None.

    A torn one is kept under another name and replaced by the newest whole checkpoint of a training in the folder,
    if there is one; a line on stderr says so. Of processes that train together the first does it.
    """
    last, aside = folder / LAST, folder / f"{LAST}{TORN}"
    if not last.is_file():
        return None
    if is_whole(last, every_byte=True):
        return last
    others = {path: step for path in sorted(folder.glob("*.ckpt")) if (step := _trained_to(path)) is not None}
    newest = max(others, key=others.__getitem__, default=None)
    if rank_zero_only.rank == 0:
        goes_on = "training begins anew" if newest is None else f"going on from {newest.name}"
        print(f"{last.absolute()} is torn: {goes_on}; it is kept as {aside.name}", file=sys.stderr)
        aside.unlink(missing_ok=True)
        try:
            os.link(last, aside)  # not renamed, or the other processes might find none for a moment
        except OSError:  # a file system without links
            last.replace(aside)
        if newest is None:
            last.unlink(missing_ok=True)
        else:
            with newest.open("rb") as whole, whole_file(last) as copy:
                copyfileobj(whole, copy)
    return None if newest is None else last


def _trained_to(path: Path) -> int | None:
    """The step of a whole checkpoint that training can go on from; None of a torn one, or of weights alone."""
    if not is_whole(path, every_byte=True):
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return int(checkpoint["global_step"]) if "optimizer_states" in checkpoint else None
    except Exception:  # torch's unpickler fails on damaged bytes in any way there is
        return None
