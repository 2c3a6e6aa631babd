"""A picture coded by a model and, at the same size, by standard codecs: what the page's slider shows."""

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from codec.baselines import Avif, Jpeg, PillowCodec, WebP
from codec.checkpoint import load_pretrained
from codec.data.image_file import NamedImage, pillow_image, read_image
from codec.image_codec import ImageCodec
from codec.measure import Measured, measure
from experiments.plots.comparison import middle

STANDARDS: dict[str, Callable[[int], PillowCodec]] = {"AVIF": Avif, "WebP": WebP, "JPEG": Jpeg}
_SHOWN = ("bytes", "bpp", "psnr", "ms_ssim")


def compared(file: Path, model: str, qualities: Sequence[float], crop: int) -> dict[str, Any]:
    """The middle `crop` pixels of each side of an image file at most, and what codecs make of them.

    `name`, `width`, `height`, `original`, and `rates`: for each quality of the pretrained `model` a list of its
    file and those of standard codecs of nearest size: `codec`, `source`, `bytes`, `bpp`, `psnr`, `ms_ssim`. Sources
    are data URLs, of standard codecs the very files. Raises ImageFileError, CheckpointError or ArgumentError.
    """
    codec = load_pretrained(model, qualities[0])
    image = middle(read_image(file, channels=codec.image_channels), crop)
    item = NamedImage(file.name, image)
    rates = []
    for quality in qualities:
        codec.set_quality(quality)
        own = measure(codec, item)
        rates.append({"quality": quality, "files": [_shown(model, own, _lossless(own.decoded))]})
        for name, standard in STANDARDS.items():
            other = measure(nearest_quality(standard, image, own.row["bytes"]), item)
            kind = f"image/{name.lower()}"
            rates[-1]["files"].append(_shown(name, other, _url(other.data, kind)))
    height, width = image.shape[1:]
    return {"name": file.name, "width": width, "height": height, "original": _lossless(image), "rates": rates}


def nearest_quality(make: Callable[[int], ImageCodec], image: Any, size: int) -> ImageCodec:
    """The codec of the qualities that `make` takes whose file of the image comes nearest to `size` bytes.

    By bisection, as if files grew with every quality.
    """
    low, high = make.qualities[0], make.qualities[-1]
    tried: dict[int, ImageCodec] = {}
    while low <= high:
        middle_one = (low + high) // 2
        codec = make(middle_one)
        written = len(codec.encode(image))
        tried.setdefault(abs(written - size), codec)
        if written < size:
            low = middle_one + 1
        else:
            high = middle_one - 1
    return tried[min(tried)]


def _shown(name: str, measured: Measured, source: str) -> dict[str, Any]:
    figures = {key: float(f"{measured.row[key]:.6g}") for key in _SHOWN if key in measured.row}
    return {"codec": name, "source": source, **figures}


def _lossless(image: Any) -> str:
    file = io.BytesIO()
    pillow_image(image).save(file, "WEBP", lossless=True, quality=60)
    return _url(file.getvalue(), "image/webp")


def _url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
