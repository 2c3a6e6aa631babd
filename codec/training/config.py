"""From a composed config to the objects it describes; every fault in it becomes one line for the user.

Importing this takes no torch, so that a fault that needs none to be seen is told at once.
"""

import inspect
import pydoc
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from codec.checks import check_seed
from codec.errors import ArgumentError, ConfigError, FaultsError, UserError, did_you_mean
from codec.training.faults import USER_ERRORS, cause_of, faults_in, lines_of

if TYPE_CHECKING:
    from codec.image_codec import ImageCodec

NOT_FOUND = "there is no such thing to import: PYTHONPATH names the folders of modules of your own"


class Builder:
    """Instantiates parts of a config one after the other and collects what is wrong with each.

    Used as `with Builder(cfg) as build: model = build.codec("model"); data = build.part("data")`; leaving the
    block raises ConfigError with every fault, a line each, if there was one. What is no fault of the config is
    raised at once.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.faults: list[UserError] = []
        self._first: BaseException | None = None

    def __enter__(self) -> "Builder":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None and self.faults:
            raise FaultsError(list({str(fault): fault for fault in self.faults}.values())) from self._first

    def seed(self) -> None:
        """Seeds Python, NumPy, torch and the data loaders' workers by the config's `seed`."""
        from lightning import seed_everything

        self.attempt("seed", lambda: check_seed("seed", self.config.seed))
        if not self.faults:
            seed_everything(self.config.seed, workers=True, verbose=False)

    def codec(self, key: str) -> "ImageCodec | None":
        """The codec at `key`, through `codec.checkpoint.build_codec`."""
        from codec.checkpoint import build_codec

        return self.attempt(key, lambda: make(key, self.config[key], by=build_codec))

    def part(self, key: str, **arguments: Any) -> Any:
        """Whatever stands at `key`, made with `arguments` besides its own; None if nothing stands there."""
        return self.attempt(key, lambda: make(key, OmegaConf.select(self.config, key), **arguments))

    def group(self, key: str) -> list[Any]:
        """The objects of a group of named parts, such as callbacks, in order; a part that is null is left out."""
        parts = {f"{key}.{name}": self.part(f"{key}.{name}") for name in self.config.get(key) or {}}
        self.faults += [
            ConfigError(name, "it has no _target_, so there is nothing to make")
            for name in parts
            if isinstance(parts[name], dict)
        ]
        return [part for part in parts.values() if part is not None]

    def attempt(self, key: str, step: Callable[[], Any]) -> Any:
        """What `step` gives; None if it raises something of USER_ERRORS, which is then a fault of `key`."""
        try:
            return step()
        except USER_ERRORS as error:
            self._first = self._first or error
            self.faults += [whole for fault in faults_in(error) for whole in self._placed(fault, key)]
            return None

    def _placed(self, fault: UserError, key: str) -> list[UserError]:
        """`fault`, which lies at or below `key`, with a whole key, a line each."""
        whole = _whole_key(self.config, fault.key, key) if isinstance(fault, ArgumentError) else None
        if whole is not None:
            return [ConfigError(whole, *fault.args[1:])]
        if fault.key is not None and (fault.key == key or fault.key.startswith((f"{key}.", f"{key}["))):
            return [fault]
        return [ConfigError(key, line) for line in lines_of(fault)]


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
                meant = did_you_mean(name, named, within=f"{key}.")
                raise ConfigError(
                    f"{key}.{name}", f"{short} has no such argument; it has {', '.join(named)}{meant}"
                )
    needed = [name for name in named if parameters[name].default is inspect.Parameter.empty]
    if not node.get("_partial_") and "_args_" not in node and (missing := [n for n in needed if n not in given]):
        raise ConfigError(key, f"{short} needs {' and '.join(missing)}")


def _located(key: str, target: Any) -> Any:
    try:
        found = pydoc.locate(str(target))
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(f"{key}._target_", target, f"importing it fails: {error.value}") from error
    if found is None:
        raise ConfigError(f"{key}._target_", target, NOT_FOUND)
    return found


def _is_about_values(error: BaseException) -> bool:
    """Whether a library's constructor means the values that the config gave it, as far as its kind tells."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    return isinstance(error, ValueError | TypeError | ImportError | MisconfigurationException)


def _whole_key(config: DictConfig, name: str, within: str) -> str | None:
    """The key of the argument `name` of what stands at `within`, as the user can set it; None if there is none.

    Of several keys of that name the uppermost is meant; one that repeats another stands for that.
    """
    sources = _sources(config)
    nodes = [within, *(source for key, source in sources.items() if key.startswith(f"{within}.") and source != key)]
    below = [key for key in sources if key in nodes or key.startswith(tuple(f"{node}." for node in nodes))]
    keys = [key for key in below if key.rpartition(".")[2] == name]
    return sources[min(keys, key=lambda key: key.count("."))] if keys else None


def _sources(config: DictConfig, prefix: str = "") -> dict[str, str]:
    """For every key that has a value, the key whose value it is: itself, or what it repeats as `${key}`."""
    sources = {}
    for key, value in config.items_ex(resolve=False):
        path = f"{prefix}{key}"
        if isinstance(value, DictConfig):
            sources |= _sources(value, f"{path}.")
        elif OmegaConf.is_interpolation(config, key):
            repeated = re.fullmatch(r"\$\{(\w[\w.]*)\}", value)
            sources |= {path: repeated[1]} if repeated else {}
        elif not OmegaConf.is_missing(config, key):
            sources[path] = path
    return sources
