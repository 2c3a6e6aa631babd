"""RAISE: 8156 camera-raw photographs of about 4928x3264, as NEF and TIFF, decoded once into small 8-bit PNGs.

https://loki.disi.unitn.it/RAISE/ (Dang-Nguyen, Pasquini, Conotter and Boato, ACM MMSys 2015)
"""

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import rawpy
import torch
from torch import Tensor

from codec.checks import check_fraction, check_integer
from codec.data.dataset import check_size, resize_image
from codec.data.download import download
from codec.data.image_file import ImageFileError, read_image, write_image
from codec.data.source import (
    SourceError,
    check_folder,
    hold_out,
    map_in_threads,
    named,
    shuffled,
)
from codec.errors import ArgumentError, number_of

CATEGORIES = ("outdoor", "indoor", "landscape", "nature", "people", "objects", "buildings")
KINDS = {"TIFF": (".tif", ".tiff"), "NEF": (".nef",)}  # column of the address: suffixes; the first is preferred


class RaiseSource:
    """The images that the RAISE list `csv` (columns File, NEF, TIFF, Keywords) names and `root` holds.

    `csv` is relative to `root`. `categories` keeps the images that have any of them as a keyword, `n` then a
    random subset by `seed`. Files are `<File>.TIF` or `<File>.NEF`, anywhere in `root`. `prepare` decodes them to
    8-bit RGB of `cache_size` (shorter side or [height, width]; null: as they are) in `root/.quintet-cache`; a
    second call continues where the first was cut. With `download`, absent files are fetched from the list's
    addresses, on `host` if given: the addresses of older lists name a machine that is gone.
    `test_fraction` of the images are held out for the test split; 0 lets every image serve both splits.
    """

    def __init__(
        self,
        root: str,
        csv: str = "RAISE_all.csv",
        categories: Sequence[str] | None = None,
        n: int | None = None,
        seed: int = 0,
        cache_size: int | Sequence[int] | None = None,
        download: bool = False,
        host: str | None = None,
        test_fraction: float = 0.0,
    ) -> None:
        unknown = sorted(set(categories or ()) - set(CATEGORIES))
        if unknown:
            raise ArgumentError("categories", unknown, f"allowed are {', '.join(CATEGORIES)}")
        if n is not None:
            check_integer("n", n, 1)
        check_fraction("test_fraction", test_fraction)
        self.root = Path(root)
        self.csv = self.root / csv
        self.categories = None if categories is None else set(categories)
        self.n = n
        self.seed = seed
        self.cache_size = check_size("cache_size", cache_size)
        self.download = download
        self.host = host
        self.test_fraction = test_fraction
        size = "x".join(map(str, self.cache_size)) if isinstance(self.cache_size, tuple) else self.cache_size
        self.cache = self.root / ".quintet-cache" / str(size or "full")

    def prepare(self) -> None:
        rows = [row for row in self._rows() if not self._cached(row["File"]).exists()]
        if not rows:
            return
        if self.download:
            self._download(rows)
        self.cache.mkdir(parents=True, exist_ok=True)
        on_disk = self._files_on_disk()
        originals = [(row["File"], on_disk.get(row["File"].lower())) for row in rows]
        faults = [f"{name}: not in {self.root}" for name, path in originals if path is None]
        present = [(name, path) for name, path in originals if path is not None]
        faults += filter(None, map_in_threads(self._decode, present, f"decoding RAISE to {self.cache}"))
        if faults:
            left_out = "\n  ".join(faults)
            warnings.warn(f"left out of {self.csv}: {number_of(len(faults), 'image')}\n  {left_out}", stacklevel=2)
        self.images("train" if self.test_fraction < 1 else "test")

    def images(self, split: str) -> list[Path]:
        rows = self._rows()
        paths = [path for row in rows if (path := self._cached(row["File"])).exists()]
        if not paths:
            raise SourceError(
                "root",
                self.root,
                f"not one of the {len(rows)} images of {self.csv.name} is in it and readable: "
                "put the TIFF or NEF files there, or add data.train.download=true",
            )
        if not self.test_fraction:
            return paths
        return hold_out(named(paths), self.test_fraction, self.seed)[split == "test"]

    def _rows(self) -> list[dict[str, str]]:
        """The chosen rows of the list, in its order."""
        check_folder("root", self.root, "name the folder that holds the RAISE list and images")
        if not self.csv.is_file():
            raise SourceError("csv", self.csv, "no such file: get the list from https://loki.disi.unitn.it/RAISE/")
        with self.csv.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            absent = {"File", "NEF", "TIFF", "Keywords"} - set(reader.fieldnames or ())
            if absent:
                raise SourceError(
                    "csv", self.csv, f"has no column {', '.join(sorted(absent))}: is it a RAISE list?"
                )
            rows = {row["File"]: row for row in reader if self._wanted(row["Keywords"])}
        outside = [name for name in rows if Path(name).name != name]
        if outside:
            raise SourceError("csv", self.csv, f"{outside[0]!r} in column File is not the name of a file")
        if not rows:
            raise SourceError("categories", sorted(self.categories or ()), f"no image of {self.csv} has one")
        if self.n is not None:
            if self.n > len(rows):
                raise SourceError(
                    "n", self.n, f"allowed are 1 to {len(rows)}, the images of {self.csv} to choose from"
                )
            chosen = set(shuffled(rows, self.seed)[: self.n])
            return [row for name, row in rows.items() if name in chosen]
        return list(rows.values())

    def _wanted(self, keywords: str) -> bool:
        return self.categories is None or any(
            word.strip().lower() in self.categories for word in keywords.split(";")
        )

    def _cached(self, name: str) -> Path:
        return self.cache / f"{name}.png"

    def _files_on_disk(self) -> dict[str, Path]:
        """Lower-case stem -> file, the TIFF where there is a NEF of the same name."""
        files = [path for path in self.root.rglob("*") if self.cache.parent not in path.parents]
        return {
            path.stem.lower(): path
            for kind in reversed(KINDS)
            for path in files
            if path.suffix.lower() in KINDS[kind]
        }

    def _download(self, rows: list[dict[str, str]]) -> None:
        on_disk = self._files_on_disk()
        for row in rows:
            kind = next((kind for kind in KINDS if row[kind]), None)
            if kind is None or row["File"].lower() in on_disk:
                continue
            url = row[kind] if self.host is None else _on_host(row[kind], self.host)
            download(url, self.root / f"{row['File']}{KINDS[kind][0].upper()}")

    def _decode(self, original: tuple[str, Path]) -> str | None:
        """Puts one image into the cache; returns what is wrong with it, if anything is."""
        name, path = original
        try:
            image = _read_raw(path) if path.suffix.lower() in KINDS["NEF"] else read_image(path, channels=3)
        except ImageFileError as error:
            return str(error)
        write_image(self._cached(name), resize_image(image, self.cache_size))
        return None


def _on_host(url: str, host: str) -> str:
    scheme, _, netloc = host.rpartition("://")
    parts = urlsplit(url)
    return urlunsplit((scheme or parts.scheme, netloc, parts.path, parts.query, ""))


def _read_raw(path: Path) -> Tensor:
    """A camera-raw file developed with the camera's white balance: uint8 `[3, H, W]`. Raises ImageFileError."""
    try:
        with rawpy.imread(str(path)) as raw:
            pixels = raw.postprocess(use_camera_wb=True, output_bps=8)  # [H, W, 3]
    except (rawpy.LibRawError, OSError) as error:
        cause = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ImageFileError(str(path), str(cause)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)
