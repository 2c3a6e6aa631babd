"""Checks of a constructor's arguments; each raises ArgumentError: the key, its value, what is allowed."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from codec.errors import ArgumentError, ArgumentsError


def check_choice(key: str, value: Any, allowed: Sequence[str]) -> None:
    """`value` is one of `allowed`."""
    if value not in allowed:
        raise ArgumentError(key, value, f"allowed are {', '.join(allowed)}")


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
        raise ArgumentsError(faults)
