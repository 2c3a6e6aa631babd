"""How much rate a codec saves at equal quality, and how much quality it wins at equal rate: BD-rate and BD-PSNR.

  python -m experiments.tables.bd_rate JPEG='runs/jpeg-q*' ours=runs/a,runs/b,runs/c,runs/d
  python -m experiments.tables.bd_rate --data kodak --anchor jpeg --codecs jpeg,webp,avif --out docs/bd_rate.md
  python -m experiments.tables.bd_rate --data kodak --anchor jpeg --published vtm,elic2022 --quality ms_ssim_db

Bjøntegaard's deltas (VCEG-M33, 2001): the mean distance of two curves of log rate over quality, over the qualities
that both reach, or of quality over log rate, over the rates of both. The curves go through the points by pchip,
monotone cubic pieces (as VCEG-AL22 has it).
"""

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from experiments.curve_options import Curves, add_curve_options, read_chosen
from experiments.points import LABELS, lossy, quality_of
from experiments.published import read_published
from experiments.tables.pages import notes_on, write_page

LEAST_POINTS = 4
QUALITIES = ("psnr", "ssim", "ms_ssim_db")  # which rise with the rate

Curve = Sequence[tuple[float, float]]


class BDRate(NamedTuple):
    """`percent`: below 0, the test codec needs so much less; over qualities from `low` to `high`."""

    percent: float
    low: float
    high: float


class BDPSNR(NamedTuple):
    """`gain`: above 0, the test codec is so much better, in the quality's unit; over bpp from `low` to `high`."""

    gain: float
    low: float
    high: float


def bd_rate(anchor: Curve, test: Curve, low: float | None = None, high: float | None = None) -> BDRate:
    """The mean rate difference of two curves of (bpp, quality) points, where both are known.

    `low` and `high` narrow the qualities further. Raises ValueError where a curve has fewer than four points, its
    quality does not rise with its rate, or no quality is on both.
    """
    curves = _checked(anchor, test)
    gap, first, last = _mean_gap([(quality, np.log(rate)) for rate, quality in curves], low, high, "quality")
    return BDRate(100 * float(np.expm1(gap)), first, last)


def bd_psnr(anchor: Curve, test: Curve) -> BDPSNR:
    """The mean quality difference of two curves of (bpp, quality) points, over the log of the rates of both.

    Raises ValueError as `bd_rate` does.
    """
    curves = _checked(anchor, test)
    gap, first, last = _mean_gap([(np.log(rate), quality) for rate, quality in curves], None, None, "rate")
    return BDPSNR(gap, float(np.exp(first)), float(np.exp(last)))


