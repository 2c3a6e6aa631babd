"""Checks of constructors' arguments; each raises ArgumentError: the key, its value, what is allowed.

First those of one value, then, from `check_bottleneck` on, those of whole constructors. They are not beside their
classes, which need torch, so that a config can be refused before torch is imported.
"""

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from codec.errors import ArgumentError, FaultsError

EFFORTS = range(10)  # how much work goes into a file of a learned codec


def check_choice(key: str, value: Any, allowed: Sequence[str]) -> None:
    """`value` is one of `allowed`."""
    if value not in allowed:
        raise ArgumentError(key, value, f"allowed are {', '.join(allowed)}")


def check_flag(key: str, value: Any) -> None:
    if type(value) is not bool:
        raise ArgumentError(key, value, "allowed are true and false")


def check_integer(key: str, value: Any, lowest: int, highest: int | None = None) -> None:
    """`value` is an integer from `lowest` to `highest` (None: without end)."""
    if type(value) is not int or value < lowest or (highest is not None and value > highest):
        allowed = f"from {lowest}" if highest is None else f"{lowest} to {highest}"
        raise ArgumentError(key, value, f"allowed are the integers {allowed}")


def check_within(key: str, value: Any, allowed: range | tuple[float, float]) -> None:
    """`value` is an integer of a range, or a number between the two ends of a pair."""
    if isinstance(allowed, range):
        check_integer(key, value, allowed[0], allowed[-1])
        return
    lowest, highest = allowed
    if type(value) not in (int, float) or not lowest <= value <= highest:
        ends = f"from {lowest:g}" if math.isinf(highest) else f"{lowest:g} to {highest:g}"
        raise ArgumentError(key, value, f"allowed are numbers {ends}")


def check_number(key: str, value: Any) -> None:
    """`value` is a number of any kind that a float can hold."""
    try:
        good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        good = False
    if not good:
        shown = repr(value) if isinstance(value, str) else value
        raise ArgumentError(key, shown, "allowed are finite numbers")


def check_names(key: str, values: Any) -> None:
    """`values` is a list of one or more names."""
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if not listed or not all(isinstance(value, str) and value for value in listed):
        raise ArgumentError(key, values, "allowed are lists of names, such as [decoder]")


def check_seed(key: str, value: Any) -> None:
    """`value` is a seed that Python, NumPy and torch all take."""
    check_integer(key, value, 0, 2**32 - 1)


def check_positive(key: str, value: Any) -> None:
    """`value` is a finite number above 0."""
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ArgumentError(key, value, "allowed are numbers above 0")


def check_from_zero(key: str, value: Any) -> None:
    """`value` is a finite number from 0."""
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ArgumentError(key, value, "allowed are numbers from 0")


def check_fraction(key: str, value: Any) -> None:
    """`value` is a number in [0, 1]."""
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ArgumentError(key, value, "allowed are 0 to 1")


def check_channels(key: str, channels: Any) -> None:
    """`channels` are those of images that are coded here."""
    if channels not in (1, 3):
        raise ArgumentError(key, channels, "allowed are 1 (greyscale) and 3 (RGB)")


def check_integers(key: str, values: Any, lowest: int, count: int | None = None, fewest: int = 1) -> None:
    """`values` is a list of `count` integers (None: of `fewest` or more), each at least `lowest`."""
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else None
    right = listed is not None and (len(listed) >= fewest if count is None else len(listed) == count)
    if not right or any(type(value) is not int or value < lowest for value in listed):
        how_many = f"{fewest} or more" if count is None else count
        raise ArgumentError(
            key, values if listed is None else listed, f"allowed are lists of {how_many} integers from {lowest}"
        )


@contextmanager
def together() -> Iterator[Callable[..., None]]:
    """Of several checks, as in `check(check_integer, "a", a, 1)`, raises at the block's end all that failed."""
    faults: list[ArgumentError] = []

    def check(one: Callable[..., None], *arguments: Any) -> None:
        try:
            one(*arguments)
        except ArgumentError as error:
            faults.append(error)

    yield check
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise FaultsError(faults)


