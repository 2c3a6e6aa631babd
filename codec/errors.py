"""Errors of the user, each of one line that says what was wrong and what to do; whatever else is raised is ours."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Self

DISTRIBUTION = "quintet-codec"  # this package where packages are installed from; `quintet` there is another's


class UserError(Exception):
    """Something that the user can mend, made of `(allowed)`, `(key, allowed)` or `(key, value, allowed)`.

    `key` is the argument, or key of the config, that is at fault, and `value` what it was, where these are known;
    `allowed` says in words what may stand there, or whatever else is wrong. The text is "key=value: allowed".
    """

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.key: str | None = about[0] if len(about) > 1 else None
        self.value: Any = about[1] if len(about) > 2 else None
        self.allowed: str = about[-1]

    def __str__(self) -> str:
        of_value = f"={shown(self.value)}" if len(self.args) > 2 else ""
        return str(self.allowed) if self.key is None else f"{self.key}{of_value}: {self.allowed}"

    @property
    def faults(self) -> "list[UserError]":
        """Each of what is wrong: of most errors, themselves."""
        return [self]

    def below(self, key: str) -> Self:
        """The same error of what stands at `key`, before which its own key is one of many."""
        return type(self)(key, *self.args) if self.key is None else type(self)(f"{key}.{self.key}", *self.args[1:])


class EncodeError(UserError, ValueError):
    """An image, or what travels with it, that a codec has no file for."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used, or is not there."""


class ConfigError(UserError, ValueError):
    """A config that cannot be run; `key` is a whole one, as in "data.batch_size"."""


class ArgumentError(ConfigError):
    """An argument that is not what it may be; `key` is its name alone, as in "batch_size"."""


class FaultsError(ConfigError):
    """Several faults at once, a line each."""

    def __init__(self, faults: Sequence[UserError]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self._faults = list(faults)

    @property
    def faults(self) -> list[UserError]:
        return list(self._faults)

    def below(self, key: str) -> "FaultsError":
        return FaultsError([fault.below(key) for fault in self._faults])


class MissingPackageError(ConfigError):
    """A package that only an extra of pyproject.toml brings; the text says what to install."""


def install(extra: str) -> str:
    """The command that installs what an extra of pyproject.toml brings."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def did_you_mean(text: str, known: Iterable[str], within: str = "") -> str:
    """What may have been meant by something misspelt, to stand at the end of a message; empty: nothing is near.

    `within` is what stands before each of these names where one types them.
    """
    near = get_close_matches(text, list(known), n=1)
    return f"; did you mean {within}{near[0]}?" if near else ""


def number_of(count: int, noun: str) -> str:
    """As in "1 image" and "24 images"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def warn(text: str) -> None:
    """Warns of something at the line that called this package, also by way of Pillow."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("codec", "PIL"):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)


def warn_of(lost: Sequence[str]) -> None:
    """Warns of everything that was left out at once, if there is any."""
    if lost:
        warn("; ".join(lost))


def shown(value: Any) -> str:
    """A value as one types it in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)
