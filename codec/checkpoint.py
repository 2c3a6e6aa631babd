"""Codecs from configs and from checkpoints, which may come from strangers: nothing in them is executed.

A checkpoint is read with `weights_only=True` or is a safetensors file, and its model config may name only classes
that are codecs or neural network modules, of this package or of modules that the environment names.
"""

import functools
import importlib
import json
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from codec.checkpoint_files import find_checkpoint
from codec.checkpoint_limits import (
    check_archive,
    check_finite,
    check_types,
    check_values,
    check_weights,
    no_larger_than,
)
from codec.data.download import file_sha256
from codec.entropy import LogisticMixture
from codec.entropy.tables import CodingTables
from codec.errors import ArgumentError, CheckpointError
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.networks.exact import ExactConv2d, ExactUpConv2d
from codec.pretrained import Weights, choose

# Where codecs and their parts are: of what a stranger names, no other module is so much as imported.
_OF_MODELS = ("codec.schemes.", "codec.entropy.", "codec.networks.", "codec.baselines.")
# Beside them, modules of the user's own, a comma between two.
_OWN_MODULES = "QUINTET_MODULES"
_LONGEST_REASON = 300  # characters


def build_codec(model_config: dict[str, Any]) -> ImageCodec:
    """The codec a resolved model config describes (plain containers, `_target_` and arguments).

    Raises CheckpointError if a `_target_` is not a codec or module class of the package `codec`, or of a module
    that the environment variable QUINTET_MODULES names.
    """
    _check_targets(model_config)
    codec = _built(model_config)
    if isinstance(codec, LearnedCodec):
        codec.model_config = model_config
    return codec


