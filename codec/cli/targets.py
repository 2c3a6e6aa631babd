"""What `codec compress` is told of the files to write: a quality, or what each must reach, and an effort."""

import argparse
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

from codec import pretrained
from codec.checks import EFFORTS, check_within
from codec.cli.console import UsageError
from codec.errors import ArgumentError
from codec.loaded_codec import set_to

if TYPE_CHECKING:  # torch is imported only where an image is coded
    from codec.learned_codec import LearnedCodec
    from codec.pretrained import Weights

_POWERS = {"": 1, "k": 1000, "m": 1000**2}


def add_options(command: argparse.ArgumentParser) -> None:
    rate = command.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality",
        type=_number("--quality", lowest=-math.inf),
        metavar="N",
        help="one of the model's: larger ones make larger files, better images; of a variable rate 0 to 100 in "
        "steps of 0.5. Of models behind JPEG 2000 it is a compression ratio: larger ones make smaller files",
    )
    rate.add_argument(
        "--max-bytes",
        type=_bytes,
        metavar="N",
        help="of each file, as in 50000, 100k or 1.5M: the best quality whose whole file is no larger is searched "
        "for each image, about 8 encodes; of models that write at many qualities",
    )
    rate.add_argument(
        "--bpp",
        type=_number("--bpp"),
        metavar="X",
        help="of each file at most, in bits per pixel, metadata included; searched likewise",
    )
    rate.add_argument(
        "--psnr",
        type=_number("--psnr"),
        metavar="X",
        help="of each decoded image at least, in dB: the smallest file that reaches it; searched likewise",
    )
    command.add_argument(
        "--effort",
        type=int,
        metavar="N",
        help="0 to 9, for smaller files at equal error: 0 rounds, 1 chooses levels by rate and distortion, the "
        "default where the rate varies, else 0. More also tries to move them by gradients, in 2 to 26 times the "
        "time: for about 1 dB with conv_baseline and conv_enhanced, for next to nothing with the other models, the "
        "default one among them. comcnn_… and lossless_… have no such choice",
    )


def chosen(model: str | None, quality: float | None) -> "Weights":
    """The pretrained weights of `--model`, None being the default one, for `--quality`. Raises UsageError."""
    try:
        return pretrained.choose(model, quality)
    except ArgumentError as error:
        raise UsageError(f"--quality {error.value:g}: {error.allowed}") from error


def target_of(options: argparse.Namespace, weights: "Weights | None") -> dict[str, float]:
    """What is to be searched for, as `encode_to` takes it; empty if nothing is.

    Raises UsageError where these pretrained `weights`, if any, write at one rate only.
    """
    named = {key: getattr(options, key) for key in ("max_bytes", "bpp", "psnr")}
    target = {key: value for key, value in named.items() if value is not None}
    if target and weights is not None and not weights.accepts:
        raise _one_rate_only(target, f"the weights of {weights.label} write")
    return target


def runs_backwards(codec: "LearnedCodec") -> bool:
    """Whether of a larger quality files are smaller, as of JPEG 2000's, which is a ratio."""
    grid = codec.quality_grid
    return grid is not None and grid[0] > grid[-1]


def check_effort(effort: int | None, weights: "Weights | None") -> None:
    """Raises UsageError where no codec has this effort, or these pretrained `weights`, if any, have no choice."""
    if effort is None:
        return
    try:
        check_within("effort", effort, EFFORTS)
    except ArgumentError as error:
        raise UsageError(f"--effort {effort}: {error.allowed}") from error
    if weights is not None and not weights.levels_alone:
        others = [model.name for model in pretrained.pretrained_models() if model.weights[0].levels_alone]
        raise UsageError(f"--effort {effort}: {weights.name} has no such choice; {', '.join(others)} have")


def prepare(codec: "LearnedCodec", target: dict[str, float], quality: float | None, effort: int | None) -> None:
    """Sets the quality and the effort, None leaving the codec's own. Raises UsageError, also for `target`."""
    if target and codec.quality_grid is None:
        raise _one_rate_only(target, "the codec of this checkpoint writes")
    try:
        set_to(codec, quality, effort)
    except ArgumentError as error:
        raise UsageError(f"--{error.key} {error.value:g}: {error.allowed}") from error


def _one_rate_only(target: dict[str, float], what: str) -> UsageError:
    (key,) = target
    ranged = [model.name for model in pretrained.pretrained_models() if model.weights[0].accepts]
    others = "".join(f"--model {name}, " for name in ranged)
    return UsageError(
        f"--{key.replace('_', '-')}: {what} at one rate only, name what writes at many: {others}or --checkpoint "
        "with a run of bottleneck.variable_rate=true or model=comcnn_reccnn"
    )


def _number(option: str, lowest: float = 0) -> Callable[[str], float]:
    """Reads what is given for `option`, a number above `lowest`, whole ones as integers. Raises UsageError."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest < value < math.inf:
            raise UsageError(f"{option} {text}: allowed are numbers{' above 0' if lowest == 0 else ''}")
        return int(value) if value.is_integer() else value

    return read


def _bytes(text: str) -> int:
    read = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([km]?)", text, re.IGNORECASE)
    size = Fraction(read[1]) * _POWERS[read[2].lower()] if read else Fraction(0)
    if size < 1 or size.denominator != 1:
        raise UsageError(f"--max-bytes {text}: allowed are whole bytes from 1, as in 50000, 100k or 1.5M")
    return int(size)
