"""The sources of images: what each serves as train and test, and what it says when there is nothing."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from codec.data.bsd300 import Bsd300Source
from codec.data.folder import FolderSource
from codec.data.image_file import image_size, read_image
from codec.data.kodak import SHA256, KodakSource
from codec.data.raise_dataset import CATEGORIES, RaiseSource
from codec.data.samples import SamplesSource
from codec.data.source import SourceError, shuffled


def make_images(folder, names, size=(8, 6)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "teal").save(folder / name)


def names(paths):
    return [path.name for path in paths]


def test_samples_are_in_the_package_and_the_splits_share_no_picture():
    source = SamplesSource()
    source.prepare()
    train, test = source.images("train"), source.images("test")
    assert (len(train), len(test)) == (11, 3)
    assert not {path.stem.split("_")[0] for path in train} & {path.stem.split("_")[0] for path in test}
    assert all(min(image_size(path)) >= 300 for path in train + test)


def test_folder_serves_all_its_images_to_both_splits_by_default(tmp_path):
    make_images(tmp_path, ["b.png", "sub/a.jpg"])
    source = FolderSource(str(tmp_path))
    source.prepare()
    assert names(source.images("train")) == names(source.images("test")) == ["b.png", "a.jpg"]


def test_a_folder_may_be_called_by_a_number(tmp_path, monkeypatch):
    make_images(tmp_path, ["2024/a.png"])
    monkeypatch.chdir(tmp_path)
    assert len(FolderSource(2024).images("train")) == 1


def test_folder_holds_test_images_out_by_seed(tmp_path):
    make_images(tmp_path, [f"{i}.png" for i in range(20)])
    splits = {}
    for seed in (0, 1):
        source = FolderSource(str(tmp_path), test_fraction=0.2, seed=seed)
        splits[seed] = set(source.images("train")), set(source.images("test"))
        assert [len(split) for split in splits[seed]] == [16, 4]
        assert not splits[seed][0] & splits[seed][1]
    assert splits[0] != splits[1]


def test_folder_takes_its_test_images_from_test_root(tmp_path):
    make_images(tmp_path, ["a/1.png", "b/2.png"])
    source = FolderSource(str(tmp_path / "a"), str(tmp_path / "b"), test_fraction=0.1)
    assert names(source.images("train")) == ["1.png"]
    assert names(source.images("test")) == ["2.png"]


def test_folder_says_what_is_wrong_in_one_line_that_begins_with_the_argument(tmp_path):
    with pytest.raises(SourceError, match=r"^root=.*absent: no such folder: name a folder of images$"):
        FolderSource(str(tmp_path / "absent")).prepare()
    (tmp_path / "a.npy").touch()
    with pytest.raises(SourceError, match=r"^root=.*: no image in it, found 1 \.npy: known are \.apng \.avif"):
        FolderSource(str(tmp_path)).images("train")
    with pytest.raises(ValueError, match=r"^test_fraction=2: allowed are 0 to 1$"):
        FolderSource(str(tmp_path), test_fraction=2)


def test_a_drawn_subset_grows_with_its_number_and_the_folder():
    pool = [str(i) for i in range(100)]
    assert shuffled(pool, 0)[:5] == shuffled(pool[::-1], 0)[:5]
    assert set(shuffled(pool[:99], 0)[:5]) <= set(shuffled(pool, 0)[:6])
    assert shuffled(pool, 0) != shuffled(pool, 1)


def make_bsd300(folder):
    for split, ids in (("train", range(200)), ("test", range(500, 600))):
        make_images(folder / "images" / split, [f"{i}.jpg" for i in ids])
        (folder / f"iids_{split}.txt").write_text("".join(f"{i}\n" for i in ids))


def test_bsd300_is_split_by_its_id_lists(tmp_path):
    make_bsd300(tmp_path)
    source = Bsd300Source(str(tmp_path))
    source.prepare()
    assert names(source.images("train")) == [f"{i}.jpg" for i in range(200)]
    assert names(source.images("test")) == [f"{i}.jpg" for i in range(500, 600)]


def test_bsd300_says_what_is_missing_and_what_to_do(tmp_path):
    with pytest.raises(
        SourceError, match=r"^root=.*absent: no such folder: .*QUINTET_DOWNLOAD=true before the command, which"
    ):
        Bsd300Source(str(tmp_path / "absent")).prepare()
    make_bsd300(tmp_path)
    (tmp_path / "images/test/503.jpg").unlink()
    with pytest.raises(SourceError, match=r"1 of 100 images are not in images/test \(first: 503\.jpg\)"):
        Bsd300Source(str(tmp_path)).prepare()
    (tmp_path / "iids_test.txt").write_text("1\n1\n")
    with pytest.raises(SourceError, match=r"iids_test\.txt lists 1 ids, not 100"):
        Bsd300Source(str(tmp_path)).prepare()


def test_kodak_is_for_testing_only_and_says_what_is_missing(tmp_path):
    assert len(SHA256) == 24
    source = KodakSource(str(tmp_path))
    with pytest.raises(SourceError, match="testing only"):
        source.images("train")
    with pytest.raises(SourceError, match=r"without 24 images \(kodim01\.png, \.\.\.\): .*QUINTET_DOWNLOAD=true"):
        source.prepare()


def test_the_published_copies_pass_where_they_are():
    data = Path(__file__).parents[2] / "../shared/data"
    for source, split, count in (
        (KodakSource(str(data / "kodak")), "test", 24),
        (Bsd300Source(str(data / "bsds300")), "train", 200),
    ):
        if source.root.is_dir():
            source.prepare()
        else:  # elsewhere the packaged photographs stand in
            source, split, count = SamplesSource(), "test", 3
        assert len(source.images(split)) == count


RAISE_ROWS = {  # File: Keywords
    "r1t": "outdoor; Landscape",
    "r2t": "indoor;people",
    "r3t": "outdoor;nature",
    "r4t": "objects",
}


def make_raise(root, rows=RAISE_ROWS, suffix=".TIF"):
    with (root / "RAISE_all.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["File", "NEF", "TIFF", "Device", "Date", "Keywords"])
        writer.writerows(
            [name, f"http://x/{name}.NEF", f"http://x/{name}.TIF", "D90", "", rows[name]] for name in rows
        )
    for i, name in enumerate(rows):
        path = root / f"{name}{suffix}"
        tifffile.imwrite(path, np.full((24, 36, 3), 60 * (i % 4), np.uint8), photometric="rgb")


def test_raise_is_decoded_once_at_the_working_size(tmp_path):
    make_raise(tmp_path)
    source = RaiseSource(str(tmp_path), cache_size=12)
    source.prepare()
    paths = source.images("train")
    assert names(paths) == ["r1t.png", "r2t.png", "r3t.png", "r4t.png"]
    assert [read_image(path).shape for path in paths] == [(3, 12, 18)] * 4
    assert [int(read_image(path)[0, 0, 0]) for path in paths] == [0, 60, 120, 180]
    for path in tmp_path.glob("*.TIF"):
        path.unlink()
    RaiseSource(str(tmp_path), cache_size=12).prepare()  # nothing is decoded again


def test_raise_continues_a_cache_that_was_cut_short(tmp_path):
    make_raise(tmp_path)
    source = RaiseSource(str(tmp_path), cache_size=[10, 10])
    source.prepare()
    kept, lost = source.images("train")[:2]
    before = kept.stat().st_mtime_ns
    lost.unlink()
    source.prepare()
    assert lost.exists()
    assert kept.stat().st_mtime_ns == before
    assert image_size(lost) == (10, 10)


def test_raise_keeps_the_images_of_any_given_category(tmp_path):
    make_raise(tmp_path)
    source = RaiseSource(str(tmp_path), categories=["landscape", "people"])
    source.prepare()
    assert names(source.images("train")) == ["r1t.png", "r2t.png"]


def test_raise_draws_n_images_by_seed(tmp_path):
    make_raise(tmp_path, {f"r{i}t": "nature" for i in range(12)})
    drawn = []
    for seed in (0, 0, 1):
        source = RaiseSource(str(tmp_path), n=5, seed=seed)
        source.prepare()
        drawn.append(names(source.images("train")))
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1] != drawn[2]


def test_raise_lists_missing_and_unreadable_files_and_goes_on(tmp_path):
    make_raise(tmp_path)
    (tmp_path / "r1t.TIF").unlink()
    (tmp_path / "r2t.TIF").write_bytes(b"no tiff")
    source = RaiseSource(str(tmp_path))
    with pytest.warns(UserWarning, match=r"(?s)left out of .*: 2 images.*r1t: not in .*r2t\.TIF: "):
        source.prepare()
    assert names(source.images("train")) == ["r3t.png", "r4t.png"]


@pytest.mark.filterwarnings("ignore:left out of")
def test_raise_fails_when_all_files_are_missing(tmp_path):
    make_raise(tmp_path)
    for path in tmp_path.glob("*.TIF"):
        path.unlink()
    with pytest.raises(
        SourceError, match=r"^root=.*: not one of the 4 images of RAISE_all\.csv .*data\.train\.download=true$"
    ):
        RaiseSource(str(tmp_path)).prepare()


def test_raise_holds_test_images_out(tmp_path):
    make_raise(tmp_path)
    source = RaiseSource(str(tmp_path), test_fraction=0.25)
    source.prepare()
    assert (len(source.images("train")), len(source.images("test"))) == (3, 1)
    assert not set(source.images("train")) & set(source.images("test"))


def test_raise_reads_camera_raw_files(tmp_path):
    make_raise(tmp_path, {"r1t": "nature"}, suffix=".xyz")
    mosaic = np.full((64, 96), 30000, np.uint16)
    tags = [  # a DNG, which LibRaw knows by its content
        (33421, "H", 2, (2, 2)),  # the size of the colour pattern
        (33422, "B", 4, (0, 1, 1, 2)),  # red, green, green, blue
        (50706, "B", 4, (1, 4, 0, 0)),  # DNG version
        (50708, "s", 0, "Quintet"),
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1)),  # XYZ to camera: identity
        (50717, "H", 1, 65535),  # white level
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1)),  # neutral as shot
    ]
    tifffile.imwrite(tmp_path / "r1t.nef", mosaic, photometric=32803, extratags=tags)
    source = RaiseSource(str(tmp_path), cache_size=32)
    source.prepare()
    image = read_image(source.images("train")[0])
    assert image.shape == (3, 32, 48)
    assert image.float().mean() > 100


def test_raise_refuses_what_it_does_not_know(tmp_path):
    with pytest.raises(ValueError, match=f"categories=\\[.cats.\\]: allowed are {', '.join(CATEGORIES)}"):
        RaiseSource(str(tmp_path), categories=["nature", "cats"])
    with pytest.raises(ValueError, match="n=0: allowed are the integers from 1"):
        RaiseSource(str(tmp_path), n=0)
    with pytest.raises(ValueError, match="cache_size="):
        RaiseSource(str(tmp_path), cache_size=[1, 2, 3])
    with pytest.raises(SourceError, match=r"^csv=.*RAISE_all\.csv: no such file"):
        RaiseSource(str(tmp_path)).prepare()
    make_raise(tmp_path)
    with pytest.raises(SourceError, match="n=9: allowed are 1 to 4"):
        RaiseSource(str(tmp_path), n=9).prepare()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"other\.csv: has no column File, Keywords, NEF, TIFF"):
        RaiseSource(str(tmp_path), csv="other.csv").prepare()
    (tmp_path / "evil.csv").write_text("File,NEF,TIFF,Keywords\n../../x,,,nature\n")
    with pytest.raises(SourceError, match="not the name of a file"):
        RaiseSource(str(tmp_path), csv="evil.csv").prepare()