def load_codec(path: str | Path, device: str | torch.device = "cpu") -> LearnedCodec:
    """The trained codec in a checkpoint, a file of `save_weights`, or a run's folder, in evaluation mode.

    Raises CheckpointError where the file is missing, is no checkpoint of ours, or its weights do not fit.
    """
    given, path = Path(path), find_checkpoint(path).absolute()
    best = path.with_name("best.ckpt")
    if path.name == "last.ckpt" and not given.is_file() and best.is_file():
        print(f"{best} is torn: {path.name} is used instead", file=sys.stderr)
    try:
        model_config, weights = _read_weights(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    except pickle.UnpicklingError as error:  # torch's text tells how to run the code in it: not repeated
        raise CheckpointError(
            f"{path} is not a checkpoint of train.py: its pickle is damaged or holds code"
        ) from error
    except Exception as error:  # torch's unpickler fails on damaged bytes in any way there is
        raise CheckpointError(f"{path} is not a checkpoint of train.py: {_first_line(error)}") from error
    try:
        check_values(model_config)
        check_weights(weights)
        with torch.inference_mode(False):
            with no_larger_than(weights):
                codec = build_codec(model_config)
            _check_is_learned(codec)
            check_types(codec, weights)
            codec.load_state_dict(weights)
            check_finite(codec)
            for module in codec.modules():
                if isinstance(module, CodingTables):
                    _check_tables(module)
                if isinstance(module, LogisticMixture):
                    _check_logistic(module)
                if isinstance(module, ExactConv2d | ExactUpConv2d):
                    module.eval().rounded()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a config from a stranger may fail anywhere in a constructor
        raise CheckpointError(f"{path} does not fit this program's model: {_first_line(error)}") from error
    return codec.to(device).eval()


def load_pretrained(model: str | Weights | None = None, quality: float | None = None) -> LearnedCodec:
    """The codec of a model that comes with the package, None being the default one, writing files at `quality`.

    It is on the CPU, in evaluation mode. Raises CheckpointError if there is no such model or quality, or its file
    is damaged; ArgumentError if its files can hold no such fraction of a quality.
    """
    weights = model if isinstance(model, Weights) else choose(model, quality)
    if not weights.path.is_file() or file_sha256(weights.path) != weights.sha256:
        raise CheckpointError(f"{weights.path} is missing or is not the file it was: install the package again")
    codec = load_codec(weights.path)
    if weights.accepts and quality is not None:
        codec.set_quality(quality)
        if codec.quality != quality:
            raise ArgumentError("quality", quality, f"a file holds {codec.quality:g}, the nearest that it can")
    return codec


def start_from(codec: LearnedCodec, path: str | Path) -> str:
    """Copies into `codec` all weights of the checkpoint at `path` that it has by the same name and shape.

    The rest stays as it is; coding tables are made anew. Returns what was copied as a line for the user. Raises
    CheckpointError where nothing fits.
    """
    other = load_codec(path)
    theirs, ours = other.state_dict(), codec.state_dict()
    # Tables and a transform's steps are left out: they follow from the codec's own bits.
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = {name for name, _ in codec.named_parameters()} | {k for k in ours if k.endswith(statistics)}
    fitting = {k: v for k, v in theirs.items() if k in learned and ours[k].shape == v.shape}
    if not fitting:
        raise CheckpointError(
            f"{path} holds a {type(other).__name__}, which shares no weights with a {type(codec).__name__}: choose "
            "its model, or the experiment that trained it"
        )
    codec.load_state_dict(ours | fitting)
    return f"starting from {path}: {len(fitting)} of {len(learned)} weights fit"


def round_to_half(codec: LearnedCodec) -> None:
    """Rounds every parameter to a half-precision number and makes the coding tables anew from them.

    They stay float32, and buffers, BatchNorm's statistics among them, as they are. Raises ValueError if a parameter
    is not finite or beyond half precision's range.
    """
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            rounded = parameter.half().to(parameter.dtype)
            if not bool(torch.isfinite(rounded).all()):
                raise ValueError(f"{name} holds numbers that half precision, up to ±65504, does not have")
            parameter.copy_(rounded)
    for module in codec.modules():
        if isinstance(module, CodingTables):
            module.current_tables()


def save_weights(codec: LearnedCodec, path: str | Path, half: bool = False) -> None:
    """Writes the weights, the tables and the model config as safetensors: all that coding needs, nothing else.

    With `half`, parameters take two bytes each. Raises ValueError if that would change one, see `round_to_half`:
    what is loaded then would not read the files that this codec wrote.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in codec.state_dict().items()}
    if half:
        for name, _ in codec.named_parameters():
            exact, state[name] = state[name], state[name].half()
            if not torch.equal(state[name].to(exact.dtype), exact):
                raise ValueError(f"{name} is not in half precision: call round_to_half first")
    save_file(state, path, metadata={"model_config": json.dumps(codec.model_config)})


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    check_archive(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint["model_config"], dict):
        raise TypeError("its model config is no dictionary")
    return checkpoint["model_config"], checkpoint["state_dict"]


def _read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["model_config"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _check_is_learned(codec: ImageCodec) -> None:
    if not isinstance(codec, LearnedCodec):
        raise CheckpointError(f"its model config makes a {type(codec).__name__}, not a learned codec")


def _check_tables(model: CodingTables) -> None:
    used, unused = model.tables.split([model.width, model.tables.shape[1] - model.width], 1)
    ends_are_right = bool((used[:, 0] == 0).all() & (used[:, -1] == 65536).all() & (unused == 65536).all())
    if not ends_are_right or bool((used.diff() < 1).any()):
        raise CheckpointError("its tables are not cumulative counts from 0 to 65536")
    if not model.tables_are_current():  # made again here, they might not be those that files were coded with
        raise CheckpointError("its tables were not made from its prior: save it again with codec.checkpoint")


def _check_logistic(mixture: LogisticMixture) -> None:
    if not mixture.tables_are_valid():
        raise CheckpointError(
            "its tables are not the logistic distribution's: it is damaged or forged, get it again"
        )


def _built(node: Any) -> Any:
    """What a checked config describes, as Hydra makes it, whose import takes longer than a codec to load."""
    if isinstance(node, list):
        return [_built(value) for value in node]
    if not isinstance(node, dict):
        return node
    arguments = {key: _built(value) for key, value in node.items() if key not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return arguments
    module, _, name = node["_target_"].rpartition(".")
    target = getattr(importlib.import_module(module), name)
    return functools.partial(target, **arguments) if node.get("_partial_") else target(**arguments)


def _check_targets(node: Any) -> None:
    if isinstance(node, str) and "${" in node:  # OmegaConf would look up, or build, something unchecked
        raise CheckpointError(f"{node!r}: a model config holds no interpolations")
    if node is not None and not isinstance(node, (dict, list, str, bool, int, float)):
        raise CheckpointError(f"a model config holds plain values, no {type(node).__name__}")
    if isinstance(node, dict):
        if not all(type(key) is str for key in node):
            raise CheckpointError("a model config's keys are texts")
        if "_target_" in node:
            _check_target(node["_target_"])
        for value in node.values():
            _check_targets(value)
    elif isinstance(node, list):
        for value in node:
            _check_targets(value)


def _check_target(target: Any) -> None:
    module, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    own = [module.strip() for module in os.environ.get(_OWN_MODULES, "").split(",")]
    found = None
    if module and module in own:
        found = _of_own(target, module, name)
    elif f"{module}.".startswith(_OF_MODELS):
        with suppress(ImportError):
            found = getattr(importlib.import_module(module), name, None)
        if found is None:
            raise CheckpointError(f"_target_={target!r}: this program has no such class")
    if not (
        isinstance(found, type)
        and issubclass(found, nn.Module | ImageCodec)
        and f"{found.__module__}.".startswith(("codec.", f"{module}."))
    ):
        raise CheckpointError(
            f"_target_={target!r}: only codecs and neural modules of the package codec are allowed, "
            f"and of modules of your own that {_OWN_MODULES} names"
        )


def _of_own(target: str, module: str, name: str) -> Any:
    """What of a module of the user's own has this name."""
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        missing = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        hint = ": PYTHONPATH names the folder that it lies in" if missing else ""
        raise CheckpointError(f"_target_={target!r}: {error}{hint}") from error
    except Exception as error:  # whatever the user's code raises
        raise CheckpointError(f"_target_={target!r}: importing it fails: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        lines[0] += f" {lines[1]}"
    text = "".join(c if c.isprintable() else " " for c in lines[0]).rstrip(" .:") if lines else ""
    if len(text) > _LONGEST_REASON:  # torch names every weight of a model that is not here
        text = f"{text[:_LONGEST_REASON]} …"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
