"""Downloads that are whole or not there: resumed after a cut, verified, with a progress bar."""

import hashlib
import http.client
import re
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from codec.errors import UserError

TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 18


class DownloadError(UserError, OSError):
    """A download that failed; one line that names the address or file, the cause and what to do."""


def download(
    url: str,
    path: str | Path,
    sha256: str | None = None,
    *,
    size: int | None = None,
    attempts: int = 4,
    wait: float = 1.0,
) -> None:
    """Fetches `url` (http, https) to `path`, which appears only when the file is whole and verified.

    The bytes so far are kept in `<path>.part`, from which a later attempt or a later call resumes. After a cut
    up to `attempts` attempts are made, `wait`, 2·`wait`, ... seconds apart. `size` in bytes and `sha256` in hex
    are checked where given. A file that is there already is left alone if its checksum is right or not given.
    Raises DownloadError.
    """
    path = Path(path)
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url}: allowed are http:// and https:// addresses")
    if path.exists():
        if sha256 is not None and file_sha256(path) != sha256:
            raise DownloadError(f"{path}: SHA-256 is not {sha256}: delete the file to download it again")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for attempt in range(attempts):
        try:
            _fetch(url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise DownloadError(f"{url}: the server answers {error.code} {error.reason}") from error
            cause = f"the server answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            cause = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt + 1 < attempts:
            time.sleep(wait * 2**attempt)
    else:
        kept = part.stat().st_size if part.exists() else 0
        raise DownloadError(f"{url}: {cause} ({attempts} attempts, {kept} bytes kept): run again to resume")
    try:
        _verify(url, part, sha256, size)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract_tar(archive: str | Path, folder: str | Path) -> None:
    """Unpacks a tar archive, compressed or not, into `folder`; members that point outside it are refused.

    Raises DownloadError if the archive is damaged or unsafe; what was unpacked until then stays.
    """
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DownloadError(f"{archive}: the archive cannot be unpacked: {error}") from error


def _fetch(url: str, part: Path) -> None:
    """One attempt: completes `part`, or raises OSError with what came kept in it."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310  # the scheme is checked
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # cut off after the last byte
        part.unlink()
        raise ConnectionError("the file at this address has changed") from error
    with response:
        resumed = re.match(rf"bytes {have}-", response.headers.get("Content-Range", ""))
        if response.status != http.HTTPStatus.PARTIAL_CONTENT or not resumed:
            have = 0  # the server knows no ranges: this is the whole file
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file, _progress_bar() as bar:
            task = bar.add_task(url.rsplit("/", 1)[-1], total=total, completed=have)
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                bar.advance(task, len(chunk))
            got = file.tell()
    if total is not None and got != total:
        raise ConnectionError(f"the connection closed after {got} of {total} bytes")


def _verify(url: str, part: Path, sha256: str | None, size: int | None) -> None:
    if size is not None and part.stat().st_size != size:
        raise DownloadError(
            f"{url}: has {part.stat().st_size} bytes, not {size}, and was removed: try again or elsewhere"
        )
    if sha256 is not None and (found := file_sha256(part)) != sha256:
        raise DownloadError(f"{url}: SHA-256 is {found}, not {sha256}, and was removed: try again or elsewhere")


def _progress_bar() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
