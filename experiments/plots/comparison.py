"""A picture that sets decoded images beside their originals."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from codec.image_codec import ImageCodec
from codec.measure import Row
from codec.metrics import psnr


class Panel(NamedTuple):
    """An image, uint8 `[C, H, W]`, and the line below it."""

    image: Tensor
    caption: str


def difference(decoded: Tensor, original: Tensor, gain: int = 4) -> Tensor:
    """|decoded − original|·gain of two uint8 images, clipped to 255: black where they are equal."""
    return ((decoded.int() - original.int()).abs() * gain).clamp(0, 255).byte()


def middle(image: Tensor, size: int) -> Tensor:
    """The middle `size`×`size` pixels of an image `[C, H, W]`, or all there are."""
    height, width = image.shape[-2:]
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    return image[:, top : top + size, left : left + size]


def save_comparison(rows: list[list[Panel]], titles: list[str], path: Path) -> None:
    """Writes a grid of panels, one row an image, `titles` above the columns, every pixel shown at its size.

    A row may be shorter than the first.
    """
    dpi, gap = 100, 0.45  # inches below each row, for the captions
    columns = len(rows[0])
    heights = [max(panel.image.shape[1] for panel in row) / dpi for row in rows]
    widths = [max(row[n].image.shape[2] for row in rows if n < len(row)) / dpi for n in range(columns)]
    figure = Figure(
        figsize=(sum(widths) + 0.1 * columns, sum(heights) + gap * (len(rows) + bool(titles))),
        layout="constrained",
    )
    axes = figure.subplots(
        len(rows), columns, gridspec_kw={"height_ratios": heights, "width_ratios": widths}, squeeze=False
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, row_axes in zip(rows, axes, strict=True):
        for panel, axis in zip(row, row_axes, strict=False):
            pixels = panel.image.permute(1, 2, 0).cpu().numpy()
            axis.imshow(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    for n, width in enumerate(widths):
        captions = [row[n].caption for row in rows if n < len(row)]
        for axis, text in zip(axes[:, n], captions, strict=False):
            axis.set_xlabel(text, fontsize=_fitting(captions, width, 13))
        if titles:
            axes[0, n].set_title(titles[n], fontsize=_fitting(titles, min(widths), 15))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)


def _fitting(texts: list[str], width: float, largest: float) -> float:
    """The font size in points at which all texts are at most as wide as a panel of `width` inches."""
    longest = max(len(line) for text in texts for line in text.splitlines())
    return min(largest, 72 * width / (0.6 * max(1, longest)))  # a letter is about 0.6 of its size wide


def nearest(codecs: Sequence[ImageCodec], image: Tensor, size: int) -> ImageCodec:
    """The codec whose file of the image, uint8 `[C, H, W]`, comes nearest to `size` bytes."""
    return min(codecs, key=lambda codec: abs(len(codec.encode(image)) - size))


def caption(row: Row) -> str:
    """Size and PSNR in a row of `codec.measure`."""
    return f"{row['bytes']:,} bytes, {row['bpp']:.3f} bpp, {row['psnr']:.2f} dB"


class Coded(NamedTuple):
    """What an image's file decodes to, the file's size, and the two in words."""

    image: Tensor
    bytes: int
    caption: str


def coded(codec: ImageCodec, image: Tensor) -> Coded:
    """Encodes an image, uint8 `[C, H, W]`, and decodes that very file."""
    data = codec.encode(image)
    decoded = codec.decode(data)
    reached = psnr(decoded, image)
    quality = "lossless" if math.isinf(reached) else f"{reached:.2f} dB"
    return Coded(decoded, len(data), f"{8 * len(data) / image[0].numel():.3f} bpp, {quality}")
