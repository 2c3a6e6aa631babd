"""Several sources as one."""

from pathlib import Path

import pytest
from conftest import composed
from hydra.utils import instantiate
from PIL import Image

from codec.data.folder import FolderSource
from codec.data.module import ImageDataModule
from codec.data.several import SeveralSources
from codec.data.source import SourceError, relative_names


def folder(path: Path, count: int) -> Path:
    path.mkdir(parents=True)
    for n in range(count):
        Image.new("RGB", (16, 16)).save(path / f"{n}.png")
    return path


def test_their_images_come_together_in_order(tmp_path: Path) -> None:
    sources = {
        "b": FolderSource(folder(tmp_path / "b", 2)),
        "a": FolderSource(folder(tmp_path / "a", 4), None, 0.5),
    }
    several = SeveralSources(sources)
    several.prepare()
    assert several.images("train") == sources["b"].images("train") + sources["a"].images("train")
    assert len(several.images("test")) == 2 + 2


def test_one_may_have_a_relative_root_and_one_an_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = [folder(Path("../a"), 2) / "0.png", folder(tmp_path / "b", 2) / "0.png"]
    assert relative_names(paths) == ["a/0.png", "b/0.png"]


def test_what_is_held_out_does_not_depend_on_where_each_lies(tmp_path: Path) -> None:
    held = []
    for mine, theirs in (("a/mine", "a/theirs"), ("mine", "far/away/pictures")):
        roots = {"b": folder(tmp_path / mine, 20), "a": folder(tmp_path / theirs, 20)}
        several = SeveralSources({name: FolderSource(root) for name, root in roots.items()})
        data = ImageDataModule(train=several, test=None, val_fraction=0.3, crop_size=16)
        data.setup("fit")
        held.append(data.val_set.names)
        assert [roots[name.split("/")[0]] for name in data.val_set.names] == [p.parent for p in data.val_set.paths]
    assert len(held[0]) == 12
    assert held[0] == held[1]
    assert {name.split("/")[0] for name in held[0]} == {"a", "b"}


def test_an_image_of_two_sources_is_the_first_one_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = folder(tmp_path / "a", 4)
    inner = SeveralSources({"again": FolderSource("a"), "b": FolderSource(folder(tmp_path / "b", 1))})
    several = SeveralSources({"first": FolderSource(root), "others": inner})
    assert list(several.named_images("train").values()) == [
        *(f"first/{n}.png" for n in range(4)),
        "others/b/0.png",
    ]


def test_a_fault_names_the_source(tmp_path: Path) -> None:
    several = SeveralSources({"mine": FolderSource(tmp_path / "nowhere")})
    with pytest.raises(SourceError, match=r"^sources\.mine\.root=.*nowhere: no such folder"):
        several.prepare()


def test_no_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="name at least one"):
        SeveralSources({})


def test_bsd300_is_trained_on_beside_a_folder_and_tested_on_alone(tmp_path: Path) -> None:
    for split, count in (("train", 200), ("test", 100)):
        folder_ = tmp_path / "bsds300/images" / split
        folder_.mkdir(parents=True)
        names = [str(1000 * (split == "test") + n) for n in range(count)]
        for name in names:
            Image.new("RGB", (16, 16)).save(folder_ / f"{name}.jpg")
        (tmp_path / "bsds300" / f"iids_{split}.txt").write_text("\n".join(names))
    config = composed(
        "train", ["data=folder_bsd300", f"data.train.sources.folder.root={folder(tmp_path / 'mine', 4)}"]
    )
    config.data.test.root = str(tmp_path / "bsds300")
    data = instantiate(config.data, _convert_="all")
    assert len(data.sources["train"].images("train")) == 4 + 200
    assert len(data.sources["test"].images("test")) == 100
