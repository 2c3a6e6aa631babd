"""What commands that decode share: options, limits, and the codec that a file was written with."""

import argparse
import threading
import warnings
from typing import TYPE_CHECKING

from PIL import Image

from codec import bitstream, pretrained
from codec.bitstream import BitstreamError
from codec.checks import check_device
from codec.cli.console import UsageError
from codec.errors import ArgumentError

if TYPE_CHECKING:  # torch is imported only where an image is coded
    import torch

    from codec.learned_codec import LearnedCodec


class Decoders:
    """The codecs of files: the one of `--checkpoint` if it is given, else pretrained ones, each loaded once.

    Takes `--device` too. Raises UsageError, or CheckpointError where the checkpoint cannot be used. Threads may
    share it.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from codec.checkpoint import load_codec

        self._device = device_of(options)
        self._named = load_codec(options.checkpoint).to(self._device) if options.checkpoint else None
        self._loaded: dict[bytes, LearnedCodec] = {}
        self._loading = threading.Lock()

    def of(self, data: bytes) -> "LearnedCodec":
        """The codec to decode a file with. Raises BitstreamError if none of those that are known wrote it."""
        from codec.checkpoint import load_pretrained

        if self._named is not None:
            return self._named
        fingerprint = bitstream.unpack(data)[0].fingerprint
        with self._loading:
            if fingerprint not in self._loaded:
                weights = pretrained.written_by(fingerprint)
                if weights is None:
                    raise BitstreamError(
                        f"the file was written with weights {fingerprint.hex()}, those of no pretrained model: "
                        "name what wrote it with --checkpoint"
                    )
                self._loaded[fingerprint] = load_pretrained(weights).to(self._device)
            return self._loaded[fingerprint]


def limit_pixels(options: argparse.Namespace) -> None:
    """Sets the largest image to open, `--max-pixels`, or leaves Pillow's; what is larger is refused."""
    if options.max_pixels is not None:
        if options.max_pixels < 1:
            raise UsageError(f"--max-pixels {options.max_pixels}: allowed are integers from 1")
        Image.MAX_IMAGE_PIXELS = options.max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)  # what decompress refuses, compress refuses


def device_of(options: argparse.Namespace) -> "torch.device":
    """The device of `--device`. Raises UsageError if there is none."""
    import torch

    try:
        check_device(options.device)
    except ArgumentError as error:
        raise UsageError(f"--device {options.device}: {error.allowed}") from error
    try:
        return torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:  # torch's own words name its builds and web pages
        raise UsageError(f"--device {options.device}: torch finds no such device here") from error
