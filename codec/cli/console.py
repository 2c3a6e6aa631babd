"""How `codec` reads and speaks: `-` is standard input or output, either may be closed, and a fault is one line."""

import io
import os
import sys
from pathlib import Path
from typing import Literal

from PIL import Image

from codec.data.image_list import printable
from codec.errors import ArgumentError, UserError

Standard = Literal["-"]
STANDARD: Standard = "-"  # Path("-") is a file of this name, given as ./-
Place = Path | Standard
# What a codec checks itself: its messages name arguments of Python.
_OPTIONS = ("crop", "scale", "partial", "quality", "effort", "max_bytes", "bpp", "psnr", "batch")


class UsageError(UserError):
    """What was asked for cannot be done; the text is one line that says why."""


def prepare() -> None:
    """Makes standard streams safe to use, whatever this process was started with."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: the next file to be opened would take its number, and what is printed
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # torch prints without a look
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that a terminal cannot show fails no file


def flush() -> None:
    """Raises OSError where what was printed cannot be written."""
    sys.stdout.flush()
    sys.stderr.flush()


def silence() -> None:
    """Has nothing more be written to streams that nobody reads, also not by the interpreter as it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())


def say(text: str, beside_data: bool = False) -> None:
    """Prints a result: to standard error where standard output takes data."""
    print(f"{text}\n", end="", file=sys.stderr if beside_data else sys.stdout, flush=True)


def complain(text: str) -> None:
    """Prints what went wrong, or is to be known beside the results."""
    print(f"codec: {text}\n", end="", file=sys.stderr, flush=True)


def reason(error: BaseException, path: Place | None = None) -> str:
    """One line that says what went wrong, with which file: `path`, unless the error knows better."""
    if isinstance(error, IsADirectoryError):
        path, text = error.filename or path, "is a folder: name a file in it"
    elif isinstance(error, OSError) and error.strerror:
        path, text = error.filename or path, error.strerror
    else:
        kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
        text = str(error).splitlines()[0] if str(error) else kind
        if isinstance(error, ArgumentError) and error.key in _OPTIONS:
            value = "" if error.value is True or error.value is None else f" {error.value}"
            text = f"--{error.key.replace('_', '-')}{value}: {error.allowed}"
    if isinstance(error.__cause__, Image.DecompressionBombWarning | Image.DecompressionBombError):
        text += " (--max-pixels)"
    named = path is None or (isinstance(error, UserError) and error.key == printable(path))
    return text if named else f"{printable(path)}: {text}"


def is_user_s(error: BaseException) -> bool:
    """Whether a person can mend it; else it is a fault of this program."""
    lack = isinstance(error, RuntimeError) and "memory" in str(error)  # torch has no class for it on CPUs
    return lack or isinstance(error, UserError | OSError | MemoryError)


def check_pipes(source: Place, target: Place, force: bool) -> None:
    """Raises UsageError where data would be read from, or written to, a terminal or a closed stream."""
    for place, name in ((source, "input"), (target, "output")):
        if place != STANDARD:
            continue
        stream = sys.__stdin__ if name == "input" else sys.__stdout__  # as this process was started
        if stream is None:
            raise UsageError(f"standard {name} is closed")
        if stream.isatty() and not force:
            raise UsageError(f"standard {name} is a terminal, and - is for data: use a pipe, or --force")


def read_bytes(source: Place) -> bytes:
    """All of a file, or of standard input."""
    return source.read_bytes() if isinstance(source, Path) else sys.stdin.buffer.read()


def write_output(data: bytes) -> None:
    """Writes to standard output."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
