"""BSDS300: the Berkeley segmentation photographs, 200 to train and 100 to test, 481x321, JPEG of quality 95.

https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/ (Martin, Fowlkes, Tal and Malik, ICCV 2001)
"""

import tempfile
from pathlib import Path

from codec.data.download import DownloadError, download, extract_tar
from codec.data.image_file import ImageFileError, image_size
from codec.data.source import FETCH, SourceError, check_folder

URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/BSDS300-images.tgz"
COUNTS = {"train": 200, "test": 100}


class Bsd300Source:
    """`root` in the Berkeley layout: `iids_<split>.txt` list the ids, the images are `images/<split>/<id>.jpg`.

    With `download`, an absent set is fetched and verified: all 300 listed images are there and are images. The
    archive's `sha256` is checked too if given; Berkeley publishes none.
    """

    def __init__(self, root: str, download: bool = False, url: str = URL, sha256: str | None = None) -> None:
        self.root = Path(root)
        self.download = download
        self.url = url
        self.sha256 = sha256

    def prepare(self) -> None:
        if self.download and not (self.root / "iids_test.txt").exists():
            self._download()
        for split in COUNTS:
            self.images(split)

    def images(self, split: str) -> list[Path]:
        return _listed_images(self.root, split)

    def _download(self) -> None:
        if (self.root / "images").exists():
            raise SourceError("root", self.root, "images/ is there without the id lists: delete it or change root")
        archive = self.root / "BSDS300-images.tgz"
        download(self.url, archive, self.sha256)
        with tempfile.TemporaryDirectory(dir=self.root, prefix=".unpacked-") as unpacked:
            try:
                extract_tar(archive, unpacked)
                found = next(Path(unpacked).rglob("iids_test.txt"), None)
                if found is None:
                    raise DownloadError(f"{self.url}: is not BSDS300: it holds no iids_test.txt")
                for split in COUNTS:
                    for path in _listed_images(found.parent, split):
                        image_size(path)
            except (ImageFileError, SourceError) as error:
                raise DownloadError(f"{self.url}: is not the whole of BSDS300: {error}") from error
            finally:
                archive.unlink()
            for name in ("images", "iids_train.txt", "iids_test.txt"):  # the last one says that all are there
                (found.parent / name).replace(self.root / name)


def _listed_images(root: Path, split: str) -> list[Path]:
    remedy = f"name the folder that holds images/ and iids_train.txt, or {FETCH}"
    check_folder("root", root, remedy)
    id_list = root / f"iids_{split}.txt"
    if not id_list.is_file():
        raise SourceError("root", root, f"no {id_list.name} in it: {remedy}")
    ids = id_list.read_text().split()
    if len(set(ids)) != COUNTS[split] or len(ids) != COUNTS[split]:
        raise SourceError("root", root, f"{id_list.name} lists {len(set(ids))} ids, not {COUNTS[split]}")
    images = [root / "images" / split / f"{image_id}.jpg" for image_id in ids]
    missing = [path.name for path in images if not path.is_file()]
    if missing:
        raise SourceError(
            "root",
            root,
            f"{len(missing)} of {COUNTS[split]} images are not in images/{split} "
            f"(first: {missing[0]}): complete the folder, or delete it and {FETCH}",
        )
    return images