def bd_table(
    curves: Curves, anchor: str, quality: str = "psnr", low: float | None = None, high: float | None = None
) -> str:
    """A Markdown table of what every curve of `{name: points}` is against the one named `anchor`.

    Overlap and gain are of `quality`, whose BD-rate `low` and `high` narrow; beside them stand the BD-rates by the
    other qualities, or a dash where a curve cannot be compared by them. One that cannot by `quality` has the reason
    in its line. Raises ValueError where there is no such anchor or quality.
    """
    if anchor not in curves:
        raise ValueError(f"no curve of {anchor} to compare with: there are {', '.join(curves)}")
    if quality not in QUALITIES:
        raise ValueError(f"quality={quality}: allowed are {', '.join(QUALITIES)}")
    others = [other for other in QUALITIES if other != quality]
    pairs = {key: {name: _pairs(points, key) for name, points in curves.items()} for key in QUALITIES}
    label, gain = LABELS[quality], LABELS[quality].replace(" (dB)", "")
    unit = " (dB)" if label != gain else ""
    heads = [
        *("codec", f"BD-rate against {anchor}, {gain}", f"over {label}", f"BD-{gain}{unit}", "over bpp"),
        *(f"BD-rate, {LABELS[other]}" for other in others),
        f"points ({anchor}: {len(pairs[quality][anchor])})",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for name in curves:
        if name != anchor:
            first = _cells(pairs[quality][anchor], pairs[quality][name], (low, high), digits=2 if unit else 4)
            beside = [_percent(pairs[other][anchor], pairs[other][name]) for other in others]
            lines.append(f"| {' | '.join([name, *first, *beside, str(len(pairs[quality][name]))])} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of what the command line names."""
    summary, examples, background = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tables.bd_rate",
        description=summary,
        epilog=f"{examples}\n\n{background}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_curve_options(parser)
    parser.add_argument(
        "--anchor", metavar="NAME", help="what all are compared with; default: the first NAME=FOLDERS"
    )
    parser.add_argument(
        "--quality", default="psnr", choices=QUALITIES, help="whose overlap and gain are shown too; default: psnr"
    )
    parser.add_argument("--low", type=float, help="leave out values of --quality below, of its BD-rate")
    parser.add_argument("--high", type=float, help="leave out values of --quality above, of its BD-rate")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where the table goes, under a heading, instead of the terminal"
    )
    options = parser.parse_args(arguments)
    if not options.anchor and not options.curves:
        parser.error("name the codec that the others are compared with: --anchor jpeg")
    try:
        behind = read_published(options.published) if options.published else {}
        if options.codecs and options.anchor and options.anchor not in behind:
            options.codecs = ",".join(dict.fromkeys([options.anchor, *options.codecs.split(",")]))
        curves, published = read_chosen(options)
        named = curves | {f"{name} (published)": points for name, points in published.items()}
        both = {name: points for name, points in named.items() if lossy(points)}
        anchor = options.anchor or next(iter(curves))
        if anchor not in both and anchor in published:
            anchor = f"{anchor} (published)"
        table = bd_table(both, anchor, options.quality, options.low, options.high)
    except ValueError as error:
        parser.error(str(error))
    others = [name for name in both if name != anchor]
    if not others:
        parser.error(f"{anchor} is the only lossy curve: name another to compare with it")
    if len(others) == 1:
        pairs = (_pairs(both[name], options.quality) for name in (anchor, *others))
        try:
            bd_rate(*pairs, options.low, options.high)
        except ValueError as error:
            parser.error(f"{others[0]} against {anchor}: {error}")
    if options.out is None:
        print(table)
        return
    given = sys.argv[1:] if arguments is None else arguments
    write_page(options.out, _page(table, both, anchor, options.data, given))
    print(options.out)


def _page(table: str, curves: Curves, anchor: str, dataset: str | None, arguments: Sequence[str]) -> str:
    """The table under what it is of and how it was made."""
    counts = dict.fromkeys(f"{p['images']:g}" for points in curves.values() for p in points if "images" in p)
    known = [*([dataset] if dataset else []), *([f"{' or '.join(counts)} images"] if counts else [])]
    recorded = ["Each measured point's commit and command are in points.csv."] if dataset else []
    notes = [
        f"How many more bits, below 0: fewer, a codec needs than {anchor} ({len(curves[anchor])} points) at equal "
        "quality.",
        *recorded,
        *notes_on([dataset]),
    ]
    command = shlex.join(["python", "-m", "experiments.tables.bd_rate", *arguments])
    parts = [f"# BD-rates{': ' if known else ''}{', '.join(known)}", " ".join(notes)]
    return "\n\n".join([*parts, f"{datetime.date.today()}, by", f"```\n{command}\n```", table]) + "\n"


def _pairs(points: list[dict], quality: str) -> list[tuple[float, float]]:
    values = [(point["bpp"], quality_of(point, quality)) for point in lossy(points)]
    return [(bpp, value) for bpp, value in values if value is not None]


def _cells(anchor: Curve, test: Curve, ends: tuple[float | None, float | None], digits: int) -> list[str]:
    try:
        rate = bd_rate(anchor, test, *ends)
    except ValueError as error:
        return [f"not compared: {error}", "", "", ""]
    cells = [f"{rate.percent:+.2f} %", f"{rate.low:.{digits}f}–{rate.high:.{digits}f}"]
    try:
        gain = bd_psnr(anchor, test)
    except ValueError as error:
        return [*cells, f"not compared: {error}", ""]
    return [*cells, f"{gain.gain:+.{digits}f}", f"{gain.low:.3f}–{gain.high:.3f}"]


def _percent(anchor: Curve, test: Curve) -> str:
    try:
        return f"{bd_rate(anchor, test).percent:+.2f} %"
    except ValueError:
        return "–"


def _checked(*curves: Curve) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of the anchor and the test curve the rates and the qualities, both rising."""
    checked = []
    for name, points in zip(("anchor", "test"), curves, strict=True):
        rates, qualities = np.array(sorted(points), float).T if len(points) else (np.empty(0), np.empty(0))
        if len(rates) < LEAST_POINTS:
            count = f"{len(rates)} point{'s' * (len(rates) != 1)}"
            raise ValueError(f"the {name} curve has {count}, {LEAST_POINTS} are the least")
        if (np.diff(qualities) <= 0).any() or (np.diff(rates) <= 0).any():
            raise ValueError(f"the {name} curve's quality does not rise with its rate")
        checked.append((rates, qualities))
    return checked


def _mean_gap(
    curves: list[tuple[np.ndarray, np.ndarray]], low: float | None, high: float | None, what: str
) -> tuple[float, float, float]:
    """The mean of the second curve less the first where both are known, and that range, of two (x, y) curves."""
    first = max(bound for bound in (*(x[0] for x, _ in curves), low) if bound is not None)
    last = min(bound for bound in (*(x[-1] for x, _ in curves), high) if bound is not None)
    if first >= last:
        raise ValueError(f"no {what} is on both curves")
    anchor, test = (PchipInterpolator(x, y).integrate(first, last) for x, y in curves)
    return float((test - anchor) / (last - first)), float(first), float(last)


if __name__ == "__main__":
    main()
