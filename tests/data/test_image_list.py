"""list_images: linked folders, loops, names that are not UTF-8; and what becomes of such names."""

import os
import sys
from pathlib import Path

import pytest
import torch

from codec.data.folder import FolderSource
from codec.data.image_file import ImageFileError, read_image, write_image
from codec.data.image_list import list_images, printable
from codec.data.source import SourceError, hold_out, named, relative_names


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(folder):
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


@pytest.mark.parametrize("name", ["a.jfif", "b.jpe", "c.TGA", "d.apng", "e.mpo"])
def test_rarer_suffixes_are_found(tmp_path, name):
    touch(tmp_path, name)
    assert listed(tmp_path) == [name]


def test_linked_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/b/x.png", "elsewhere/y.png", "photos/a.png")
    (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "photos") == ["a.png", "linked/b/x.png", "linked/y.png"]


def test_loops_end_and_no_image_is_listed_twice(tmp_path):
    touch(tmp_path, "a/x.png", "b/y.png", "c/d/z.png")
    for link, target in [("a/self", "a"), ("a/up", "."), ("b/a", "a"), ("a/b", "b"), ("0", "c"), ("1", "c/d")]:
        (tmp_path / link).symlink_to(tmp_path / target)
    assert listed(tmp_path) == ["a/x.png", "b/y.png", "c/d/z.png"]


def test_two_links_to_one_folder_list_its_images_once(tmp_path):
    touch(tmp_path, "elsewhere/x.png", "photos/a.png")
    for link in ("second", "first"):
        (tmp_path / "photos" / link).symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "photos") == ["a.png", "first/x.png"]


def test_a_linked_root_hidden_links_and_links_to_nothing(tmp_path):
    touch(tmp_path, "real/a.png", "other/b.png")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    (tmp_path / "real/.hidden").symlink_to(tmp_path / "other")
    (tmp_path / "real/gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "real/gone.png").symlink_to(tmp_path / "nowhere.png")
    assert listed(tmp_path / "root") == ["a.png"]


@pytest.fixture
def too_deep(tmp_path):
    """A folder with an image, and with folders in folders until a path has more bytes than systems take."""
    touch(tmp_path, "root/a.png")
    here = os.open(tmp_path / "root", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=here)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    return tmp_path / "root"


@pytest.mark.skipif(sys.platform != "linux", reason="how long a path may be differs")
def test_a_folder_that_cannot_be_looked_into_is_told(too_deep):
    with pytest.raises(OSError, match="too long") as caught:
        list_images(too_deep)
    assert caught.value.filename.startswith(str(too_deep))
    errors = []
    assert [path.name for path in list_images(too_deep, unreadable=errors.append)] == ["a.png"]
    assert len(errors) == 1
    with pytest.raises(SourceError, match=f"^root={too_deep}: .*: File name too long$"):
        FolderSource(str(too_deep)).images("train")


@pytest.fixture
def latin(tmp_path):
    """A folder with images whose names are not UTF-8, one of them no image."""
    for name, level in ((b"caf\xe9.png", 10), (b"caf\xe8.png", 20), (b"plain.png", 30)):
        path = tmp_path / os.fsdecode(name)
        write_image(path, torch.full((1, 2, 2), level, dtype=torch.uint8))
    (tmp_path / os.fsdecode(b"\xff.png")).write_text("not an image")
    return tmp_path


def test_names_that_are_not_utf_8_are_listed_read_split_and_shown(latin):
    paths = list_images(latin)
    names = relative_names(paths)
    assert sorted(names) == sorted([r"caf\xe8.png", r"caf\xe9.png", "plain.png", r"\xff.png"])
    for name in names:
        name.encode()
    levels = {
        name: int(read_image(path).max()) for name, path in zip(names, paths, strict=True) if "x" not in name[:2]
    }
    assert levels == {r"caf\xe9.png": 10, r"caf\xe8.png": 20, "plain.png": 30}
    kept, held = hold_out(named(paths), 0.5, seed=0)
    assert sorted(kept + held) == sorted(paths)
    assert len(FolderSource(str(latin), test_fraction=0.5).images("test")) == 2


def test_an_error_about_such_a_file_can_be_printed(latin):
    with pytest.raises(ImageFileError) as caught:
        read_image(latin / os.fsdecode(b"\xff.png"))
    assert r"\xff.png: not an image we read" in str(caught.value)
    str(caught.value).encode()


def test_other_names_are_shown_as_they_are():
    for name in ("a.png", "ä/ö.png", "日本.png", r"a\b"):
        assert printable(name) == name
        assert printable(Path(name)) == name
