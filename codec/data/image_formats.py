"""Which formats are opened and written, with the Pillow that there is. No other decoder of Pillow's is reached."""

from functools import cache
from importlib.util import find_spec

from PIL import Image, features

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "JXL")
LOSSY = ("AVIF", "GIF", "JPEG", "MPO")  # what is written in these comes back changed
JXL_BEGINNINGS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
INSTALL_JXL = "JPEG XL needs one more package: pip install pillow-jxl-plugin"


def readable(beginning: bytes, suffix: str) -> list[str]:
    """Pillow's names of the formats that a file may have. `beginning`: its first 16 bytes or more.

    Raises ValueError if it has one that this installation cannot read.
    """
    Image.init()
    if beginning.startswith(JXL_BEGINNINGS) and not has_jxl():
        raise ValueError(INSTALL_JXL)
    if beginning[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        raise ValueError("AVIF is not read by this build of Pillow")
    # TGA has no mark of its own: many bytes that are no image would pass for one.
    found = [name for name in FORMATS if name in Image.OPEN and (name != "AVIF" or features.check("avif"))]
    return [*found, "TGA"] if suffix == ".tga" else found


def writable(suffix: str) -> str | None:
    """Pillow's name of the format that a file with this suffix is written in; None: there is none."""
    if suffix.lower() == ".jxl":
        has_jxl()
    name = Image.registered_extensions().get(suffix.lower())
    return name if name in Image.SAVE else None


@cache
def has_jxl() -> bool:
    """Whether Pillow knows JPEG XL, which it learns here if a plugin is installed."""
    if find_spec("pillow_jxl") is None:
        return False
    import pillow_jxl  # noqa: F401  # its import registers the format

    return True
