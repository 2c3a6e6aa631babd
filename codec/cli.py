"""`codec compress | decompress | extract | info | models`: learned codecs on the command line."""

import argparse
import io
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from codec import bitstream, pretrained
from codec.bitstream import BitstreamError
from codec.jobs import SUFFIX, UsageError, check_target, each, list_files, planned, reason
from codec.listing import listing
from codec.streams import Stream, stream_of
from codec.whole_file import whole_file

if TYPE_CHECKING:  # torch is imported only where an image is coded: help, info and models answer at once
    import torch

    from codec.learned_codec import LearnedCodec


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
        print(f"codec: error: {reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("codec: interrupted; finished files are whole, the others were not written", file=sys.stderr)
        return 130
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def compress(options: argparse.Namespace) -> int:
    """Images → files, with a pretrained model or the codec of a checkpoint."""
    if options.checkpoint and options.model:
        raise UsageError(f"--checkpoint {options.checkpoint}, --model {options.model}: name one of them")
    weights = None if options.checkpoint else pretrained.choose(options.model, options.quality)
    # Imports that take seconds come after what can be refused at once.
    from codec.data.image_file import read_image
    from codec.data.image_list import list_images

    jobs = planned(options, list_images, SUFFIX)
    _limit_pixels(options)
    from codec.checkpoint import load_codec

    device = _device(options)
    if weights is None:
        codec = load_codec(options.checkpoint)
        if options.quality is not None:
            if not hasattr(codec, "set_quality"):
                raise UsageError(f"--quality {options.quality}: the codec of this checkpoint has one quality only")
            codec.set_quality(options.quality)
    else:
        codec = pretrained.load(weights, options.quality)
        if options.model is None:
            print(f"codec: with the pretrained model {weights.label}; `codec models` lists others", file=sys.stderr)
    codec.to(device)

    def one(source: Path, target: Path) -> str:
        image = read_image(source, channels=1 if codec.image_channels == 1 else None)
        data = codec.encode(image)
        with whole_file(target) as file:
            file.write(data)
        channels, height, width = image.shape
        bpp, ratio = 8 * len(data) / (height * width), channels * height * width / len(data)
        return f"{width}×{height}, {len(data):,} bytes, {bpp:.3f} bpp, 1:{ratio:.1f}"

    return each(jobs, one)


def decompress(options: argparse.Namespace) -> int:
    """Files → images, with the pretrained model or the checkpoint that wrote them."""
    from codec.data.image_file import write_image

    jobs = planned(options, list_files, ".png")
    _limit_pixels(options)
    from codec.checkpoint import load_codec

    device = _device(options)
    named = load_codec(options.checkpoint).to(device) if options.checkpoint else None
    loaded: dict[bytes, LearnedCodec] = {}

    def codec_of(data: bytes) -> "LearnedCodec":
        fingerprint = bitstream.unpack(data)[0].fingerprint
        if fingerprint not in loaded:
            weights = pretrained.written_by(fingerprint)
            if weights is None:
                raise BitstreamError(
                    f"the file was written with weights {fingerprint.hex()}, those of no pretrained model: "
                    "name what wrote it with --checkpoint"
                )
            loaded[fingerprint] = pretrained.load(weights).to(device)
        return loaded[fingerprint]

    def one(source: Path, target: Path) -> str:
        data = source.read_bytes()
        image = (named or codec_of(data)).decode(data)
        write_image(target, image)
        return f"{image.shape[2]}×{image.shape[1]}"

    return each(jobs, one)


def extract(options: argparse.Namespace) -> int:
    """The standard codec's own file (JPEG, WebP, JPEG 2000, …) that a file holds; needs no model."""
    Image.MAX_IMAGE_PIXELS = None  # nothing is decoded
    try:
        sections = bitstream.unpack(options.input.read_bytes())[1]
    except (BitstreamError, OSError) as error:
        print(f"codec: {reason(error, options.input)}", file=sys.stderr)
        return 1
    section = next((section for section in sections if stream_of(section)), None)
    if section is None:
        print(f"codec: {options.input}: no section of it is a standard codec's file", file=sys.stderr)
        return 1
    kind = stream_of(section)
    target = _extracted(options, kind)
    check_target(target, options.force)

    def one(_: Path, target: Path) -> str:
        with whole_file(target) as file:
            file.write(section)
        return f"{kind.name} stream, {len(section):,} bytes"

    return each([(options.input, target)], one)


def info(options: argparse.Namespace) -> int:
    """What the headers of files say; needs no model."""
    Image.MAX_IMAGE_PIXELS = None  # nothing is decoded
    status = 0
    for path in options.files:
        try:
            data = path.read_bytes()
            header, sections = bitstream.unpack(data)
        except (BitstreamError, OSError) as error:
            print(f"codec: {reason(error, path)}", file=sys.stderr)
            status = 1
            continue
        pixels = header.height * header.width
        weights = pretrained.written_by(header.fingerprint)
        overhead = len(data) - sum(map(len, sections))
        parts = " + ".join(_described(section) for section in sections)
        print(
            f"{path}: {header.width}×{header.height}, {header.channels} channel{'s' * (header.channels > 1)}\n"
            f"  scheme       {header.scheme}, format version {bitstream.VERSION}\n"
            f"  weights      {header.fingerprint.hex()}{f', pretrained {weights.label}' if weights else ''}\n"
            f"  size         {len(data):,} bytes, {8 * len(data) / pixels:.4f} bpp, "
            f"1:{header.channels * pixels / len(data):.2f}\n"
            f"  sections     {parts} bytes, {overhead} around\n"
            f"  checksum     good"
        )
    return status


def models(_: argparse.Namespace) -> int:
    """The pretrained models, what they reach, and how large they are; needs no image."""
    print(listing(pretrained.pretrained_models()))
    return 0


def _described(section: bytes) -> str:
    kind = stream_of(section)
    return f"{len(section):,}" if kind is None else f"{len(section):,} ({kind.name} stream)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codec",
        description="Compress images with a learned codec, pretrained or your own, and get them back.",
        epilog="Train your own with `python train.py`, or see `make demo`. Exit status: 0 all done, 1 a file "
        "failed, 2 wrong arguments.",
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
        if run is compress:
            command.add_argument("--model", metavar="NAME", help="a pretrained model; `codec models` lists them")
            command.add_argument(
                "--quality", type=int, metavar="N", help="one of the model's: larger files, better images"
            )
        command.add_argument(
            "--checkpoint",
            type=_path,
            help="your own model instead: a run's folder, .ckpt or .safetensors",
        )
        command.add_argument("--force", action="store_true", help="overwrite what exists")
        command.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
        command.add_argument(
            "--max-pixels",
            type=int,
            metavar="N",
            help="the largest image to open; Pillow's 89 megapixels by default",
        )
        command.set_defaults(run=run)
    command = commands.add_parser("extract", help="the JPEG, WebP, … in a file", description=extract.__doc__)
    command.add_argument("input", type=_path, metavar="FILE", help=f"a {SUFFIX} file")
    command.add_argument("output", type=_not_empty, metavar="OUT", help="the file to write, or a folder")
    command.add_argument("--force", action="store_true", help="overwrite what exists")
    command.set_defaults(run=extract)
    command = commands.add_parser("info", help="what a file's header says", description=info.__doc__)
    command.add_argument("files", nargs="+", type=_path, metavar="FILE", help=f"a {SUFFIX} file")
    command.set_defaults(run=info)
    command = commands.add_parser("models", help="the pretrained models", description=models.__doc__)
    command.set_defaults(run=models)
    return parser


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")  # Path would make it the current folder
    return text


def _path(text: str) -> Path:
    return Path(_not_empty(text))


def _limit_pixels(options: argparse.Namespace) -> None:
    if options.max_pixels is not None:
        if options.max_pixels < 1:
            raise UsageError(f"--max-pixels {options.max_pixels}: allowed are integers from 1")
        Image.MAX_IMAGE_PIXELS = options.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # what decompress refuses, compress refuses


def _device(options: argparse.Namespace) -> "torch.device":
    import torch

    try:
        return torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {options.device}: {str(error).splitlines()[0]}") from error


def _extracted(options: argparse.Namespace, kind: Stream) -> Path:
    """Where a stream goes. Raises UsageError if the name is not one of its kind."""
    output = Path(options.output)
    if output.is_dir() or options.output.endswith(("/", os.sep)):
        return output / options.input.with_suffix(kind.suffixes[0]).name
    if output.suffix.lower() not in kind.suffixes:
        named = output.with_suffix(kind.suffixes[0]).name
        raise UsageError(f"{output}: the file holds a {kind.name} stream, extract writes e.g. {named}")
    return output


if __name__ == "__main__":
    sys.exit(main())
