"""Codecs from configs and from checkpoints, which may come from strangers: nothing in them is executed.

A checkpoint is read with `weights_only=True`, and its model config may name only classes of this package that
are neural network modules.
"""

import pickle
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from torch import nn

from codec.learned_codec import LearnedCodec


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the text is one line that says why."""


def build_codec(model_config: dict[str, Any]) -> LearnedCodec:
    """The codec a resolved model config describes (plain containers, `_target_` and arguments).

    Raises CheckpointError if a `_target_` is not a module class of the package `codec`.
    """
    _check_targets(model_config)
    codec = instantiate(model_config, _convert_="all")
    if isinstance(codec, LearnedCodec):
        codec.model_config = model_config
    return codec


def load_codec(path: str | Path, device: str | torch.device = "cpu") -> LearnedCodec:
    """The trained codec in a checkpoint file or a run's folder (its best checkpoint), in evaluation mode.

    Raises CheckpointError where the file is missing, is no checkpoint of ours, or its weights do not fit.
    """
    path = find_checkpoint(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model_config"), dict):
        raise CheckpointError(f"{path} holds no model config: it was not written by train.py")
    try:
        codec = build_codec(checkpoint["model_config"])
        codec.load_state_dict(checkpoint["state_dict"])
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a config from a stranger may fail anywhere in a constructor
        raise CheckpointError(f"{path} does not fit this program's model: {_first_line(error)}") from error
    return codec.to(device).eval()


def find_checkpoint(path: str | Path) -> Path:
    """`path` itself if it is a file, else the best or, failing that, the last checkpoint of a run's folder."""
    path = Path(path)
    for candidate in (path, path / "checkpoints/best.ckpt", path / "checkpoints/last.ckpt"):
        if candidate.is_file():
            return candidate
    raise CheckpointError(f"no checkpoint at {path}: give a .ckpt file or a run's folder (runs/NAME)")


def _check_targets(node: Any) -> None:
    if isinstance(node, dict):
        if "_target_" in node:
            target = str(node["_target_"])
            trusted = False
            if target.startswith("codec."):
                try:
                    trusted = issubclass(get_class(target), nn.Module)
                except (ImportError, ValueError):
                    raise CheckpointError(f"_target_={target}: this program has no such class") from None
            if not trusted:
                raise CheckpointError(f"_target_={target}: only neural modules of the package codec are allowed")
        for value in node.values():
            _check_targets(value)
    elif isinstance(node, list):
        for value in node:
            _check_targets(value)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
