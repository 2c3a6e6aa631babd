"""Where the checkpoint is that somebody names. Needs no torch."""

import glob
from pathlib import Path

from codec.errors import CheckpointError
from codec.pretrained import called


def find_checkpoint(path: str | Path) -> Path:
    """`path` itself if it is a file, else the best or, failing that, the last checkpoint of a run's folder.

    The hash at the end of a run folder's name may be left out where only one folder then fits. Where there is no
    such file or folder, `path` may be the name of pretrained weights, or of a model, whose default ones are meant.
    """
    path = Path(path)
    folders = [path] if path.exists() else sorted(path.parent.glob(f"{glob.escape(path.name)}-{'[0-9a-f]' * 8}"))
    if len(folders) > 1:
        raise CheckpointError(f"{path} could be any of {', '.join(folder.name for folder in folders)}")
    for folder in folders:
        for candidate in (folder, folder / "checkpoints/best.ckpt", folder / "checkpoints/last.ckpt"):
            if candidate.is_file():
                return candidate
    packaged = None if folders else called(str(path))
    if packaged is not None:
        return packaged.path
    raise CheckpointError(
        f"no checkpoint at {path}: give a .ckpt file or a run's folder (runs/NAME), or one of `codec models`"
    )
