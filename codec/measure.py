"""Measuring: a codec encodes an image, decodes those very bytes, and the two are compared.

The one way any number in Quintet is made. An image is what `read_image` makes of a file, opaque and with 8 bits; of
what else the file had, these figures say nothing.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from codec.data.image_file import NamedImage, write_image
from codec.errors import EncodeError
from codec.further_metrics import Metric
from codec.image_codec import ImageCodec
from codec.metrics import image_quality
from codec.search import encode_to
from codec.whole_file import whole_file

Row = dict[str, float | str]


class Measured(NamedTuple):
    """The figures of an image, the image, its file, and what that decodes to; images are uint8 `[C, H, W]`."""

    row: Row
    image: Tensor
    data: bytes
    decoded: Tensor


@torch.no_grad()
def measure(
    codec: ImageCodec,
    item: NamedImage,
    further: Mapping[str, Metric] | None = None,
    target_bpp: float | None = None,
) -> Measured:
    """Encodes the image, decodes those bytes, and compares.

    With `target_bpp`, above 0, the file is what `encode_to` finds: the largest that is no larger, as far as
    bisecting the codec's qualities tells. The row has the `quality` that was found, too, and encode_ms is the time
    of the search. Raises EncodeError where no quality that was tried gives a file as small.

    The row has name, bytes, bpp, bpsp, ratio, mse, psnr, ssim, ms_ssim, encode_ms, decode_ms; what `further`
    measures, by name; estimated_bpp if the codec has an estimate; and the codec's `extra_columns`. SSIM, MS-SSIM
    and further metrics are absent of images too small for them. Raises RuntimeError where a lossless codec does not
    give the image back.
    """
    image = item.image
    started = _clock(image.device)
    if target_bpp is None:
        data = codec.encode(image)
    else:
        data, quality, _ = encode_to(codec, image, bpp=target_bpp)
        codec = codec.copied()
        codec.set_quality(quality)
    encoded = _clock(image.device)
    decoded = codec.decode(data)
    finished = _clock(decoded.device)
    decoded = decoded.to(image.device)
    if codec.lossless and not torch.equal(decoded, image):
        raise RuntimeError(f"{item.name}: its file decodes to another image, but this codec is lossless")
    pixels = image.shape[1] * image.shape[2]
    values = {name: metric(decoded, image) for name, metric in (further or {}).items()}
    estimate = codec.estimated_bits(image)
    row = {
        "name": item.name,
        **({} if target_bpp is None else {"quality": codec.quality}),
        "bytes": len(data),
        "bpp": 8 * len(data) / pixels,
        "bpsp": 8 * len(data) / image.numel(),
        "ratio": image.numel() / len(data),
        **image_quality(decoded, image),
        **{name: value for name, value in values.items() if value is not None},
        "encode_ms": 1000 * (encoded - started),
        "decode_ms": 1000 * (finished - encoded),
        **({} if estimate is None else {"estimated_bpp": estimate / pixels}),
        **codec.extra_columns(image),
    }
    return Measured(row, image, data, decoded)


def evaluate(
    codec: ImageCodec,
    items: Iterable[NamedImage],
    further: Mapping[str, Metric] | None = None,
    skipped: dict[str, str] | None = None,
    target_bpp: float | None = None,
) -> Iterator[Measured]:
    """Measures image after image, as they are asked for.

    Where `skipped` is given, an image that does not fit into memory, or has no file as small as `target_bpp`, is
    left out, and `skipped` then says so by its name; without, the error is raised.
    """
    for n, item in enumerate(items):
        try:
            if n == 0:
                warm_up(codec, item.image)
            measured = measure(codec, item, further, target_bpp)
        except EncodeError as error:
            if skipped is None:
                raise
            skipped[item.name] = str(error)
            continue
        except (MemoryError, RuntimeError) as error:
            if skipped is None or not is_out_of_memory(error):
                raise
            skipped[item.name] = "it does not fit into memory"
            continue
        yield measured


def warm_up(codec: ImageCodec, image: Tensor) -> None:
    """Has compiling and other first-time costs behind it, which are not coding time."""
    codec.decode(codec.encode(image))


def keep_files(folder: Path, measured: Measured, suffix: str) -> None:
    """Leaves the file in `folder`/files, and what it decodes to, as PNG, in `folder`/decoded."""
    name = measured.row["name"]
    file = folder / "files" / f"{name}{suffix}"
    picture = folder / "decoded" / f"{name.removesuffix('.png')}.png"
    for path in (file, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as out:
        out.write(measured.data)
    write_image(picture, measured.decoded)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, has no memory left for what was tried."""
    # torch has no class for the CPU's.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
