"""What commands that decode share: options, limits, and the codecs that files were written with."""

import argparse
import warnings
from typing import TYPE_CHECKING

from PIL import Image

from codec import api
from codec.checkpoint_files import find_checkpoint
from codec.checks import check_device
from codec.cli.console import UsageError
from codec.decoders import Decoders
from codec.errors import ArgumentError

if TYPE_CHECKING:  # torch is imported only where an image is coded
    import torch


def decoders_of(options: argparse.Namespace) -> Decoders:
    """The codecs of files: that of `--checkpoint`, else pretrained ones, on `--device`.

    Raises UsageError, or CheckpointError where the checkpoint cannot be used.
    """
    from codec.checkpoint import load_codec

    device = device_of(options)
    return Decoders(load_codec(options.checkpoint).to(device) if options.checkpoint else None, device)


def limit_pixels(options: argparse.Namespace) -> None:
    """Sets the largest image to open, `--max-pixels`, or leaves Pillow's; what is larger is refused."""
    if options.max_pixels is not None:
        if options.max_pixels < 1:
            raise UsageError(f"--max-pixels {options.max_pixels}: allowed are integers from 1")
        Image.MAX_IMAGE_PIXELS = options.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # what decompress refuses, compress refuses


def check_device_name(options: argparse.Namespace) -> None:
    """Raises UsageError where `--device` is none anywhere; whether it is here, torch knows."""
    try:
        check_device(options.device)
    except ArgumentError as error:
        raise UsageError(f"--device {options.device}: {error.allowed}") from error


def check_checkpoint(options: argparse.Namespace) -> None:
    """Raises CheckpointError where there is none, before torch is imported to load it."""
    if options.checkpoint:
        find_checkpoint(options.checkpoint)


def device_of(options: argparse.Namespace) -> "torch.device":
    """The device of `--device`. Raises UsageError if there is none."""
    try:
        return api.device_of(options.device)
    except ArgumentError as error:
        raise UsageError(f"--device {options.device}: {error.allowed}") from error
