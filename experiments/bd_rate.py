"""`python -m experiments.bd_rate ANCHOR=FOLDERS NAME=FOLDERS …`: how much rate a codec saves at equal quality.

Bjøntegaard's delta rate (VCEG-M33, 2001): between two curves of log rate over quality, the mean distance, over the
qualities both reach. The curves go through the points by pchip, monotone cubic pieces (as VCEG-AL22 has it).
"""

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

from experiments.points import CURVE_HELP, read_curves

LEAST_POINTS = 4


class BDRate(NamedTuple):
    """`percent`: below 0, the test codec needs so much less; over qualities from `low` to `high`."""

    percent: float
    low: float
    high: float


def bd_rate(
    anchor: Sequence[tuple[float, float]],
    test: Sequence[tuple[float, float]],
    low: float | None = None,
    high: float | None = None,
) -> BDRate:
    """The mean rate difference of two curves of (bpp, quality) points, where both are known.

    `low` and `high` narrow the qualities further. Raises ValueError where a curve has fewer than four points, its
    quality does not rise with its rate, or no quality is on both.
    """
    logs, ends = [], []
    for name, points in (("anchor", anchor), ("test", test)):
        rates, qualities = np.array(sorted(points), float).T if len(points) else (np.empty(0), np.empty(0))
        if len(rates) < LEAST_POINTS:
            raise ValueError(f"the {name} curve has {len(rates)} points: BD-rate takes {LEAST_POINTS} at least")
        if (np.diff(qualities) <= 0).any() or (np.diff(rates) <= 0).any():
            raise ValueError(
                f"the {name} curve's quality does not rise with its rate: there is no rate per quality"
            )
        logs.append(PchipInterpolator(qualities, np.log(rates)))
        ends.append((qualities[0], qualities[-1]))
    first = max(bound for bound in (ends[0][0], ends[1][0], low) if bound is not None)
    last = min(bound for bound in (ends[0][1], ends[1][1], high) if bound is not None)
    if first >= last:
        raise ValueError(f"no quality is on both curves: they end at {last:.4g} and begin at {first:.4g}")
    difference = (logs[1].integrate(first, last) - logs[0].integrate(first, last)) / (last - first)
    return BDRate(100 * float(np.expm1(difference)), float(first), float(last))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one line for every curve after the first."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bd_rate", description=__doc__.partition("\n")[0])
    parser.add_argument("anchor", metavar="NAME=FOLDERS", help=CURVE_HELP)
    parser.add_argument("curves", nargs="+", metavar="NAME=FOLDERS", help="what is compared with it")
    parser.add_argument("--quality", default="psnr", choices=("psnr", "ssim", "ms_ssim"), help="default: psnr")
    parser.add_argument("--low", type=float, help="leave out qualities below")
    parser.add_argument("--high", type=float, help="leave out qualities above")
    options = parser.parse_args(arguments)
    try:
        ((anchor, reference),) = read_curves([options.anchor]).items()
        curves = read_curves(options.curves)
        for name, results in curves.items():
            pairs = [
                [(point["bpp"], point[options.quality]) for point in points] for points in (reference, results)
            ]
            found = bd_rate(*pairs, options.low, options.high)
            print(
                f"{name} against {anchor}: {found.percent:+.2f} % rate at equal {options.quality}, "
                f"{found.low:.4g} to {found.high:.4g}, {len(pairs[1])} and {len(pairs[0])} points"
            )
    except (ValueError, KeyError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
