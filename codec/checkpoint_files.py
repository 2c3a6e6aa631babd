"""Where the checkpoint is that somebody names. Needs no torch."""

import glob
import zipfile
from pathlib import Path

from codec.errors import CheckpointError
from codec.pretrained import called
from codec.run_names import paths_called


def find_checkpoint(path: str | Path) -> Path:
    """`path` itself if it is a file, else the best or, failing that, the last checkpoint of a run's folder.

    A torn one, see `is_whole`, counts only where the other is no better.
    The hash at the end of a run folder's name may be left out where only one folder then fits. Where there is no
    such file or folder, `path` may be the name of pretrained weights, or of a model, whose default ones are meant.
    """
    path = Path(path)
    folders = [path] if path.exists() else paths_called(glob.escape(str(path)))
    if len(folders) > 1:
        newest, *others = sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)
        raise CheckpointError(
            f"{path} fits {len(folders)} runs of different configs: give the whole name of one, {newest}, the "
            f"newest, or {', '.join(folder.name for folder in others)}"
        )
    for folder in folders:
        if folder.is_file():
            return folder
        there = [file for name in ("best", "last") if (file := folder / f"checkpoints/{name}.ckpt").is_file()]
        if there:
            return next(filter(is_whole, there), there[0])
    packaged = None if folders else called(str(path))
    if packaged is not None:
        return packaged.path
    raise CheckpointError(
        f"no checkpoint at {path}: give a .ckpt file or a run's folder (runs/NAME), or one of `codec models`"
    )


def is_whole(path: Path, every_byte: bool = False) -> bool:
    """Whether a `.ckpt` file begins and ends as torch writes one; with `every_byte`, its checksums hold too.

    torch itself looks at no checksum: it loads zeros where a file system has lost a block.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return not every_byte or file.testzip() is None
    except Exception:  # damaged bytes fail in any way there is
        return False
