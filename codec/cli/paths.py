"""What the commands of `codec` read and write, found and checked before any work."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from codec.cli.console import STANDARD, Place, UsageError, check_pipes, reason
from codec.data.image_formats import writable
from codec.data.image_list import printable

SUFFIX = ".qnt"


class Job(NamedTuple):
    """One file to be read and the one to be made of it."""

    source: Place
    target: Place


class Plan(NamedTuple):
    """`jobs` to do; `faults`, a line for each input that cannot be read; `skipped`, how many are done already."""

    jobs: list[Job]
    faults: list[str]
    skipped: int = 0


class _Found(NamedTuple):
    """An input file: `name` is its path below `folder`, the folder or the file's folder that was given."""

    path: Path
    name: Path
    folder: str


def planned(
    inputs: Sequence[Place],
    output: str,
    suffix: str,
    list_folder: Callable[[Path], list[Path]],
    force: bool = False,
    skip_existing: bool = False,
) -> Plan:
    """Which files are read and what becomes of them, named with `suffix` in folders; nothing is opened yet.

    Raises UsageError where nothing should be done at all: outputs that exist, or cannot be.
    """
    # Path.is_dir raises where a name is too long, which is the fault of that input alone.
    several = len(inputs) > 1 or (isinstance(inputs[0], Path) and os.path.isdir(inputs[0]))  # noqa: PTH112
    into_folder = output != STANDARD and (several or Path(output).is_dir() or output.endswith(("/", os.sep)))
    _check_output(output, suffix, several, into_folder)
    if output != STANDARD:
        check_folder_of(Path(output))
    if STANDARD in (*inputs, output):
        if several or into_folder:
            raise UsageError("- is standard input or output: it takes one file, and goes to one that is named")
        target = STANDARD if output == STANDARD else Path(output)
        check_pipes(inputs[0], target, force)
        if inputs[0] == STANDARD:
            return _checked([Job(STANDARD, target)], [], force, skip_existing)
    found, faults = _found(inputs, list_folder)
    if into_folder:
        names = [Path(output) / name for name in distinct([(f.name, f.folder) for f in found], suffix)]
    else:
        names = [STANDARD if output == STANDARD else Path(output)] * len(found)
    return _checked([Job(f.path, name) for f, name in zip(found, names, strict=True)], faults, force, skip_existing)


def distinct(names: list[tuple[Path, str]], suffix: str) -> list[Path]:
    """What is written for files of these names, each with the name of its folder: all different.

    `x/a.gif` becomes `x/a.qnt`. Where two would become one file, both keep their suffix, `x/a.gif.qnt`, and where
    that is not enough, the name of the folder that they came from is put before it.
    """
    choices = [
        (name.with_suffix(suffix), longer := name.with_name(name.name + suffix), Path(folder, longer))
        for name, folder in names
    ]
    tried = [0] * len(names)
    while True:
        chosen = [choice[n] for choice, n in zip(choices, tried, strict=True)]
        count = Counter(chosen)
        for i, name in enumerate(chosen):
            if count[name] > 1:
                tried[i] += 1
            if tried[i] == len(choices[i]):
                raise UsageError(f"{count[name]} inputs would all become {name}: give them different names")
        if len(count) == len(chosen):
            return chosen


def check_folder_of(output: Path) -> None:
    """Raises UsageError if the folder that an output, a file or a folder, is to lie in is not there."""
    if os.path.lexists(output):
        return  # `.` and `/` lie in none that they name
    folder = output.parent
    if _lowest_there(output).is_dir() and not os.path.lexists(folder):
        raise UsageError(
            f"{output}: there is no folder {folder}: correct its name, or make it with mkdir -p {folder}"
        )


def check_target(target: Path, force: bool, may_skip: bool = False) -> None:
    """Raises UsageError if nothing can or may be written there. A link there is replaced, not what it names.

    `may_skip`: the command has an option that leaves files that are there.
    """
    if os.path.lexists(target):
        if target.exists() and not target.is_file():  # a folder, or a device, which renaming would replace
            raise UsageError(f"{target} exists already and is no file")
        if not force:
            what = "exists already" if target.exists() else "is a link to what is not there"
            leaves = ", --skip-existing leaves it" if may_skip and target.exists() else ""
            raise UsageError(f"{target} {what}: --force overwrites it{leaves}")
    folder = _lowest_there(target)
    if not folder.is_dir():
        raise UsageError(f"{target}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{target}: {folder} is not writable")


def _lowest_there(path: Path) -> Path:
    """The deepest folder, or what stands in its place, of those that `path` names."""
    return next(parent for parent in path.parents if os.path.lexists(parent))


def _check_output(output: str, suffix: str, several: bool, into_folder: bool) -> None:
    path = Path(output)
    if several and output != STANDARD:
        if path.is_file():
            raise UsageError(f"{path} is a file: several inputs need a folder to go to")
        if path.suffix == suffix and not path.exists():
            raise UsageError(f"{path} is a file's name: several inputs need a folder to go to")
    if not into_folder and output != STANDARD and (writable(path.suffix) is not None) != (suffix != SUFFIX):
        verb = "compress" if suffix == SUFFIX else "decompress"
        raise UsageError(f"{path}: {verb} writes e.g. {path.with_suffix(suffix).name}")


def _found(inputs: Sequence[Path], list_folder: Callable[[Path], list[Path]]) -> tuple[list[_Found], list[str]]:
    found: dict[tuple[Path, Path], _Found] = {}
    faults = []
    for path in inputs:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100  # a link keeps its own name
        try:
            if path.is_dir():
                files = [_Found(file, file.relative_to(path), absolute.name) for file in list_folder(path)]
                lack = "nothing to do in this folder"
            else:
                files = [_Found(path, Path(path.name), absolute.parent.name)] if path.exists() else []
                lack = "no such file or folder"
            found |= {(file.name, file.path.resolve()): file for file in files}  # named twice, it is done once
        except OSError as error:  # a name that is too long, a folder that must not be searched
            faults.append(reason(error, path))
        else:
            if not files:
                faults.append(f"{printable(path)}: {lack}")
    return list(found.values()), faults


def _checked(jobs: list[Job], faults: list[str], force: bool, skip_existing: bool) -> Plan:
    left, skipped, faults = [], 0, list(faults)
    for job in jobs:
        try:
            done = skip_existing and job.target != STANDARD and job.target.is_file()
        except OSError as error:
            faults.append(reason(error, job.target))
            continue
        if done:
            skipped += 1
        else:
            left.append(job)
    targets = [job.target for job in left if job.target != STANDARD]
    for target in targets:
        check_target(target, force, may_skip=True)
    sources = {job.source for job in left if job.source != STANDARD}
    inputs = {_place(source) for source in sources} | {source.resolve() for source in sources}
    overwritten = {_place(target) for target in targets} & inputs
    if overwritten:
        raise UsageError(f"{min(overwritten)} is an input and would be overwritten: write to somewhere else")
    return Plan(left, faults, skipped)


def _place(path: Path) -> Path:
    """Where a path itself is, be it a link."""
    return path.parent.resolve() / path.name
