"""Kept: what a module makes of its weights, made again only when they have changed."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from torch import Tensor, nn

Made = TypeVar("Made")


class Kept(nn.Module):
    """A module that keeps, in evaluation mode, what it made of its weights."""

    _kept: tuple[tuple, Any] | None = None

    def kept(self, tensors: tuple[Tensor, ...], make: Callable[[], Made]) -> Made:
        """What `make` gives, kept until one of `tensors` is another, or autograd counts a change of it.

        For evaluation only: a change from or to training forgets it.
        """
        kept = self._kept
        if kept is None or kept[0] != _versions(tensors):
            made = make()  # which may write some of them
            self._kept = kept = _versions(tensors), made
        return kept[1]

    def train(self, mode: bool = True) -> Self:
        self._kept = None  # weight averaging swaps weights behind autograd's version counters
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # elsewhere the tensors lie at other addresses

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        self._kept = None  # what is moved may come to lie where something else was
        return super()._apply(*arguments, **options)


def _versions(tensors: tuple[Tensor, ...]) -> tuple[tuple[int, int], ...]:
    return tuple((tensor.data_ptr(), tensor._version) for tensor in tensors)
