"""Which formats are opened and written, with the Pillow that there is. No other decoder of Pillow's is reached."""

from functools import cache

from PIL import Image, features

from codec.errors import install

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "JXL")
LOSSY = ("AVIF", "GIF", "JPEG", "MPO")  # what is written in these comes back changed
JXL_BEGINNINGS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
TGA_END = b"TRUEVISION-XFILE.\0"
FOOTER = len(TGA_END)
NO_AVIF = "AVIF is not read by this build of Pillow: pip install --upgrade pillow brings one that does"
INSTALL_JXL = f"JPEG XL needs pillow-jxl-plugin: {install('jpegxl')}"


def readable(beginning: bytes, suffix: str, end: bytes = b"") -> list[str]:
    """Pillow's names of the formats that a file may have, by its first 16 bytes or more and its last FOOTER bytes.

    Raises ValueError if it has one that this installation cannot read.
    """
    Image.init()
    if beginning.startswith(JXL_BEGINNINGS) and not has_jxl():
        raise ValueError(INSTALL_JXL)
    if beginning[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        raise ValueError(NO_AVIF)
    # An old TGA has no mark of its own: many bytes that are no image would pass for one.
    found = [name for name in FORMATS if name in Image.OPEN and (name != "AVIF" or features.check("avif"))]
    return [*found, "TGA"] if suffix == ".tga" or end.endswith(TGA_END) else found


def writable(suffix: str) -> str | None:
    """Pillow's name of the format that a file with this suffix is written in; None: there is none."""
    if suffix.lower() == ".jxl":
        has_jxl()
    name = Image.registered_extensions().get(suffix.lower())
    return name if name in (*FORMATS, "MPO", "TGA") and name in Image.SAVE else None  # others change size or pixels


@cache
def has_jxl() -> bool:
    """Whether Pillow knows JPEG XL, which it learns here if a plugin is installed."""
    try:
        import pillow_jxl  # noqa: F401  # its import registers the format
    except ImportError:
        return False
    return True
