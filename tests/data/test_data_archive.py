"""ArchiveSource: a set that is published as one zip archive, fetched from a real HTTP server on localhost."""

import hashlib
import io
import zipfile

import pytest
from file_server import file_server, names, small_image
from full_disk import small_disk
from PIL import Image

from codec.data.archive import ArchiveSource
from codec.data.download import DownloadError
from codec.data.source import SourceError
from codec.errors import number_of


@pytest.fixture
def server():
    with file_server() as started:
        yield started


def zipped(files, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def published_set():
    """As such archives are: images in a folder, beside what is none of the set."""
    files = {f"valid/{name}.png": small_image("PNG") for name in ("b", "a", "c")}
    return files | {"__MACOSX/valid/._a.png": b"a resource fork", "valid/a.txt": b"", "small/a.jpg": b""}


def archive_source(server, root, **options):
    return ArchiveSource(str(root), f"{server.url}/set.zip", count=3, download=True, **options)


def test_an_archived_set_downloads_unpacks_and_verifies_itself_once(server, tmp_path, capsys):
    server.files["/set.zip"] = data = zipped(published_set())
    server.cuts = 1
    sha256 = hashlib.sha256(data).hexdigest()
    source = archive_source(server, tmp_path / "set", sha256=sha256, size=len(data), image_size=[8, 8])
    source.prepare()
    requests = len(server.requests)
    source.prepare()
    assert len(server.requests) == requests
    assert [path.name for path in source.images("test")] == names(tmp_path / "set") == ["a.png", "b.png", "c.png"]
    assert not capsys.readouterr().out.count("sha256")


def test_the_checksum_of_an_archive_without_a_published_one_is_told_to_pin(server, tmp_path, capsys):
    server.files["/set.zip"] = data = zipped(published_set())
    archive_source(server, tmp_path).prepare()
    assert f"set sha256: {hashlib.sha256(data).hexdigest()}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("missing", r"holds 2 images called \*\.png, not 3"),
        ("twice", r"holds 3 images called \*\.png, not 3"),
        ("damaged", r"b\.png: "),
        ("other size", r"b\.png has 9×7 pixels, not 8×8"),
        ("cut", "is no whole zip archive"),
        ("no archive", "is no whole zip archive"),
    ],
)
def test_a_faulty_archive_is_one_line_and_leaves_nothing_behind(server, tmp_path, fault, line):
    files = published_set()
    if fault == "missing":
        del files["valid/b.png"]
    elif fault == "twice":
        files["train/b.png"] = files["valid/b.png"]
    elif fault == "damaged":
        files["valid/b.png"] = files["valid/b.png"][:40]
    elif fault == "other size":
        buffer = io.BytesIO()
        Image.new("RGB", (9, 7)).save(buffer, "PNG")
        files["valid/b.png"] = buffer.getvalue()
    data = zipped(files)
    server.files["/set.zip"] = {"cut": data[:-30], "no archive": b"an error page"}.get(fault, data)
    with pytest.raises(DownloadError, match=line) as raised:
        archive_source(server, tmp_path, image_size=[8, 8]).prepare()
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == []


def test_an_archived_set_that_was_unpacked_by_hand_is_taken_where_it_lies(server, tmp_path):
    source = archive_source(server, tmp_path / "set")
    for name, data in published_set().items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    source.prepare()
    assert server.requests == []
    assert [path.name for path in source.images("test")] == ["a.png", "b.png", "c.png"]
    with pytest.raises(SourceError, match="testing only"):
        source.images("train")
    (tmp_path / "set/valid/b.png").unlink()
    source.download = False
    with pytest.raises(
        SourceError,
        match=r"2 images called \*\.png in it, not 3: unpack http.*, or put QUINTET_DOWNLOAD=true before",
    ):
        source.prepare()


def test_an_archived_set_that_was_moved_in_part_is_completed(server, tmp_path):
    server.files["/set.zip"] = zipped(published_set())
    archive_source(server, tmp_path).prepare()
    (tmp_path / "b.png").unlink()
    archive_source(server, tmp_path).prepare()
    assert names(tmp_path) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("kept", [{"valid/a.png"}, {"valid/a.png", "a.png"}, {"a.png", "b.png", "c.png", "d.png"}])
def test_images_that_a_download_would_not_make_a_set_of_are_refused_before_it(server, tmp_path, kept):
    server.files["/set.zip"] = zipped(published_set())
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(small_image("PNG"))
    line = rf"{number_of(len(kept), 'image')} called \*\.png in it, not 3: move them away, or give another root$"
    with pytest.raises(SourceError, match=line):
        archive_source(server, tmp_path).prepare()
    assert server.requests == []


def test_an_archive_of_the_users_is_neither_taken_nor_deleted(server, tmp_path):
    server.files["/set.zip"] = zipped(published_set())
    own = tmp_path / f"{tmp_path.name}.zip"
    own.write_bytes(b"mine")
    archive_source(server, tmp_path).prepare()
    assert own.read_bytes() == b"mine"
    assert names(tmp_path) == ["a.png", "b.png", "c.png", own.name]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_one_line_however_it_is_compressed(server, tmp_path, method):
    data = bytearray(zipped(published_set(), method))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.getinfo("valid/b.png").header_offset + len("valid/b.png") + 30
    data[start : start + 30] = bytes(30)
    server.files["/set.zip"] = bytes(data)
    with pytest.raises(DownloadError, match=r"is no whole zip archive: .+: it was removed$"):
        archive_source(server, tmp_path).prepare()
    assert names(tmp_path) == []


def test_a_full_disk_is_not_taken_for_a_damaged_archive(server, tmp_path):
    server.files["/set.zip"] = zipped({f"{name}.png": bytes(1 << 20) for name in "abc"})
    with small_disk(tmp_path / "disk", "512k") as disk:
        with pytest.raises(OSError, match="No space left") as raised:
            archive_source(server, disk).prepare()
        assert not isinstance(raised.value, DownloadError)
        assert names(disk) == [".download.zip"]
