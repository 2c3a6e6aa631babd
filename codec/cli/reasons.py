"""What went wrong, in one line, and whose fault it is."""

from PIL import Image

from codec.cli.console import Place
from codec.data.image_list import printable
from codec.errors import UserError


def reason(error: BaseException, path: Place | None = None) -> str:
    """One line that says what went wrong, with which file: `path`, unless the error knows better."""
    if isinstance(error, OSError) and error.strerror:
        path, text = error.filename or path, error.strerror
    else:
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        text = str(error).splitlines()[0] if str(error) else kind
    if isinstance(error.__cause__, Image.DecompressionBombWarning | Image.DecompressionBombError):
        text += " (--max-pixels)"
    named = path is None or (isinstance(error, UserError) and error.key == printable(path))
    return text if named else f"{printable(path)}: {text}"


def is_user_s(error: BaseException) -> bool:
    """Whether a person can mend it; else it is a fault of this program."""
    lack = isinstance(error, RuntimeError) and "memory" in str(error)  # torch has no class for it on CPUs
    return lack or isinstance(error, UserError | OSError | MemoryError)
