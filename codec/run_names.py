"""A run's folder is called NAME-HASH, by its config's hash, which whoever names the run may leave out."""

import glob
import re
from pathlib import Path

HASH = "-" + 8 * "[0-9a-f]"  # means the same to glob and to re


def without_hash(name: str) -> str:
    """The name of a run, without the hash of its folder."""
    return re.sub(f"{HASH}$", "", name)


def paths_called(pattern: str) -> list[Path]:
    """What there is of this path, which may have *, then what there is of it once a hash is added."""
    found = (name for form in (pattern, pattern + HASH) for name in sorted(glob.glob(form)))  # noqa: PTH207
    return [Path(name) for name in dict.fromkeys(found)]
