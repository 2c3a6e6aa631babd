"""`codec compress | decompress | info`: learned codecs on the command line."""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from codec import bitstream
from codec.bitstream import BitstreamError

if TYPE_CHECKING:  # torch is imported only where an image is coded: help and info answer at once
    from codec.learned_codec import LearnedCodec

SUFFIX = ".qnt"


class UsageError(ValueError):
    """What was asked for cannot be done; the text is one line that says why."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 if a file failed, 2 if nothing could be tried."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that a terminal cannot show fails no file
    options = _parser().parse_args(arguments)
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with warnings.catch_warnings():
            return options.run(options)
    except (ValueError, OSError) as error:
        print(f"codec: error: {_reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("codec: interrupted; finished files are whole, the others were not written", file=sys.stderr)
        return 130
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def compress(options: argparse.Namespace) -> int:
    """Images → files, with the codec of a checkpoint."""
    from codec.data.image_file import list_images, read_image, whole_file

    jobs = _jobs(options, list_images, SUFFIX)
    codec = _load(options)

    def one(source: Path, target: Path) -> str:
        image = read_image(source, channels=1 if codec.image_channels == 1 else None)
        data = codec.encode(image)
        with whole_file(target) as file:
            file.write(data)
        channels, height, width = image.shape
        bpp, ratio = 8 * len(data) / (height * width), channels * height * width / len(data)
        return f"{width}×{height}, {len(data):,} bytes, {bpp:.3f} bpp, 1:{ratio:.1f}"

    return _each(jobs, one)


def decompress(options: argparse.Namespace) -> int:
    """Files → images, with the codec of the checkpoint that wrote them."""
    from codec.data.image_file import write_image

    jobs = _jobs(options, _list_files, ".png")
    codec = _load(options)

    def one(source: Path, target: Path) -> str:
        image = codec.decode(source.read_bytes())
        write_image(target, image)
        return f"{image.shape[2]}×{image.shape[1]}"

    return _each(jobs, one)


def info(options: argparse.Namespace) -> int:
    """What the headers of files say; needs no model."""
    Image.MAX_IMAGE_PIXELS = None  # nothing is decoded
    status = 0
    for path in options.files:
        try:
            data = path.read_bytes()
            header, sections = bitstream.unpack(data)
        except (BitstreamError, OSError) as error:
            print(f"codec: {_reason(error, path)}", file=sys.stderr)
            status = 1
            continue
        pixels = header.height * header.width
        overhead = len(data) - sum(map(len, sections))
        print(
            f"{path}: {header.width}×{header.height}, {header.channels} channel{'s' * (header.channels > 1)}\n"
            f"  scheme       {header.scheme}, format version {bitstream.VERSION}\n"
            f"  weights      {header.fingerprint.hex()}\n"
            f"  size         {len(data):,} bytes, {8 * len(data) / pixels:.4f} bpp, "
            f"1:{header.channels * pixels / len(data):.2f}\n"
            f"  sections     {' + '.join(f'{len(section):,}' for section in sections)} bytes, {overhead} around\n"
            f"  checksum     good"
        )
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codec",
        description="Compress images with a trained learned codec, and get them back.",
        epilog="Train one with `python train.py`, or see `make demo`. Exit status: 0 all done, 1 a file failed, "
        "2 wrong arguments.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, summary, paths in [
        (compress, "images to files", "images or folders, then the file or the folder to write"),
        (decompress, "files to images", "files or folders, then the image or the folder to write"),
    ]:
        command = commands.add_parser(run.__name__, help=summary, description=run.__doc__)
        command.add_argument("inputs", nargs="+", type=_path, metavar="IN", help=paths)
        command.add_argument(
            "output",
            type=_not_empty,
            metavar="OUT",
            help="a folder if there are several inputs, or with / at its end",
        )
        command.add_argument("--checkpoint", required=True, type=_path, help="a .ckpt file or a run's folder")
        command.add_argument("--force", action="store_true", help="overwrite what exists")
        command.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
        command.add_argument(
            "--max-pixels",
            type=int,
            metavar="N",
            help="the largest image to open; Pillow's 89 megapixels by default",
        )
        command.set_defaults(run=run)
    command = commands.add_parser("info", help="what a file's header says", description=info.__doc__)
    command.add_argument("files", nargs="+", type=_path, metavar="FILE", help=f"a {SUFFIX} file")
    command.set_defaults(run=info)
    return parser


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")  # Path would make it the current folder
    return text


def _path(text: str) -> Path:
    return Path(_not_empty(text))


def _load(options: argparse.Namespace) -> "LearnedCodec":
    import torch

    from codec.checkpoint import load_codec

    if options.max_pixels is not None:
        if options.max_pixels < 1:
            raise UsageError(f"--max-pixels {options.max_pixels}: allowed are integers from 1")
        Image.MAX_IMAGE_PIXELS = options.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # what decompress refuses, compress refuses
    codec = load_codec(options.checkpoint)
    try:
        return codec.to(torch.device(options.device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {options.device}: {reason}") from error


def _jobs(
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
            _check_target(target, options.force)
            jobs[target] = source
    overwritten = {target.resolve() for target in jobs} & {source.resolve() for source in jobs.values()}
    if overwritten:
        raise UsageError(f"{min(overwritten)} is an input and would be overwritten: write to somewhere else")
    return [(source, target) for target, source in jobs.items()]


def _check_target(target: Path, force: bool) -> None:
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
    return Image.registered_extensions().get(path.suffix.lower()) in Image.SAVE


def _list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob(f"[!.]*{SUFFIX}") if path.is_file())


def _each(jobs: list[tuple[Path, Path]], one: Callable[[Path, Path], str]) -> int:
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
            print(f"codec: {_reason(error, source)}", file=sys.stderr)
        else:
            progress = f"[{n}/{len(jobs)}] " if len(jobs) > 1 else ""
            print(f"{progress}{source} → {target}: {outcome}", flush=True)
    if failed and len(jobs) > 1:
        print(f"codec: {failed} of {len(jobs)} files failed", file=sys.stderr)
    return 1 if failed else 0


def _reason(error: BaseException, path: Path | None = None) -> str:
    """One line that says what went wrong, with which file: `path`, unless the error knows better."""
    if isinstance(error, OSError) and error.strerror:
        path, text = error.filename or path, error.strerror
    else:
        text = str(error).splitlines()[0] if str(error) else "out of memory"
    if isinstance(error.__cause__, Image.DecompressionBombWarning | Image.DecompressionBombError):
        text += " (--max-pixels)"
    return text if path is None or str(path) in text else f"{path}: {text}"


if __name__ == "__main__":
    sys.exit(main())
