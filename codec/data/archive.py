"""Test sets that are published as one zip archive of images: CLIC, Tecnick, DIV2K, or any other by its address."""

import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from codec.checks import check_integer
from codec.data.download import DownloadError, download, file_sha256
from codec.data.image_file import ImageFileError, read_image
from codec.data.source import FETCH, SourceError, check_folder, map_in_threads
from codec.errors import number_of

# What reading an archive raises, but for bz2's OSError, which writing to a full disk raises too.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


class ArchiveSource:
    """The `count` images whose names match `pattern`, as in "*.png", in `root` and below, for testing only.

    With `download`, an absent set is fetched from `url`, a zip archive, of which only these images are kept. If
    some lie in folders of `root`, or too many in it, SourceError says so before anything is fetched.
    Verified are: `sha256` in hex and `size` in bytes of the archive, where they are known; that it has `count` such
    images of names that differ; that each can be decoded, and has `image_size`, [height, width], where all have the
    same. Where no `sha256` is given, the one that was found is printed. Raises ArgumentError for no `count` from 1.
    """

    def __init__(
        self,
        root: str,
        url: str,
        count: int,
        pattern: str = "*.png",
        sha256: str | None = None,
        size: int | None = None,
        image_size: Sequence[int] | None = None,
        download: bool = False,
    ) -> None:
        check_integer("count", count, 1)
        self.root = Path(root)
        self.url = url
        self.count = count
        self.pattern = pattern
        self.sha256 = sha256
        self.size = size
        self.image_size = None if image_size is None else tuple(image_size)
        self.download = download

    def prepare(self) -> None:
        found = self._found()
        # What lies in folders would be there twice once the set is unpacked.
        if self.download and len(found) < self.count and all(path.parent == self.root for path in found):
            self._download()
        self.images("test")

    def images(self, split: str) -> list[Path]:
        if split != "test":
            raise SourceError("root", f"{self.root.name} is for testing only: train on another source")
        remedy = f"unpack {self.url} there" + ("" if self.download else f", or {FETCH}")
        check_folder("root", self.root, remedy)
        found = self._found()
        if len(found) != self.count:
            if self.download and found:
                remedy = "move them away, or give another root"
            there = number_of(len(found), "image")
            raise SourceError("root", self.root, f"{there} called {self.pattern} in it, not {self.count}: {remedy}")
        return found

    def _found(self) -> list[Path]:
        images = [path for path in self.root.rglob(self.pattern) if self._wanted(path.relative_to(self.root))]
        return sorted(images, key=lambda path: path.name)

    def _wanted(self, path: PurePosixPath) -> bool:
        return fnmatch(path.name, self.pattern) and not any(part.startswith(".") for part in path.parts)

    def _download(self) -> None:
        archive = self.root / ".download.zip"  # deleted in the end: no name that an archive of the user's has
        download(self.url, archive, self.sha256, size=self.size)
        sha256 = self.sha256 or file_sha256(archive)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".unpacked-") as unpacked:
            try:
                images = self._unpack(archive, Path(unpacked))
                self._verify(images)
            except DownloadError:
                archive.unlink()
                raise
            for image in images:
                image.replace(self.root / image.name)
        archive.unlink()
        if self.sha256 is None:
            print(f"{self.url}: verified without a checksum; to pin this file, set sha256: {sha256}")

    def _unpack(self, archive: Path, folder: Path) -> list[Path]:
        """The images of the archive, in `folder`, whichever folders they had. Raises DownloadError."""
        try:
            with zipfile.ZipFile(archive) as opened:
                members = [name for name in opened.namelist() if self._wanted(PurePosixPath(name))]
                names = {PurePosixPath(name).name for name in members}
                if not len(members) == len(names) == self.count:
                    raise DownloadError(
                        f"{self.url}: holds {len(names)} images called {self.pattern}, not {self.count}: it was "
                        "removed, try again or elsewhere"
                    )
                for name in members:
                    (folder / PurePosixPath(name).name).write_bytes(_member(opened, name))
        except _DAMAGED as error:
            raise DownloadError(f"{self.url}: is no whole zip archive: {error}: it was removed") from error
        return sorted(folder.iterdir())

    def _verify(self, images: list[Path]) -> None:
        faults = filter(None, map_in_threads(self._fault, images, f"verifying {self.root}"))
        if fault := next(faults, None):
            raise DownloadError(f"{self.url}: {fault}: it was removed, try again or elsewhere")

    def _fault(self, path: Path) -> str | None:
        """What is wrong with an image, if anything is."""
        try:
            size = tuple(read_image(path).shape[1:])
        except ImageFileError as error:
            return f"{path.name}: {error.allowed}"
        if self.image_size is not None and size != self.image_size:
            height, width = self.image_size
            return f"{path.name} has {size[1]}×{size[0]} pixels, not {width}×{height}"
        return None


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except OSError as error:
        raise zipfile.BadZipFile(f"{name}: {error}") from error
