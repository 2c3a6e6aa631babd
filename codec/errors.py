"""Errors of the user, each a line that says what was wrong and what to do; whatever else is raised is ours."""

from collections.abc import Sequence
from typing import Any


class UserError(Exception):
    """Something that the user can mend; every line of the text is one fault."""


class EncodeError(UserError, ValueError):
    """An image, or what travels with it, that a codec has no file for; the text is one line that says why."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used, or is not there; the text is one line that says why."""


class ConfigError(UserError, ValueError):
    """A config that cannot be run; each line of the text names what is wrong and what is allowed."""


class ArgumentError(ConfigError):
    """An argument `key` whose `value` is none of those that are `allowed`, in words."""

    def __init__(self, key: str, value: Any, allowed: str) -> None:
        super().__init__(key, value, allowed)
        self.key = key
        self.value = value
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.key}={shown(self.value)}: {self.allowed}"


class ArgumentsError(ConfigError):
    """Several of them at once, in `faults`."""

    def __init__(self, faults: Sequence[ArgumentError]) -> None:
        super().__init__(faults)
        self.faults = list(faults)

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class JobFailedError(UserError, RuntimeError):
    """A job of a sweep failed; the text is one line that says which, why, and where its log is."""


class MissingPackageError(ConfigError):
    """A package that only an extra of pyproject.toml brings; the text is one line that says what to install."""


def shown(value: Any) -> str:
    """A value as one types it in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value)
