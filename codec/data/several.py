"""Several sources as one: their training images together, their test images together."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from codec.data.source import ImageSource, SourceError, named
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
        return list(self.named_images(split))

    def named_images(self, split: str) -> dict[Path, str]:
        """The images and their names: that of their source, and what they are called in it.

        One that two sources give is the first one's.
        """
        each = self._each(lambda source: named_images(source, split))
        images: dict[str, tuple[Path, str]] = {}
        for source, names in each.items():
            for path, name in names.items():
                images.setdefault(os.path.normpath(path.absolute()), (path, f"{source}/{name}"))
        return dict(images.values())

    def _each(self, function: Callable[[ImageSource], Result]) -> dict[str, Result]:
        results = {}
        for name, source in self.sources.items():
            try:
                results[name] = function(source)
            except SourceError as error:
                raise error.below(f"sources.{name}") from error
        return results


def named_images(source: ImageSource, split: str) -> dict[Path, str]:
    """What `source.images` gives, and the images' names, which do not depend on where their folders lie."""
    return source.named_images(split) if isinstance(source, SeveralSources) else named(source.images(split))
