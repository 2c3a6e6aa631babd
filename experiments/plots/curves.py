"""Quality over bpp of measured codecs, as a figure and an SVG beside it.

python -m experiments.plots.curves JPEG='runs/jpeg-q*' ours=runs/a,runs/b --out docs/curves.png
python -m experiments.plots.curves --data kodak --codecs jpeg,webp,diffusion_wavelet --out docs/kodak.png
python -m experiments.plots.curves --data kodak --published vtm,elic2022 --log --out docs/kodak.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from codec.run_names import without_hash
from experiments.curve_options import Curves, add_curve_options, read_chosen
from experiments.plots.figures import figure_file, looks, plain_numbers, save
from experiments.points import LABELS, Point, lossy, quality_of

# So many published curves are named where they end. More are told apart by letters: greys and dashes alone are not,
# where eight run side by side.
NAMED = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))


def draw(
    curves: Curves,
    out: Path,
    *,
    title: str = "",
    published: Curves | None = None,
    log: bool = False,
    qualities: Sequence[str] | None = None,
    label: str = "",
    bpp_max: float | None = None,
) -> list[Path]:
    """Writes quality over bpp, a panel each, to `out` and as SVG beside it; returns the paths.

    `curves` and `published`, which are drawn thin and grey behind, are `{name: points}`. `qualities` are keys of
    `points.LABELS`, by default all that some curve has; `label` is a key whose value is written beside each
    point; `log` is for the bpp. Lossless points are left out. Raises ValueError where nothing is left to draw.
    """
    curves = {name: lossy(points) for name, points in curves.items()}
    curves = {name: points for name, points in curves.items() if points}
    known = [key for key in LABELS if any(quality_of(p, key) is not None for ps in curves.values() for p in ps)]
    chosen = list(qualities or known)
    missing = [key for key in chosen if key not in known]
    keys = {key for points in curves.values() for point in points for key in point}
    if label and label not in keys:
        raise ValueError(f"no point has {label} to write beside it: there are {', '.join(sorted(keys))}")
    if missing or not chosen:
        there = f"there are {', '.join(known)}" if known else "all points are lossless, or there are none"
        raise ValueError(f"nothing to draw of {', '.join(missing) or 'any quality'}: {there}")
    right = bpp_max or 1.03 * max(point["bpp"] for points in curves.values() for point in points)
    left = 0.9 * min(point["bpp"] for points in curves.values() for point in points)
    if left >= right:
        raise ValueError(f"nothing to draw up to {right:g} bpp: the points begin at {left / 0.9:.3g}")

    rows, columns = (len(chosen) + 1) // 2, min(len(chosen), 2)
    handles = _legend(curves, published or {})
    legend_columns = 1 + (len(handles) - 1) // (20 * rows)
    beside = 0 if len(chosen) % 2 and columns == 2 else 2.2 * legend_columns  # the last of four places is free
    figure = Figure(figsize=(5 * columns + beside, 4.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, key in zip(axes, chosen, strict=False):
        _behind(axis, published or {}, key)
        _measured(axis, curves, key, label)
        axis.set(xlabel="bpp, whole files", ylabel=LABELS[key])
        _limit(axis, [*curves.values(), *(published or {}).values()], key, (left if log else 0, right))
        if published and len(published) <= NAMED:
            _name_ends(axis, published, key)
        axis.grid(alpha=0.3)
        if log:
            axis.set_xscale("log")
            plain_numbers(axis.xaxis)
    if len(axes) > len(chosen):
        axes[-1].set_axis_off()
        axes[-1].legend(handles=handles, loc="center", ncols=1 + (len(handles) - 1) // 18, frameon=False)
    else:
        figure.legend(handles=handles, loc="outside right center", ncols=legend_columns, frameon=False)
    figure.suptitle(title)
    return save(figure, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what the command line names."""
    summary, _, examples = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plots.curves",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_curve_options(parser)
    parser.add_argument("--quality", metavar="A,B", help=f"of {', '.join(LABELS)}; default: those that there are")
    parser.add_argument("--bpp-max", type=float, metavar="N", help="the right end of the bpp axis")
    parser.add_argument("--log", action="store_true", help="a logarithmic bpp axis")
    parser.add_argument("--label", default="", help="write this key beside the points, e.g. setting or codec")
    parser.add_argument("--title", default="", help="what the figure shows: data set, number of images")
    parser.add_argument("--out", required=True, type=figure_file, help="the figure, e.g. x.png; x.svg comes beside")
    options = parser.parse_args(arguments)
    try:
        curves, published = read_chosen(options)
        written = draw(
            curves,
            options.out,
            title=options.title,
            published=published,
            log=options.log,
            qualities=options.quality.split(",") if options.quality else None,
            label=options.label,
            bpp_max=options.bpp_max,
        )
    except ValueError as error:
        parser.error(str(error))
    print(*written, sep="\n")


