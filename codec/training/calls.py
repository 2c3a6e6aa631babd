"""What a config asks to be called: checked against the signatures, then called."""

import inspect
import pydoc
from collections.abc import Callable, Iterable
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from codec.errors import ConfigError
from codec.training.faults import USER_ERRORS, cause_of


def make(key: str, node: Any, by: Callable[..., Any] | None = None, **arguments: Any) -> Any:
    """What the config `node` at `key` describes, made with `arguments` besides its own; `by` Hydra, unless given.

    Raises ConfigError where a `_target_` does not exist or takes no such arguments, and where a library refuses
    their values; else what a constructor raised, with the traceback of that.
    """
    if isinstance(node, DictConfig):
        check_calls(key, OmegaConf.to_container(node, resolve=True), arguments)
    try:
        if by is not None:
            return by(OmegaConf.to_container(node, resolve=True))
        return instantiate(node, **arguments, _convert_="all")
    except InstantiationException as error:
        cause = cause_of(error)
        if cause is error or isinstance(cause, USER_ERRORS):
            raise
        if not str(node.get("_target_")).startswith("codec.") and _is_about_values(cause):
            raise ConfigError(str(cause)) from cause
        raise cause from cause.__cause__


def call(partial: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a part of a config that is `_partial_` gives for these arguments. Raises ConfigError as `make` does."""
    try:
        return partial(*arguments, **named)
    except Exception as error:
        of_ours = getattr(partial, "func", partial).__module__.startswith("codec.")
        if of_ours or not _is_about_values(error):
            raise
        raise ConfigError(str(error)) from error


def check_calls(key: str, node: Any, further: Iterable[str] = ()) -> None:
    """Raises ConfigError where a `_target_` at or below `node` does not exist, or lacks one of the arguments.

    `further` are the names of arguments that are given to the uppermost besides its own.
    """
    if isinstance(node, list):
        for number, value in enumerate(node):
            check_calls(f"{key}[{number}]", value)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        check_calls(f"{key}.{name}", value)
    if "_target_" not in node:
        return
    target = _located(key, node["_target_"])
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # nothing is known of it
        return
    named = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    given = [name for name in node if not name.startswith("_")] + list(further)
    short = node["_target_"].rpartition(".")[2]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in given:
            if name not in named:
                raise ConfigError(f"{key}.{name}: {short} has no such argument; it has {', '.join(named)}")
    needed = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    if not node.get("_partial_") and "_args_" not in node and (missing := [n for n in needed if n not in given]):
        raise ConfigError(f"{key}: {short} needs {' and '.join(missing)}")


def _located(key: str, target: Any) -> Any:
    try:
        found = pydoc.locate(str(target))
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(f"{key}._target_={target}: importing it fails: {error.value}") from error
    if found is None:
        raise ConfigError(f"{key}._target_={target}: there is no such thing to import")
    return found


def _is_about_values(error: BaseException) -> bool:
    """Whether a library's constructor means the values that the config gave it, as far as its kind tells."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    return isinstance(error, ValueError | TypeError | ImportError | MisconfigurationException)
