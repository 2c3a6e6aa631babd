"""Where things lie: the config tree, the checkout, the scripts, and the home folder that `~` stands for.

What is no code is beside the package in a checkout, inside it where a wheel is installed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from codec.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
_OF_ENVIRONMENT = "${oc.env:"  # what repeats another value of the config follows that


def conf_folder() -> Path:
    """The tree of configs."""
    checkout = _PACKAGE.parent / "conf"
    return checkout if (checkout / "train.yaml").is_file() else _PACKAGE / "conf"


def checkout() -> Path | None:
    """The folder of the checkout that this package is part of; None of an installed wheel."""
    return None if conf_folder().parent == _PACKAGE else conf_folder().parent


def entry_command(name: str) -> list[str]:
    """What follows `python` on a command line that runs the entry point `train` or `evaluate`.

    In a checkout that is the script, as one would type it here; of a wheel, the module.
    """
    if checkout() is None:
        return ["-m", f"codec.training.{name}"]
    script = checkout() / f"{name}.py"
    return [str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)]


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
        raise ConfigError(key, text, "there is no such home folder, is HOME set? Give the whole path") from None


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
