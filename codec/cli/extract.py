"""`codec extract` and `codec info`: what files hold, without a model unless decoding is to be traced."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from codec import bitstream, pretrained
from codec.bitstream import BitstreamError, ChecksumError, Header, MetadataError
from codec.cli.console import (
    STANDARD,
    Place,
    UsageError,
    check_pipes,
    complain,
    is_user_s,
    read_bytes,
    reason,
    say,
    write_output,
)
from codec.cli.notes import A_RATIO
from codec.cli.paths import Job, Plan, check_folder_of, check_target
from codec.cli.trace import tracer
from codec.cli.workers import each
from codec.data.image_list import printable
from codec.whole_file import whole_file


class Stream(NamedTuple):
    """A standard codec's name and the suffixes of its files, the usual one first."""

    name: str
    suffixes: tuple[str, ...]


_JPEG = Stream("JPEG", (".jpg", ".jpeg"))
_JPEG_2000 = Stream("JPEG 2000", (".jp2",))
_WEBP = Stream("WebP", (".webp",))
_AVIF = Stream("AVIF", (".avif",))
_PNG = Stream("PNG", (".png",))


def extract(options: argparse.Namespace) -> int:
    """The standard codec's own file (JPEG, WebP, JPEG 2000, …) that a file holds; needs no model."""
    Image.MAX_IMAGE_PIXELS = None  # nothing is decoded
    check_pipes(options.input, STANDARD if options.output == STANDARD else Path(options.output), options.force)
    try:
        sections = bitstream.unpack(read_bytes(options.input))[1]
    except (BitstreamError, OSError) as error:
        complain(reason(error, options.input))
        return 1
    section = next((section for section in sections if stream_of(section)), None)
    if section is None:
        complain(f"{printable(options.input)}: no section of it is a standard codec's file")
        return 1
    kind = stream_of(section)
    target = STANDARD if options.output == STANDARD else _target(options, kind)
    if isinstance(target, Path):
        check_folder_of(Path(options.output))
        check_target(target, options.force)

    def one(job: Job) -> str:
        if job.target == STANDARD:
            write_output(section)
        else:
            with whole_file(job.target) as file:
                file.write(section)
        return f"{kind.name} stream, {len(section):,} bytes"

    return each(Plan([Job(options.input, target)], []), one)


def info(options: argparse.Namespace) -> int:
    """What the headers of files say; needs no model but to trace.

    With --trace files are decoded too: a line with a hash for each section, then for each decoding pass its part of
    the file, how many symbols it has, and hashes of what the coder was told of them and of what it decoded. Where
    two machines decode different symbols, diff shows the first pass that does; pixels that differ by rounding are
    not seen.
    """
    trace = _tracer(options)
    status = 0
    for path in options.files:
        check_pipes(path, Path(), force=False)
        try:
            data = read_bytes(path)
            try:
                say(_described(path, data))
            except ChecksumError:
                say(_described_torn(path, data))
                raise
            trace(data)
        except Exception as error:
            if isinstance(error, BrokenPipeError) or not is_user_s(error):
                raise
            complain(reason(error, path))
            status = 1
    return status


def stream_of(section: bytes) -> Stream | None:
    """The standard codec whose whole file `section` is, by its first bytes; None: it is a scheme's own."""
    if section.startswith(b"\xff\xd8\xff"):
        return _JPEG
    if section.startswith(b"\0\0\0\x0cjP  \r\n\x87\n"):
        return _JPEG_2000
    if section.startswith(b"RIFF") and section[8:12] == b"WEBP":
        return _WEBP
    if section[4:12] == b"ftypavif":
        return _AVIF
    if section.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    return None


def _tracer(options: argparse.Namespace) -> Callable[[bytes], None]:
    if options.trace:
        return tracer(options)
    if options.checkpoint is not None or options.max_pixels is not None or options.device != "cpu":
        raise UsageError("--checkpoint, --device and --max-pixels are of use with --trace only: add it")
    Image.MAX_IMAGE_PIXELS = None  # nothing is decoded
    return lambda data: None


def _described(path: Place, data: bytes) -> str:
    header, sections = bitstream.unpack(data)
    pixels = header.height * header.width
    unadorned = len(bitstream.pack(header, sections))
    beside = len(data) - unadorned
    return (
        f"{_head(path, header, sections)}\n"
        f"  size         {len(data):,} bytes, {8 * len(data) / pixels:.4f} bpp, "
        f"1:{header.channels * pixels / len(data):.2f}\n"
        f"  sections     {_lengths(sections)} bytes, {unadorned - sum(map(len, sections))} around\n"
        f"  metadata     {_kept(data, beside)}\n"
        f"  checksum     good"
    )


def _described_torn(path: Place, data: bytes) -> str:
    """What is known of a file of which bytes are missing or others."""
    header, sections, missing = bitstream.unpack_torn(data)
    lack = f"at least {missing:,} are missing" if missing else "the header does not tell how many there were"
    checksum = "" if missing else ", up to 4 of them the checksum"  # which ends a file that is damaged, not cut
    return (
        f"{_head(path, header, sections)}\n"
        f"  size         {len(data):,} bytes are there, {lack}\n"
        f"  sections     {_lengths(sections)} bytes are there{checksum}\n"
        f"  checksum     not that of these bytes: the file is cut or damaged"
    )


def _head(path: Place, header: Header, sections: list[bytes]) -> str:
    weights = pretrained.written_by(header.fingerprint)
    quality = weights.quality_in(sections[0]) if weights and sections[0] else None
    lines = [
        f"{printable(path)}: {header.width}×{header.height}, "
        f"{header.channels} channel{'s' * (header.channels > 1)}",
        f"  scheme       {header.scheme}, format version {bitstream.VERSION}",
        f"  weights      {header.fingerprint.hex()}{f', pretrained {weights.label}' if weights else ''}",
    ]
    if quality is not None:
        ratio = f"; {A_RATIO}" if weights.quality_is_ratio else ""
        lines.append(f"  quality      {quality:g}{ratio}")
    return "\n".join(lines)


def _kept(data: bytes, size: int) -> str:
    """What a file has beside its pixels, in `size` bytes."""
    try:
        metadata = bitstream.metadata_of(data)
    except MetadataError:
        return f"damaged, {size:,} bytes; the image can be decoded"
    pairs = zip(metadata.names(), filter(None, metadata), strict=True)
    kept = ", ".join(f"{name} of {len(part):,} bytes" for name, part in pairs)
    return f"{kept}; compressed to {size:,}" if kept else "none"


def _lengths(sections: list[bytes]) -> str:
    kinds = [stream_of(section) for section in sections]
    return " + ".join(
        f"{len(section):,}{f' ({kind.name} stream)' if kind else ''}"
        for section, kind in zip(sections, kinds, strict=True)
    )


def _target(options: argparse.Namespace, kind: Stream) -> Path:
    """Where a stream goes. Raises UsageError if the name is not one of its kind."""
    output = Path(options.output)
    if output.is_dir() or options.output.endswith(("/", os.sep)):
        if options.input == STANDARD:
            raise UsageError("- has no name: name the file to write")
        return output / options.input.with_suffix(kind.suffixes[0]).name
    if output.suffix.lower() not in kind.suffixes:
        named = output.with_suffix(kind.suffixes[0]).name
        raise UsageError(f"{output}: the stream in this file is {kind.name}, extract writes e.g. {named}")
    return output
