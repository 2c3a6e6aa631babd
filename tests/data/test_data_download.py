"""download, against a real HTTP server on localhost, and the sources that fetch files or a tar archive by it."""

import csv
import hashlib
import io
import tarfile

import numpy as np
import pytest
import tifffile
from file_server import file_server, names, small_image

from codec.data.bsd300 import Bsd300Source
from codec.data.download import DownloadError, download, extract_tar
from codec.data.kodak import KodakSource
from codec.data.raise_dataset import RaiseSource
from codec.data.source import SourceError

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with file_server() as started:
        started.files["/data.bin"] = DATA
        yield started


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
