"""Files that are there whole or not at all, also after a full disk, a kill or a power cut."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends without an error, and not at all otherwise.

    What was at `path` stays until then. An OSError of the block names the full path where it names none, as that of
    a full disk does.
    """
    # In the same folder, since only there a rename is atomic; not by tempfile, whose files ignore the umask.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
        _sync(part)  # or the rename may outlive a power cut, and the bytes not
        part.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno, error.strerror, str(path.absolute())) from error
    finally:
        part.unlink(missing_ok=True)
    with suppress(OSError):  # not every file system can do it for a folder
        _sync(path.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
