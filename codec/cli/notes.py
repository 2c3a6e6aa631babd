"""What `codec compress` tells of a file that a user would not expect."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from codec.pretrained import Weights

# From this multiple of the rate that a model was measured at, it is not at home with an image.
UNUSUAL_RATE = 3.0
# And from so many dB below. The worst of 14 photographs, of grass, is 4.8 below; line art is 11 to 15.
UNUSUAL_LOSS = 6.0
# Smaller images are seldom as the photographs that were measured.
FEWEST_PIXELS = 64 * 64
# Of qualities that run the other way.
A_RATIO = "JPEG 2000's compression ratio, of which a larger one makes a smaller file"
_JPEG = b"\xff\xd8\xff"  # the first bytes of one

Source = Path | io.BytesIO


class Usual(NamedTuple):
    """What data sets of photographs reach with a model, as means: the largest rate, and the lowest PSNR in dB."""

    bpp: float
    psnr: float


def usual_of(weights: "Weights", quality: float | None) -> Usual | None:
    """What photographs reach on average with a lossy model, at `quality` where its weights write at several.

    Between two measured qualities the bits are those of the better one, the PSNR that of the other one. None:
    better than was measured.
    """
    points = [point for of_data_set in weights.measured.values() for point in of_data_set]
    if quality is not None:
        sign = -1 if weights.quality_is_ratio else 1
        measured = sorted((point["quality"] for point in points), key=lambda q: sign * q)
        above = next((q for q in measured if sign * q >= sign * quality), None)
        if above is None:
            return None
        below = next((q for q in reversed(measured) if sign * q <= sign * quality), measured[0])
        points = [point for point in points if point["quality"] in (below, above)]
    return Usual(max(point["bpp"] for point in points), min(point["psnr"] for point in points))


def of_size(written: int, source: Source, lossless: bool) -> Iterator[str]:
    """What a user would not expect of a file's size, `written` bytes."""
    if isinstance(source, Path):
        read = source.stat().st_size
        with source.open("rb") as file:
            head = file.read(len(_JPEG))
    else:
        read, head = len(source.getbuffer()), bytes(source.getbuffer()[: len(_JPEG)])
    if written <= read:
        return
    why = ": what is stored is every pixel, not the JPEG's own coefficients"
    yield f"larger than its source, {read:,} bytes{why if lossless and head == _JPEG else ''}"


def of_rate(pixels: int, bpp: float, psnr: float | None, usual: Usual | None) -> Iterator[str]:
    """What is not as photographs are. `psnr` is that of the decoded image, where it was decoded."""
    if usual is None or pixels < FEWEST_PIXELS:
        return
    advice = "if it is a drawing or a screenshot, try a lossless model"
    if bpp > UNUSUAL_RATE * usual.bpp:
        yield f"photographs take about {usual.bpp:.2f} bpp: {advice}"
    elif psnr is not None and psnr < usual.psnr - UNUSUAL_LOSS:
        yield f"it comes back with {psnr:.1f} dB, photographs with {usual.psnr:.1f}: {advice}"
