"""Files of a wanted size or a wanted quality: one setting of the encoder is searched for each image.

The format knows nothing of it: what is written is the file of some quality that the codec has.
"""

from typing import NamedTuple

from torch import Tensor

from codec import metrics
from codec.checks import check_integer, check_positive
from codec.errors import ArgumentError, EncodeError
from codec.image_codec import ImageCodec
from codec.metadata import Metadata


class Found(NamedTuple):
    """A complete file, the quality that was chosen for it, None if none was, and its PSNR, if measured."""

    data: bytes
    quality: float | None
    psnr: float | None = None


def encode_to(
    codec: ImageCodec,
    image: Tensor,
    metadata: Metadata | None = None,
    *,
    max_bytes: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
) -> Found:
    """The file for `image`, uint8 `[C, H, W]`, that reaches the one target which is given.

    `max_bytes`, from 1, or `bpp`, above 0, bits per pixel: the largest file that is no larger, metadata and header
    included. `psnr`, above 0, in dB, of the decoded image: the smallest file that comes as near or nearer. Both are
    sought by bisection, as if files grew, and images improved, with every step of `codec.quality_grid`: where one
    does not, a neighbour may be better, but what is returned keeps to its target. This takes about as many encodes,
    for `psnr` decodes too, as the number of qualities has bits: 8 of a variable rate.

    `codec` is left as it is, so that several threads may search with one. Raises ArgumentError if not one target is
    given, or the codec has no list of qualities to search; EncodeError if no quality that was tried reaches it.
    """
    given = [key for key, value in (("max_bytes", max_bytes), ("bpp", bpp), ("psnr", psnr)) if value is not None]
    if len(given) != 1:
        raise ArgumentError(f"{' and '.join(given) or 'nothing'} given: name one of max_bytes, bpp and psnr")
    if max_bytes is not None:
        check_integer("max_bytes", max_bytes, 1)
    else:
        check_positive(given[0], psnr if bpp is None else bpp)
    grid = codec.quality_grid
    if grid is None:
        why = "this codec writes at one rate only" if codec.qualities is None else "its qualities have no end"
        raise ArgumentError(given[0], why)
    pixels = image.shape[1] * image.shape[2]
    own = codec.copied()
    found, low, high = None, 0, len(grid)
    while low < high:
        middle = (low + high) // 2
        own.set_quality(grid[middle])
        data = own.encode(image) if metadata is None else own.encode(image, metadata)
        reached = None if psnr is None else metrics.psnr(own.decode(data).to(image.device), image)
        trial = Found(data, own.quality, reached)
        if psnr is not None:
            fits = reached >= psnr
        else:
            fits = len(data) <= max_bytes if bpp is None else 8 * len(data) <= bpp * pixels
        if fits:
            found = trial
        if fits == (psnr is None):
            low = middle + 1
        else:
            high = middle
    if found is not None:
        return found
    # The last trial was at the end of the grid.
    if psnr is not None:
        best, wanted = f"{trial.psnr:.2f} dB", f"{psnr:g} dB are"
    elif bpp is not None:
        best, wanted = f"{8 * len(trial.data) / pixels:.3f} bpp", f"{bpp:g} bpp is"
    else:
        best, wanted = f"{len(trial.data):,} bytes", f"{max_bytes:,} are"
    raise EncodeError(f"{best} even at quality {trial.quality:g}: {wanted} out of reach")
