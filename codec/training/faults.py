"""What of all that is raised is the user's to mend, and what is said of it. Needs no torch."""

import re

from hydra.errors import HydraException, InstantiationException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from codec.errors import UserError

# Faults that the user can mend; anything else is ours, and its traceback is wanted.
USER_ERRORS = (
    UserError,
    HydraException,
    OmegaConfBaseException,
    OSError,  # no space, no permission, no such folder
)


def cause_of(error: BaseException) -> BaseException:
    """What a constructor raised that Hydra called; any other error itself."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def messages(error: BaseException) -> list[str]:
    """What went wrong first, one line a fault; of Hydra's and OmegaConf's own texts, what helps, in one line."""
    error = cause_of(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return lines or [type(error).__name__]
    noise = r"(full_key|object_type|reference_type|Set the env|Config search path|provider=|Key )"
    text = " ".join(line for line in lines if not re.match(noise, line)) or type(error).__name__
    text = re.sub(r"\. To append to your config use .*", ": there is no such key; --help lists them all", text)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return [f"{error.override}: quote a value with spaces or signs twice, '{key}=\"{value}\"'"]
    full_key = getattr(error, "full_key", None)
    return [f"{full_key}: {text}" if full_key and full_key not in text else text]