def check_bottleneck(bits: Any, noise: Any) -> None:
    """How a latent is quantised. Raises ArgumentError."""
    with together() as check:
        check(check_integer, "bits", bits, 1, 8)
        check(check_choice, "noise", noise, ("uniform", "paper", "straight_through", "chosen"))


def check_loss(
    mse_weight: Any = 1.0,
    ssim_weight: Any = 0.0,
    vgg_weight: Any = 0.0,
    rate_weight: Any = 0.0,
    ssim_scales: Any = (1.0,),
) -> None:
    """The weights of a RateDistortionLoss. Raises ArgumentError."""
    with together() as check:
        check(check_from_zero, "mse_weight", mse_weight)
        check(check_from_zero, "ssim_weight", ssim_weight)
        check(check_from_zero, "vgg_weight", vgg_weight)
        check(check_from_zero, "rate_weight", rate_weight)
        check(_check_scales, ssim_scales)
    if not any((mse_weight, ssim_weight, vgg_weight, rate_weight)):
        raise ArgumentError(
            "mse_weight", mse_weight, "of this, ssim_weight, vgg_weight and rate_weight one must be positive"
        )


def check_data(
    val_fraction: Any = 0.1,
    channels: Any = 3,
    crop_size: Any = 256,
    eval_crop: Any = None,
    smallest_scale: Any = 1.0,
    crops_per_image: Any = 1,
    batch_size: Any = 16,
    num_workers: Any = 2,
    limit: Any = None,
    split_seed: Any = 0,
    seed: Any = 0,
    codings: Any = None,
) -> None:
    """Numbers of an ImageDataModule. Raises ArgumentError, or FaultsError with all that is wrong."""
    with together() as check:
        if crop_size is not None:
            check(check_integer, "crop_size", crop_size, 1)
        if eval_crop is not None:
            check(check_integer, "eval_crop", eval_crop, 1)
        check(_check_scale, smallest_scale, crop_size)
        check(check_integer, "crops_per_image", crops_per_image, 1)
        check(check_integer, "batch_size", batch_size, 1)
        if limit is not None:
            check(check_integer, "limit", limit, 1)
        if codings is not None:
            check(check_integer, "codings", codings, 1)
        check(check_channels, "channels", channels)
        check(check_integer, "num_workers", num_workers, 0)
        check(check_seed, "split_seed", split_seed)
        check(check_seed, "seed", seed)
        check(_check_val_fraction, val_fraction)


def check_device(device: Any, auto: bool = False) -> None:
    """Where files are coded. Raises ArgumentError on all but cpu, cuda, cuda:N, mps and, where it is, `auto`."""
    kinds = ("auto", "cpu", "cuda", "mps") if auto else ("cpu", "cuda", "mps")
    kind, _, index = str(device).partition(":")
    if kind not in kinds or not (index or "0").isdecimal() or (index and kind != "cuda"):
        raise ArgumentError("device", device, f"allowed are {', '.join(kinds).replace('cuda', 'cuda, cuda:N')}")


def _check_scale(scale: Any, crop_size: Any) -> None:
    if type(scale) not in (int, float) or not 0 < scale <= 1:
        raise ArgumentError("smallest_scale", scale, "allowed are numbers above 0 up to 1")
    if scale < 1 and crop_size is None:
        raise ArgumentError("smallest_scale", scale, "it needs data.crop_size; without one allowed is 1")


def _check_val_fraction(fraction: Any) -> None:
    if not (isinstance(fraction, float) and 0 < fraction < 1):
        raise ArgumentError("val_fraction", fraction, "allowed are numbers between 0 and 1")


def _check_scales(scales: Any) -> None:
    listed = list(scales) if isinstance(scales, Sequence) and not isinstance(scales, str) else []
    if len(listed) not in range(1, 6) or not all(type(scale) in (int, float) and scale > 0 for scale in listed):
        raise ArgumentError("ssim_scales", scales, "allowed are one to five numbers above 0")
