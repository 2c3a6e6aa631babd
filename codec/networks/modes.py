"""Modules' modes, training and evaluation."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


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
