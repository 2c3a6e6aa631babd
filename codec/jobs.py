"""What the commands of `codec` read and write: checked before any work, then done one by one."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from codec.data.image_formats import writable

SUFFIX = ".qnt"


class UsageError(ValueError):
    """What was asked for cannot be done; the text is one line that says why."""


def planned(
    options: argparse.Namespace, list_folder: Callable[[Path], list[Path]], suffix: str
) -> list[tuple[Path, Path]]:
    """What is read and what is written, checked before any work: (source, target) pairs."""
    output = Path(options.output)
    several = len(options.inputs) > 1 or options.inputs[0].is_dir()
    if several and output.is_file():
        raise UsageError(f"{output} is a file: several inputs need a folder to go to")
    into_folder = several or output.is_dir() or options.output.endswith(("/", os.sep))
    if several and output.suffix == suffix and not output.exists():
        raise UsageError(f"{output} is a file's name: several inputs need a folder to go to")
    if not into_folder and _is_image_name(output) != (suffix != SUFFIX):
        raise UsageError(f"{output}: {options.run.__name__} writes e.g. {output.with_suffix(suffix).name}")
    jobs: dict[Path, Path] = {}
    for path in options.inputs:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        found = (
            {file: file.relative_to(path) for file in list_folder(path)}
            if path.is_dir()
            else {path: Path(path.name)}
        )
        if not found:
            raise UsageError(f"{path}: nothing to do in this folder")
        for source, name in found.items():
            target = output / name.with_suffix(suffix) if into_folder else output
            if target in jobs:
                raise UsageError(
                    f"{jobs[target]} and {source} would both become {target}: give them different names"
                )
            check_target(target, options.force)
            jobs[target] = source
    overwritten = {target.resolve() for target in jobs} & {source.resolve() for source in jobs.values()}
    if overwritten:
        raise UsageError(f"{min(overwritten)} is an input and would be overwritten: write to somewhere else")
    return [(source, target) for target, source in jobs.items()]


def check_target(target: Path, force: bool) -> None:
    """Raises UsageError if nothing can or may be written there."""
    if target.exists():
        if not target.is_file():  # a folder, or a device, which renaming would replace
            raise UsageError(f"{target} exists already and is no file")
        if not force:
            raise UsageError(f"{target} exists already: --force overwrites it")
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise UsageError(f"{target}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{target}: {folder} is not writable")


def _is_image_name(path: Path) -> bool:
    return writable(path.suffix) is not None


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob(f"[!.]*{SUFFIX}") if path.is_file())


def each(jobs: list[tuple[Path, Path]], one: Callable[[Path, Path], str]) -> int:
    """Does every job and says what came of it; a failed one is reported and the others go on."""
    failed = 0
    for n, (source, target) in enumerate(jobs, 1):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            outcome = one(source, target)
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch has no class for it on CPUs
                raise
            failed += 1
            print(f"codec: {reason(error, source)}", file=sys.stderr)
        else:
            progress = f"[{n}/{len(jobs)}] " if len(jobs) > 1 else ""
            print(f"{progress}{source} → {target}: {outcome}", flush=True)
    if failed and len(jobs) > 1:
        print(f"codec: {failed} of {len(jobs)} files failed", file=sys.stderr)
    return 1 if failed else 0


def reason(error: BaseException, path: Path | None = None) -> str:
    """One line that says what went wrong, with which file: `path`, unless the error knows better."""
    if isinstance(error, OSError) and error.strerror:
        path, text = error.filename or path, error.strerror
    else:
        text = str(error).splitlines()[0] if str(error) else "out of memory"
    if isinstance(error.__cause__, Image.DecompressionBombWarning | Image.DecompressionBombError):
        text += " (--max-pixels)"
    return text if path is None or str(path) in text else f"{path}: {text}"
