"""Which standard codec a section was written by, from its first bytes: such a section is a whole file by itself."""

from typing import NamedTuple


class Stream(NamedTuple):
    """A standard codec's name and the suffixes of its files, the usual one first."""

    name: str
    suffixes: tuple[str, ...]


_JPEG = Stream("JPEG", (".jpg", ".jpeg"))
_JPEG_2000 = Stream("JPEG 2000", (".jp2",))
_WEBP = Stream("WebP", (".webp",))
_PNG = Stream("PNG", (".png",))


def stream_of(section: bytes) -> Stream | None:
    """The standard codec whose file `section` begins as; None: it is a scheme's own."""
    if section.startswith(b"\xff\xd8\xff"):
        return _JPEG
    if section.startswith(b"\0\0\0\x0cjP  \r\n\x87\n"):
        return _JPEG_2000
    if section.startswith(b"RIFF") and section[8:12] == b"WEBP":
        return _WEBP
    if section.startswith(b"\x89PNG\r\n\x1a\n"):
        return _PNG
    return None
