"""`~` in the paths of a config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from codec.errors import ConfigError

_OF_ENVIRONMENT = "${oc.env:"  # what repeats another value of the config follows that


def expand_home(config: DictConfig) -> None:
    """Puts the home folder in place of a `~` at the beginning of any value, once a config is composed.

    Raises ConfigError where that folder is not known.
    """
    for key, node, name, text in list(_texts(config, "")):
        value = node[name] if text.startswith(_OF_ENVIRONMENT) else text
        if isinstance(value, str) and (expanded := home_path(value, key)) != value:
            node[name] = expanded


def home_path(text: str, key: str) -> str:
    """`text`, the value of `key`, with the home folder for `~`. Raises ConfigError where that is not known."""
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:  # no HOME, and the user has no entry in the password file; or nobody is called so
        raise ConfigError(f"{key}={text}: there is no such home folder, is HOME set? Give the whole path") from None


def _texts(node: DictConfig | ListConfig, prefix: str) -> Iterator[tuple[str, DictConfig | ListConfig, Any, str]]:
    """`(whole key, the node it is in, its name there, its text as it was given)` of every text."""
    if isinstance(node, ListConfig):
        items = list(enumerate(node._iter_ex(resolve=False)))
    else:
        items = list(node.items_ex(resolve=False))
    for name, value in items:
        key = f"{prefix}{name}"
        if isinstance(value, DictConfig | ListConfig):
            yield from _texts(value, f"{key}.")
        elif isinstance(value, str):
            yield key, node, name, value


# For Hydra's own folders, which it makes before the config is read.
OmegaConf.register_new_resolver("home", lambda text: home_path(str(text), "runs"), replace=True)
