"""Lightning, imported without what torchmetrics would bring along for metrics that coding does not compute."""

import gc
import importlib
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib.metadata import DistributionFinder, PackageNotFoundError

# Optional parts of torchmetrics, which Lightning imports whole.
NOT_NEEDED = ("matplotlib", "scipy", "torchvision")


def import_lightning(hidden: Collection[str] = NOT_NEEDED) -> None:
    """Imports Lightning, and torch with it, unless that is done; to torchmetrics, `hidden` are not installed.

    They can be imported as ever afterwards. What of torchmetrics needs them says that they are missing, as long as
    this process lasts.
    """
    if "lightning" in sys.modules:
        return
    with _without_collecting():
        try:
            with _absent(hidden):
                importlib.import_module("lightning")
        except ImportError:  # a release that cannot do without
            importlib.import_module("lightning")


@contextmanager
def _without_collecting() -> Iterator[None]:
    """No search for garbage, also none later among what is made here.

    Modules are made to stay, and looking through them takes a fifth of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


@contextmanager
def _absent(packages: Collection[str]) -> Iterator[None]:
    """In this block these packages cannot be imported, and their metadata is not found."""
    finder = _Absent(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Absent(DistributionFinder):
    def __init__(self, packages: Collection[str]) -> None:
        self.packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> tuple[()]:
        if context is not None and context.name in self.packages:
            raise PackageNotFoundError(context.name)
        return ()