def _measured(axis: Axes, curves: Curves, key: str, label: str) -> None:
    styles = looks(curves)
    for name, points in curves.items():
        known = _known(points, key)
        axis.plot(*_xy(known, key), **styles[name], markersize=5, linewidth=1.6)
        for point in known:
            if label in point:
                text, place = without_hash(str(point[label])), (point["bpp"], quality_of(point, key))
                axis.annotate(text, place, textcoords="offset points", xytext=(6, -9), fontsize=8)


def _behind(axis: Axes, published: Curves, key: str) -> None:
    for n, points in enumerate(published.values()):
        known = _known(points, key)
        axis.plot(*_xy(known, key), **_grey_look(n, len(published)), zorder=1, markevery=1 + len(known) // 10)


def _name_ends(axis: Axes, published: Curves, key: str) -> None:
    """Writes each curve's name where it ends, or beside the axes where it leaves them."""
    right = axis.get_xlim()[1]
    style = {"textcoords": "offset points", "fontsize": 8, "color": "0.3", "annotation_clip": False}
    for name, points in published.items():
        bpp, values = _xy(_known(points, key), key)
        if bpp and bpp[-1] < right:
            axis.annotate(name, (bpp[-1], values[-1]), xytext=(-2, 4), ha="right", **style)
        elif bpp:
            axis.annotate(name, (right, np.interp(right, bpp, values)), xytext=(3, 0), va="center", **style)


def _grey_look(n: int, count: int) -> dict:
    if count <= NAMED:
        return {"color": "0.6", "linestyle": DASHES[n % len(DASHES)], "linewidth": 1.1}
    letter = f"$\\mathrm{{{LETTERS[n % len(LETTERS)]}}}$"
    marker = {"marker": letter, "markersize": 6, "markerfacecolor": "0.2", "markeredgewidth": 0}
    return {"color": "0.6", "linestyle": DASHES[n % len(DASHES)], "linewidth": 0.9, **marker}


def _legend(curves: Curves, published: Curves) -> list[Line2D]:
    handles = [Line2D([], [], **style, markersize=5, label=name) for name, style in looks(curves).items()]
    if published and len(published) <= NAMED:
        return [*handles, Line2D([], [], color="0.6", label="published")]
    if published:
        handles.append(Line2D([], [], linestyle="none", label="published:"))
    return [
        *handles,
        *(Line2D([], [], **_grey_look(n, len(published)), label=name) for n, name in enumerate(published)),
    ]


def _known(points: list[Point], key: str) -> list[Point]:
    return [point for point in points if quality_of(point, key) is not None]


def _xy(points: list[Point], key: str) -> tuple[list[float], list[float]]:
    return [point["bpp"] for point in points], [quality_of(point, key) for point in points]


def _limit(axis: Axes, curves: list[list[Point]], key: str, ends: tuple[float, float]) -> None:
    """Shows the rates between `ends` and the qualities that are met there."""
    seen = [quality_of(point, key) for points in curves for point in points if ends[0] <= point["bpp"] <= ends[1]]
    seen = [value for value in seen if value is not None]
    axis.set_xlim(ends)
    if seen:
        margin = 0.04 * (max(seen) - min(seen)) or 1
        axis.set_ylim(min(seen) - margin, max(seen) + margin)


if __name__ == "__main__":
    main()
