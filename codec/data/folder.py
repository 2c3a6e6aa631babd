"""Any folder of images, searched recursively."""

from collections import Counter
from pathlib import Path

from codec.checks import check_fraction
from codec.data.image_list import SUFFIXES, list_images, printable
from codec.data.source import SourceError, check_folder, hold_out, named
from codec.errors import number_of


class FolderSource:
    """All images in `root` and below to train on; the test images come from one of three places.

    - `test_root` given: all images in that folder;
    - `test_fraction` > 0: this share of `root`, chosen by `seed` and kept out of training;
    - neither: every image of `root` serves both splits. For a folder that is used for one of them only.
    """

    def __init__(self, root: str, test_root: str | None = None, test_fraction: float = 0.0, seed: int = 0) -> None:
        check_fraction("test_fraction", test_fraction)
        # Of a folder called 2024 the command line makes a number.
        self.root = Path(str(root))
        self.test_root = None if test_root is None else Path(str(test_root))
        self.test_fraction = test_fraction
        self.seed = seed

    def prepare(self) -> None:
        check_folder("root", self.root, "name a folder of images")

    def images(self, split: str) -> list[Path]:
        if self.test_root is not None:
            return _images("root", self.root) if split == "train" else _images("test_root", self.test_root)
        images = _images("root", self.root)
        if not self.test_fraction:
            return images
        kept, held = hold_out(named(images), self.test_fraction, self.seed)
        chosen = kept if split == "train" else held
        if not chosen:
            there = number_of(len(images), "image")
            raise SourceError(
                "test_fraction", self.test_fraction, f"of {there} none is left for {split}: change it"
            )
        return chosen


def _images(name: str, folder: Path) -> list[Path]:
    check_folder(name, folder, "name a folder of images")
    try:
        images = list_images(folder)
    except OSError as error:
        raise SourceError(name, folder, f"{printable(error.filename)}: {error.strerror}") from error
    if not images:
        suffixes = Counter(path.suffix.lower() or "no suffix" for path in folder.rglob("*") if path.is_file())
        found = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
        raise SourceError(name, folder, f"no image in it, found {found}: known are {' '.join(sorted(SUFFIXES))}")
    return images
