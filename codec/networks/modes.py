"""Modes that code runs in: modules' training and evaluation, and arithmetic that can be repeated."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

_ON_A_GPU = threading.RLock()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, all of `module` is in evaluation mode; afterwards each of its parts in that which it was in."""
    modes = [(part, part.training) for part in module.modules()]
    if any(training for _, training in modes):
        module.eval()
    try:
        yield
    finally:
        for part, training in modes:  # not train(True): a part may have been frozen by itself
            part.training = training


@contextmanager
def repeatable(device_type: str) -> Iterator[None]:
    """Inside, full precision, and of a GPU's kernels those that give the same every time."""
    kernels = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    # These flags are the process's: of several threads one codes on a GPU at a time.
    alone = nullcontext() if device_type == "cpu" else _ON_A_GPU
    with alone, torch.autocast(device_type, enabled=False), kernels:
        yield
