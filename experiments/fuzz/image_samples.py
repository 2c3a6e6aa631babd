"""Image files of every kind that a format has, to be mutated: alpha, palettes, 16 bits, frames, inks, metadata."""

import io

import numpy as np
import torch
from PIL import Image

from codec.data.image_file import write_image
from codec.data.image_formats import writable
from codec.metadata import Metadata

METADATA = (".png", ".jpg", ".webp", ".tif", ".avif", ".jxl")
ALPHA = (".png", ".webp", ".tif", ".jp2", ".avif", ".jxl")
PALETTE, DEEP, OTHER_COLOURS = (".png", ".gif", ".tif"), (".png", ".tif", ".jp2"), (".tif",)
INKS, FRAMES = (".jpg", ".tif"), (".png", ".webp", ".gif", ".tif", ".avif")


def image_samples(suffix: str, image: torch.Tensor, metadata: Metadata) -> list[bytes]:
    """Files of the format of `suffix` with `image`, uint8 RGB `[3, H, W]`, and what travels with it."""
    format = writable(suffix)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    grey = picture.convert("L")
    files = [_saved(picture, format), _saved(grey, format)]
    if suffix in METADATA:
        for colours in (image, image[:1]):
            file = io.BytesIO()
            write_image(file, colours, metadata, format)
            files.append(file.getvalue())
    if suffix in ALPHA:
        transparent = picture.copy()
        transparent.putalpha(grey)
        files.append(_saved(transparent, format))
    if suffix in PALETTE:
        files.append(_saved(picture.convert("P"), format, transparency=3))
    if suffix in DEEP:
        files.append(_saved(Image.fromarray(np.array(grey, np.uint16) * 251), format))
    if suffix in INKS:
        files.append(_saved(picture.convert("CMYK"), format))
    if suffix in OTHER_COLOURS:
        files.append(_saved(picture.convert("YCbCr"), format))
    if suffix in FRAMES:
        turned = [picture.rotate(90 * n) for n in (1, 2)]
        files.append(_saved(picture, format, save_all=True, append_images=turned))
    return files


def _saved(picture: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()
