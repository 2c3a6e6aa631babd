"""How an image is written in each format, and how its metadata gets into the file."""

from codec.data.tiff_tags import XMP_TAG, tags_for_tiff
from codec.metadata import Metadata

# Said explicitly, since Pillow's default for JPEG is 75 with halved colours.
QUALITY: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "MPO": {"quality": 95, "subsampling": "4:4:4"},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True},
    "JXL": {"lossless": True},
}
JPEG_MARKER = 65533 - 29  # the most that a JPEG segment holds beside its length and XMP's signature


def save_options(metadata: Metadata, format: str, channels: int) -> tuple[dict[str, object], tuple[str, ...]]:
    """The arguments of `Image.save` in Pillow's `format`, and the names of what it cannot hold."""
    icc, exif, xmp = metadata
    if format == "WEBP" and channels == 1:
        icc = None  # it has no greyscale, and the profile is one of grey
    if format in ("JPEG", "MPO"):
        exif, xmp = (part if part and len(part) <= JPEG_MARKER else None for part in (exif, xmp))
    elif format == "JXL":
        icc = None  # Pillow's plugin writes none
    elif format not in ("PNG", "WEBP", "AVIF", "TIFF"):
        icc = exif = xmp = None
    options = dict(QUALITY.get(format, {}))
    if icc:
        options["icc_profile"] = icc
    if format == "TIFF":
        options["exif"] = tags_for_tiff(exif, xmp)
        exif = exif if set(options["exif"]) - {XMP_TAG} else None
    elif exif:
        options["exif"] = b"Exif\0\0" + exif
    if xmp and format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp, zip=len(xmp) > 1000)
    elif xmp and format != "TIFF":
        options["xmp"] = xmp
    written = Metadata(icc, exif, xmp).names()
    return options, tuple(name for name in metadata.names() if name not in written)
