"""download, against a real HTTP server on localhost that can be told to misbehave; and the sources that use it."""

import csv
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tifffile
from full_disk import small_disk
from PIL import Image

from codec.data.archive import ArchiveSource
from codec.data.bsd300 import Bsd300Source
from codec.data.download import DownloadError, download, extract_tar
from codec.data.kodak import KodakSource
from codec.data.raise_dataset import RaiseSource
from codec.data.source import SourceError

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if server.answers_503:
            server.answers_503 -= 1
            self.send_error(503)
            return
        data = server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = 0
        if server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if server.cuts:
            server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {"/data.bin": DATA}
        server.requests = []
        server.ranges = True
        server.cuts = server.answers_503 = 0
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_whole_and_alone(server, tmp_path):
    download(f"{server.url}/data.bin", tmp_path / "deep" / "a.bin", SHA256, size=len(DATA))
    assert (tmp_path / "deep" / "a.bin").read_bytes() == DATA
    assert names(tmp_path / "deep") == ["a.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256)
    assert server.requests == []


def test_a_damaged_file_that_is_there_is_named_and_not_overwritten(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(DownloadError, match=r"a\.bin: SHA-256 is not .* delete the file"):
        download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_a_cut_is_resumed_where_it_happened(server, tmp_path):
    server.cuts = 2
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert [wanted for _, wanted in server.requests] == [None, "bytes=150000-", "bytes=225000-"]


def test_a_cut_is_restarted_cleanly_where_the_server_knows_no_ranges(server, tmp_path):
    server.cuts, server.ranges = 2, False
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_after_too_many_cuts_only_the_part_is_left_and_the_next_call_resumes(server, tmp_path):
    server.cuts = 2
    with pytest.raises(
        DownloadError, match=r"closed after .* \(2 attempts, 225000 bytes kept\): run again to resume"
    ):
        download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256, attempts=2, wait=0)
    assert names(tmp_path) == ["a.bin.part"]
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256)
    assert server.requests[-1][1] == "bytes=225000-"
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]


def test_a_part_that_is_already_whole_is_accepted(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA)
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256)
    assert names(tmp_path) == ["a.bin"]


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(DATA + b"more")
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256, wait=0)
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.mark.parametrize("check", [{"sha256": SHA256}, {"size": len(DATA)}])
def test_wrong_bytes_leave_nothing_behind(server, tmp_path, check):
    server.files["/data.bin"] = b"an error page"
    with pytest.raises(DownloadError, match="removed"):
        download(f"{server.url}/data.bin", tmp_path / "a.bin", **check)
    assert names(tmp_path) == []


def test_a_passing_server_fault_is_retried_and_a_missing_file_is_not(server, tmp_path):
    server.answers_503 = 1
    download(f"{server.url}/data.bin", tmp_path / "a.bin", SHA256, wait=0)
    with pytest.raises(DownloadError, match=r"absent\.bin: the server answers 404"):
        download(f"{server.url}/absent.bin", tmp_path / "b.bin", wait=0)
    assert len(server.requests) == 3
    assert names(tmp_path) == ["a.bin"]


def test_no_server_and_no_http_are_one_line(tmp_path):
    with pytest.raises(DownloadError, match=r"^http://127.0.0.1:9/x: .*refused.* \(1 attempts, 0 bytes kept\).*$"):
        download("http://127.0.0.1:9/x", tmp_path / "a.bin", attempts=1)
    with pytest.raises(DownloadError, match="allowed are http"):
        download("file:///etc/hostname", tmp_path / "a.bin")
    assert names(tmp_path) == []


def tgz(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_an_archive_that_points_outside_is_refused(tmp_path):
    (tmp_path / "a.tgz").write_bytes(tgz({"../evil.txt": b"x"}))
    with pytest.raises(DownloadError, match="cannot be unpacked"):
        extract_tar(tmp_path / "a.tgz", tmp_path / "in")
    assert not (tmp_path / "evil.txt").exists()


def small_image(image_format):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, image_format)
    return buffer.getvalue()


def berkeley_files():
    ids = {"train": range(200), "test": range(1000, 1100)}
    files = {f"BSDS300/iids_{split}.txt": "\n".join(map(str, ids[split])).encode() for split in ids}
    jpeg = small_image("JPEG")
    return files | {f"BSDS300/images/{split}/{i}.jpg": jpeg for split in ids for i in ids[split]}


def test_bsd300_downloads_unpacks_and_verifies_itself_once(server, tmp_path):
    server.files["/b.tgz"] = tgz(berkeley_files())
    server.cuts = 1
    source = Bsd300Source(str(tmp_path / "bsds300"), download=True, url=f"{server.url}/b.tgz")
    source.prepare()
    requests = len(server.requests)
    source.prepare()
    assert len(server.requests) == requests
    assert (len(source.images("train")), len(source.images("test"))) == (200, 100)
    assert names(tmp_path / "bsds300") == ["iids_test.txt", "iids_train.txt", "images"]


@pytest.mark.parametrize("fault", ["missing", "damaged", "short list", "no list", "no archive"])
def test_a_faulty_bsd300_archive_leaves_nothing_behind(server, tmp_path, fault):
    files = berkeley_files()
    if fault == "missing":
        del files["BSDS300/images/test/1003.jpg"]
    elif fault == "damaged":
        files["BSDS300/images/test/1003.jpg"] = b"no jpeg"
    elif fault == "short list":
        files["BSDS300/iids_train.txt"] = b"1 2 3"
    elif fault == "no list":
        del files["BSDS300/iids_test.txt"]
    server.files["/b.tgz"] = b"no archive" if fault == "no archive" else tgz(files)
    with pytest.raises(DownloadError):
        Bsd300Source(str(tmp_path), download=True, url=f"{server.url}/b.tgz").prepare()
    assert names(tmp_path) == []


def test_kodak_downloads_what_is_missing_and_verifies_all(server, tmp_path):
    png = small_image("PNG")
    table = {f"kodim{i:02}.png": hashlib.sha256(png).hexdigest() for i in range(1, 25)}
    server.files |= {f"/kodak/{name}": png for name in table}
    (tmp_path / "kodim05.png").write_bytes(png)
    source = KodakSource(str(tmp_path), download=True, url=f"{server.url}/kodak/", sha256=table)
    source.prepare()
    assert len(server.requests) == 23
    assert [path.name for path in source.images("test")] == sorted(table)
    (tmp_path / "kodim07.png").write_bytes(png + b"x")
    with pytest.raises(SourceError, match=r"kodim07\.png is not the published file"):
        source.prepare()


def test_raise_downloads_from_the_addresses_of_its_list_on_the_host_given(server, tmp_path):
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, np.full((12, 18, 3), 77, np.uint8), photometric="rgb")
    server.files["/RAISE/TIFF/r1t.TIF"] = tiff.getvalue()
    with (tmp_path / "RAISE_all.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("File", "NEF", "TIFF", "Keywords"),
                (
                    "r1t",
                    "http://gone.invalid/RAISE/NEF/r1t.NEF",
                    "http://gone.invalid/RAISE/TIFF/r1t.TIF",
                    "nature",
                ),
            ]
        )
    source = RaiseSource(str(tmp_path), cache_size=6, download=True, host=server.url)
    source.prepare()
    assert [path.name for path in source.images("train")] == ["r1t.png"]
    assert (tmp_path / "r1t.TIF").read_bytes() == tiff.getvalue()


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
    line = rf"{len(kept)} images called \*\.png in it, not 3: move them away, or give another root$"
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
