"""What `codec decompress` is told of the part of an image that is wanted."""

import argparse
from typing import TYPE_CHECKING

from codec.cli.console import UsageError

if TYPE_CHECKING:  # torch is imported only where an image is coded
    from codec.windows import Crop


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


def crop_of(options: argparse.Namespace) -> "Crop | None":
    """The part of `--crop`. Raises UsageError where it is none of any image."""
    from codec.windows import Crop

    if options.crop is None:
        return None
    numbers = options.crop.split(",")
    if len(numbers) != 4 or not all(number.isascii() and number.isdecimal() for number in numbers):
        raise UsageError(f"--crop {options.crop}: allowed are four whole numbers X,Y,W,H from 0, as in 0,0,640,480")
    crop = Crop(*map(int, numbers))
    if min(crop.width, crop.height) < 1:
        raise UsageError(f"--crop {options.crop}: W and H must be at least 1")
    return crop
