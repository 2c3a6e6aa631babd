"""`codec compress | decompress | extract | info | models`: learned codecs on the command line."""

import argparse
import warnings
from pathlib import Path

from PIL import Image

from codec.cli import console, extract, files, parts, targets
from codec.cli.arguments import ProgramParser, Version
from codec.cli.console import STANDARD, Place, is_user_s, reason
from codec.cli.models import models
from codec.cli.paths import SUFFIX

REPLACES = "overwrite what exists; a link is replaced itself, and what it names is kept"
INTERRUPTED, NOBODY_READS = 130, 141  # 128 and the number of the signal, as shells have it


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0; 1 if a file failed; 2 if nothing could be tried; 130 if interrupted; 141 if what it wrote was not read.
    """
    console.prepare()
    try:
        try:
            return _run(arguments)
        finally:
            console.flush()
    except BrokenPipeError:
        console.silence()
        return NOBODY_READS
    except OSError as error:  # a full disk behind standard output
        console.complain(f"error: {reason(error)}")
        console.silence()
        return 1


def _run(arguments: list[str] | None) -> int:
    limit = Image.MAX_IMAGE_PIXELS
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            return options.run(options)
    except BrokenPipeError:
        raise
    except Exception as error:
        if not is_user_s(error):
            raise
        console.complain(f"error: {reason(error)}")
        return 2
    except KeyboardInterrupt:
        console.complain("interrupted; finished files are whole, the others were not written")
        return INTERRUPTED
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _parser() -> ProgramParser:
    parser = ProgramParser(
        prog="codec",
        description="Compress images with a learned codec, pretrained or your own, and get them back.",
        epilog="Train your own with `python train.py`, or see `make demo`. Exit status: 0 all done, 1 a file "
        "failed, 2 wrong arguments.",
    )
    parser.add_argument("--version", action=Version, help="show the version of the package and of its files")
    commands = parser.add_commands()
    for run, summary, paths, what in [
        (files.compress, "images to files", "images or folders", "the file"),
        (files.decompress, "files to images", "files or folders", "the image"),
    ]:
        command = commands.add_parser(run.__name__, help=summary, description=run.__doc__)
        command.add_argument("inputs", nargs="+", type=_place, metavar="IN", help=f"{paths}; - is standard input")
        command.add_argument(
            "output",
            type=_not_empty,
            metavar="OUT",
            help=f"{what} to write, - is standard output; a folder for several inputs, or with / at its end",
        )
        if run is files.compress:
            command.add_argument("--model", metavar="NAME", help="a pretrained model; `codec models` lists them")
            targets.add_options(command)
            command.add_argument(
                "--verify",
                action="store_true",
                help="decode every file before it is written, and say so; what a lossless model wrote must give "
                "the image back",
            )
        else:
            parts.add_options(command)
        existing = command.add_mutually_exclusive_group()
        existing.add_argument("--force", action="store_true", help=REPLACES)
        existing.add_argument(
            "--skip-existing",
            action="store_true",
            help="leave out what exists already, by its name; one that a new input changes is written again",
        )
        command.add_argument(
            "--strip", action="store_true", help="leave out colour profile, EXIF and XMP, which are kept otherwise"
        )
        command.add_argument("--jobs", type=int, default=1, metavar="N", help="files at a time, 1 by default")
        if run is files.compress:
            command.add_argument(
                "--batch",
                type=int,
                metavar="N",
                help="of so many images in a row, those of equal size go through the network together: 8 by "
                "default on a GPU, and 1 on a CPU, where that saves nothing",
            )
        _add_decoder_options(command)
        command.set_defaults(run=run)
    command = commands.add_parser(
        "extract", help="the JPEG, WebP, … in a file", description=extract.extract.__doc__
    )
    command.add_argument("input", type=_place, metavar="FILE", help=f"a {SUFFIX} file; - is standard input")
    command.add_argument(
        "output", type=_not_empty, metavar="OUT", help="the file to write, or a folder; - is standard output"
    )
    command.add_argument("--force", action="store_true", help=REPLACES)
    command.set_defaults(run=extract.extract)
    command = commands.add_parser("info", help="what a file's header says", description=extract.info.__doc__)
    command.add_argument(
        "files", nargs="+", type=_place, metavar="FILE", help=f"a {SUFFIX} file; - is standard input"
    )
    command.add_argument("--trace", action="store_true", help="decode, and print hashes of every decoding pass")
    _add_decoder_options(command)
    command.set_defaults(run=extract.info)
    command = commands.add_parser("models", help="the pretrained models", description=models.__doc__)
    command.add_argument("name", nargs="?", metavar="NAME", help="one of them: all that was measured of it")
    command.set_defaults(run=models)
    return parser


def _add_decoder_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint",
        type=_path,
        help="your own model, not the package's: a run's folder, .ckpt or .safetensors",
    )
    command.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
    command.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="the largest image to open; Pillow's 89 megapixels by default",
    )


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")  # Path would make it the current folder
    return text


def _path(text: str) -> Path:
    return Path(_not_empty(text))


def _place(text: str) -> Place:
    return STANDARD if text == STANDARD else _path(text)
