"""What `codec decompress` is told of the part of an image that is wanted."""

import argparse
from typing import NamedTuple

from codec.cli.console import UsageError

SCALES = (1, 2, 4, 8)  # there are no other levels in any model of ours


class Part(NamedTuple):
    """`crop`: X, Y, W, H in pixels, None being all of the image; `scale`: of its sides one in so many."""

    crop: tuple[int, ...] | None
    scale: int


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--crop",
        metavar="X,Y,W,H",
        help="only W×H pixels from column X and row Y on, for which no more is decoded than lies around them",
    )
    command.add_argument(
        "--scale",
        type=int,
        default=1,
        metavar="N",
        help="the image at 1/2, 1/4 or 1/8 of its width and height, sooner than the whole one; of files of "
        "diffusion_wavelet",
    )
    command.add_argument(
        "--partial",
        action="store_true",
        help="also of files whose end is missing, as much of the image as is there",
    )


def part_of(options: argparse.Namespace) -> Part:
    """The part of `--crop` and `--scale`. Raises UsageError where it is none of any image; needs no torch."""
    crop, scale = _crop_of(options), options.scale
    if scale not in SCALES:
        raise UsageError(f"--scale {scale}: allowed are 1, 2, 4 and 8, with models that have them")
    if crop is not None and scale != 1:
        raise UsageError(f"--scale {scale}: allowed is 1 together with --crop")
    return Part(crop, scale)


def _crop_of(options: argparse.Namespace) -> tuple[int, ...] | None:
    if options.crop is None:
        return None
    numbers = options.crop.split(",")
    if len(numbers) != 4 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise UsageError(f"--crop {options.crop}: allowed are four whole numbers X,Y,W,H from 0, as in 0,0,640,480")
    crop = tuple(map(int, numbers))
    if min(crop[2:]) < 1:
        raise UsageError(f"--crop {options.crop}: W and H must be at least 1")
    return crop
