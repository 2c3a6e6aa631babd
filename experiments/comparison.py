"""A picture that sets decoded images beside their originals."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from torch import Tensor

from codec.image_codec import ImageCodec, NamedImage

mpl.use("Agg")

import matplotlib.pyplot as plt


class Panel(NamedTuple):
    """An image, uint8 `[C, H, W]`, and the line below it."""

    image: Tensor
    caption: str


def difference(decoded: Tensor, original: Tensor, gain: int = 4) -> Tensor:
    """|decoded − original|·gain of two uint8 images, clipped to 255: black where they are equal."""
    return ((decoded.int() - original.int()).abs() * gain).clamp(0, 255).byte()


def save_comparison(rows: list[list[Panel]], titles: list[str], path: Path) -> None:
    """Writes a grid of panels, one row an image, `titles` above the columns, every pixel shown at its size."""
    dpi, gap = 100, 0.45  # inches below each row, for the captions
    heights = [max(panel.image.shape[1] for panel in row) / dpi for row in rows]
    widths = [max(row[n].image.shape[2] for row in rows) / dpi for n in range(len(titles))]
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(sum(widths) + 0.1 * len(titles), sum(heights) + gap * (len(rows) + 1)),
        gridspec_kw={"height_ratios": heights, "width_ratios": widths},
        squeeze=False,
        layout="constrained",
    )
    for row, row_axes in zip(rows, axes, strict=True):
        for panel, axis in zip(row, row_axes, strict=True):
            pixels = panel.image.permute(1, 2, 0).cpu().numpy()
            axis.imshow(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
            axis.set_xlabel(panel.caption, fontsize=13)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    for title, axis in zip(titles, axes[0], strict=True):
        axis.set_title(title, fontsize=15)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


def nearest(codecs: list[ImageCodec], item: NamedImage, size: int) -> ImageCodec:
    """The codec whose file of the image comes nearest to `size` bytes."""
    return min(codecs, key=lambda codec: abs(len(codec.encode(item.image)) - size))


def caption(row: dict[str, float | str]) -> str:
    """Size and PSNR of what `ImageCodec.measure` gave."""
    return f"{row['bytes']:,} bytes, {row['bpp']:.3f} bpp, {row['psnr']:.2f} dB"
