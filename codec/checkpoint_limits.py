"""Limits on what a checkpoint from a stranger may claim: they are checked before memory or time is spent on it."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from codec.errors import CheckpointError

_MOST_VALUES = 1000  # in a model config; ours have about 30
_DEEPEST = 20
# A constructor may replace what a part of it made: the 1000 classes of torchvision's ResNets, for one.
_REPLACED = 1 << 22
# Modules and parameters for each tensor of a file, of which ours have up to 3, and besides.
_PARTS, _MORE_PARTS = 4, 1000


def check_archive(path: Path) -> None:
    """Raises what zipfile does if a .ckpt is no archive, ValueError if it claims to hold more than its own size."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise ValueError("it claims to hold more than its own size")


def check_values(config: Any) -> None:
    """Raises CheckpointError if a model config holds many more values than ours do, or is nested without end."""
    count, open_nodes = 0, [(config, 0)]
    while open_nodes:
        node, depth = open_nodes.pop()
        values = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
        count += len(values)
        if count > _MOST_VALUES or depth > _DEEPEST:
            raise CheckpointError(f"a model config holds at most {_MOST_VALUES} values, {_DEEPEST} deep")
        open_nodes.extend((value, depth + 1) for value in values)


def check_weights(weights: Any) -> None:
    """Raises CheckpointError, naming the tensor, unless all are dense and real, with memory for every number."""
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise CheckpointError("its state_dict is no dictionary of tensors")
    for name, tensor in weights.items():
        if type(tensor) not in (Tensor, nn.Parameter):
            raise CheckpointError(f"its state_dict holds a {type(tensor).__name__}, {name!r}: tensors are allowed")
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            kind = "quantised" if tensor.is_quantized else f"{tensor.layout}, {tensor.device}".replace("torch.", "")
            raise CheckpointError(f"{name} is {kind}: dense tensors with values are allowed")
        if tensor.is_complex():
            raise CheckpointError(f"{name} is complex: real numbers are allowed")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{name} claims {list(tensor.shape)} numbers: the file holds fewer")


def check_types(codec: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError, naming the tensor, if one is of another kind of numbers than the model's.

    Floating-point numbers of any width stand for the model's own. Names and shapes are left to load_state_dict.
    """
    for name, ours in _tensors(codec):
        theirs = weights.get(name, ours)
        if ours.dtype != theirs.dtype and not (ours.is_floating_point() and theirs.is_floating_point()):
            kinds = (str(tensor.dtype).removeprefix("torch.") for tensor in (theirs, ours))
            raise CheckpointError("{} is {}: the model has {}".format(name, *kinds))


def check_finite(codec: nn.Module) -> None:
    """Raises CheckpointError, naming the tensor, if a parameter or buffer holds nan or infinity."""
    for name, tensor in _tensors(codec):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} holds nan or infinity: the weights are not usable")


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Has modules made inside raise CheckpointError once they are a much larger model than that of `weights`.

    It has more parameters, which are counted when their module gets them, before they are filled: until then, they
    take no memory. Or it is of more parts, each of which takes time and memory however small it is.
    """
    held = sum(tensor.numel() for tensor in weights.values())
    made = parts = 0

    def count(_module: nn.Module, _name: str, part: Tensor | nn.Module | None) -> None:
        nonlocal made, parts
        parts += 1
        made += part.numel() if isinstance(part, Tensor) else 0
        if made > 2 * held + _REPLACED:
            raise CheckpointError(f"its config describes a larger model than the {held} numbers that it holds")
        if parts > _PARTS * len(weights) + _MORE_PARTS:
            raise CheckpointError(
                f"its config describes a larger model than the {len(weights)} tensors that it holds"
            )

    hooks = [register_module_parameter_registration_hook(count), register_module_module_registration_hook(count)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tensors(codec: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Not by a state dict, for which coding tables would be made anew."""
    yield from codec.named_parameters()
    yield from codec.named_buffers()
