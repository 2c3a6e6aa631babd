"""Writes one HTML page to open in a browser: curves, per-image tables, pictures at equal size, sweeps.

python -m experiments.report
python -m experiments.report --runs runs --image photo.jpg --out report.html
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from codec.data.samples import SamplesSource
from codec.pretrained import DEFAULT
from codec.training.faults import user_errors
from codec.whole_file import whole_file
from experiments.arguments import number
from experiments.points import LABELS, POINTS, read_points
from experiments.report import gather
from experiments.report.page import html
from experiments.report.pictures import compared

# What is shown at first, few enough to tell apart.
CHOSEN = {
    "measured": ["diffusion_wavelet", "comcnn_avif", "conv_baseline_dct", "avif", "webp", "jpegxl", "jpeg"],
    "published": ["vtm", "elic2022", "mbt2018", "bmshj2018-hyperprior"],
}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the page that the command line asks for; returns the exit status."""
    summary, _, examples = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="a folder of runs (default: runs)")
    parser.add_argument("--points", type=Path, default=POINTS, metavar="FILE", help=f"default: {POINTS}")
    parser.add_argument("--image", type=Path, metavar="FILE", help="what is coded (default: a packaged photograph)")
    parser.add_argument("--crop", type=int, default=512, metavar="N", help="its middle N×N pixels (default: 512)")
    parser.add_argument("--model", default=DEFAULT, metavar="NAME", help=f"a pretrained one (default: {DEFAULT})")
    parser.add_argument(
        "--qualities", default="20,45,70", metavar="A,B", help="which it codes at (default: 20,45,70)"
    )
    parser.add_argument("--no-pictures", action="store_true", help="code nothing, which takes most of the time")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the folder of runs")
    options = parser.parse_args(arguments)
    if options.crop < 1:
        parser.error(f"--crop {options.crop}: allowed are integers from 1")
    try:
        qualities = [number(text) for text in options.qualities.split(",")]
    except ValueError:
        parser.error(f"--qualities {options.qualities}: allowed are numbers, separated by commas")

    if options.runs is not None and not options.runs.is_dir():
        parser.error(f"--runs {options.runs}: no such folder")
    folder = options.runs or Path("runs")

    runs = gather.read_runs(folder)
    pictures = None
    if not options.no_pictures:
        image = options.image or SamplesSource().images("test")[0]
        pictures = compared(image, options.model, qualities, options.crop)
    data = {
        "about": f"made {date.today().isoformat()} of {options.points.name} and {len(runs)} runs in {folder}",
        "labels": LABELS,
        "chosen": CHOSEN,
        "points": gather.curve_points(read_points(options.points)) + gather.run_points(runs),
        "tables": gather.per_image(runs),
        "sweeps": gather.sweeps(runs, folder),
        "pictures": pictures,
    }
    out = options.out or folder / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as file:
        file.write(html(data).encode())
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, to open in a browser; {len(runs)} runs read in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
