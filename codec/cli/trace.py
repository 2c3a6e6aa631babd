"""`codec info --trace`: a file decoded pass by pass, with hashes of each that two machines can compare."""

import argparse
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from codec import bitstream
from codec.cli.console import say
from codec.cli.decoding import check_checkpoint, check_device_name, decoders_of, limit_pixels

if TYPE_CHECKING:  # torch is imported only where an image is coded
    from codec.entropy.trace import Pass


def tracer(options: argparse.Namespace) -> Callable[[bytes], None]:
    """What decodes a file and prints a line a section, then a line a pass as soon as that is decoded.

    It raises BitstreamError as LearnedCodec.decode does. Raises UsageError or CheckpointError where no file can be
    decoded.
    """
    limit_pixels(options)
    check_device_name(options)
    check_checkpoint(options)
    from codec.cli.import_lightning import import_lightning

    import_lightning()
    from codec.entropy.trace import short_hash, traced

    decoders = decoders_of(options)

    def trace(data: bytes) -> None:
        for n, section in enumerate(bitstream.unpack(data)[1], 1):
            say(f"  section {n:<4} {len(section):,} byte{'s' * (len(section) != 1)}, {short_hash(section)}")
        numbers = count(1)
        with traced(lambda one: say(_line(next(numbers), one))):
            decoders.of(data).decode(data)

    return trace


def _line(number: int, one: "Pass") -> str:
    decoded = one.decoded or "nothing"
    return f"  pass {number:<7} {one.part:<4} {one.symbols:>9,} symbols, told {one.told}, decoded {decoded}"
