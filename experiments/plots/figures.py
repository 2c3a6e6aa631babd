"""How figures look and are written: colours, markers, a file beside an SVG, the same bytes for the same data."""

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people tell apart, without the yellow that is too faint for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vP*X<>h"
# Colours, markers and dashes come round at different lengths: no two of the first 77 curves look the same.
DASHES = ("-", "--", "-.")

# The first seven have colours of their own; a variant, seven places on or fourteen, has that of what it varies.
CODECS = (
    *("jpeg", "webp", "avif", "jpegxl", "jpeg2000", "diffusion_wavelet", "quantized_autoencoder"),
    *("jpeg_444", "conv_baseline", "avif_444_psnr", "conv_enhanced", "comcnn_reccnn", "diffusion"),
    *("quantized_autoencoder_paper", "jpeg_progressive"),
)


def look(n: int) -> dict[str, str]:
    """The colour, marker and line style of the n-th curve, from 0."""
    return {
        "color": COLOURS[n % len(COLOURS)],
        "marker": MARKERS[n % len(MARKERS)],
        "linestyle": DASHES[n // len(COLOURS) % len(DASHES)],
    }


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The look of every curve by its name: of one of `CODECS` the same in all figures, others come after those."""
    places = {name: n for n, name in enumerate(CODECS)}
    return {name: look(places.setdefault(name, len(places))) for name in names}


def figure_file(text: str) -> Path:
    """The path of a figure, for argparse: its suffix is one that matplotlib writes."""
    path, known = Path(text), sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise argparse.ArgumentTypeError(f"{text}: its name ends in none of .{', .'.join(known)}")
    return path


def plain_numbers(axis: Axis) -> None:
    """Has a logarithmic axis say 0.2, not 2 × 10⁻¹: at 1, 2, 5 of a decade, or at all ticks if it is shorter."""

    def text(value: float, _: int) -> str:
        low, high = axis.get_view_interval()
        digit = round(value / 10 ** math.floor(math.log10(value)))
        return f"{value:g}" if high < 10 * low or digit in (1, 2, 5, 10) else ""

    axis.set_major_formatter(text)
    axis.set_minor_formatter(text)


def save(figure: Figure, out: Path) -> list[Path]:
    """Writes a figure to `out` and as SVG beside it, without a date in either; returns the paths."""
    out.parent.mkdir(parents=True, exist_ok=True)
    written = list(dict.fromkeys([out, out.with_suffix(".svg")]))
    # Text as text keeps SVGs small and searchable; the salt stands for random ids.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "quintet"}):
        for path in written:
            undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
            figure.savefig(path, dpi=100, metadata=undated)
    return written
