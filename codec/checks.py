"""Checks of a constructor's arguments; each raises ValueError, one line: the key, its value, what is allowed."""

import math
from collections.abc import Sequence
from typing import Any


def check_choice(key: str, value: Any, allowed: Sequence[str]) -> None:
    """`value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{key}={value}: allowed are {', '.join(allowed)}")


def check_integer(key: str, value: Any, lowest: int, highest: int | None = None) -> None:
    """`value` is an integer from `lowest` to `highest` (None: without end)."""
    if type(value) is not int or value < lowest or (highest is not None and value > highest):
        allowed = f"from {lowest}" if highest is None else f"{lowest} to {highest}"
        raise ValueError(f"{key}={value}: allowed are the integers {allowed}")


def check_seed(key: str, value: Any) -> None:
    """`value` is a seed that Python, NumPy and torch all take."""
    check_integer(key, value, 0, 2**32 - 1)


def check_positive(key: str, value: Any) -> None:
    """`value` is a finite number above 0."""
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{key}={value}: allowed are numbers above 0")


def check_integers(key: str, values: Any, count: int, lowest: int) -> None:
    """`values` is a list of `count` integers, each at least `lowest`."""
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else None
    if listed is None or len(listed) != count or any(type(v) is not int or v < lowest for v in listed):
        shown = values if listed is None else listed
        raise ValueError(f"{key}={shown}: allowed are lists of {count} integers from {lowest}")
