"""Several sources as one: their training images together, their test images together."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from codec.data.source import ImageSource, SourceError
from codec.errors import ArgumentError

Result = TypeVar("Result")


class SeveralSources:
    """`sources`, by name; a fault of one (SourceError) begins with its name. Raises ValueError if there is none."""

    def __init__(self, sources: Mapping[str, ImageSource]) -> None:
        if not sources:
            raise ArgumentError("sources", sources, "name at least one")
        self.sources = dict(sources)

    def prepare(self) -> None:
        self._each(lambda source: source.prepare())

    def images(self, split: str) -> list[Path]:
        return [path for paths in self._each(lambda source: source.images(split)) for path in paths]

    def _each(self, function: Callable[[ImageSource], Result]) -> list[Result]:
        results = []
        for name, source in self.sources.items():
            try:
                results.append(function(source))
            except SourceError as error:
                raise error.below(f"sources.{name}") from error
        return results
