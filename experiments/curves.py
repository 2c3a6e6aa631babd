"""`python -m experiments.curves NAME=FOLDERS … --out docs/curves.png`: quality over bpp of measured codecs."""

import argparse
import re
from pathlib import Path

import matplotlib as mpl

from experiments.points import CURVE_HELP, read_curves

mpl.use("Agg")

import matplotlib.pyplot as plt

QUALITY = {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.curves", description=__doc__)
    parser.add_argument(
        "curves",
        nargs="+",
        metavar="NAME=FOLDERS",
        help=CURVE_HELP,
    )
    parser.add_argument("--label", default="", help="write this key of the results beside the points, e.g. codec")
    parser.add_argument("--title", default="", help="what the figure shows: data set, number of images")
    parser.add_argument("--out", required=True, type=Path, help="the figure; its suffix says the format")
    arguments = parser.parse_args()

    try:
        curves = read_curves(arguments.curves)
    except ValueError as error:
        parser.error(str(error))
    label = arguments.label
    if label and not any(label in point for points in curves.values() for point in points):
        parser.error(
            f"--label {label}: no result has that key; they have {', '.join(next(iter(curves.values()))[0])}"
        )

    figure, axes = plt.subplots(1, len(QUALITY), figsize=(5 * len(QUALITY), 4.4), layout="constrained")
    for name, points in curves.items():
        for axis, quality in zip(axes, QUALITY, strict=True):
            known = [point for point in points if quality in point]
            axis.plot([p["bpp"] for p in known], [p[quality] for p in known], marker="o", markersize=4, label=name)
            for point in known:
                if label in point:
                    text, place = re.sub("-[0-9a-f]{8}$", "", str(point[label])), (point["bpp"], point[quality])
                    axis.annotate(text, place, textcoords="offset points", xytext=(6, -9), fontsize=8)
    for axis, label in zip(axes, QUALITY.values(), strict=True):
        axis.set(xlabel="bpp, whole files", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(arguments.title)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=100)
    print(arguments.out)


if __name__ == "__main__":
    main()
