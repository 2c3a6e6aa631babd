"""The curves that a command line names: of finished runs, of points.csv, and published ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from codec.training.results import read_results
from experiments.points import POINTS, Point, curves_of, read_points
from experiments.published import DATASET, IMAGES, read_published
from experiments.run_folders import find_runs, warn_of_other_images

Curves = dict[str, list[Point]]


def add_curve_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that `read_chosen` reads."""
    parser.add_argument(
        "curves",
        nargs="*",
        metavar="NAME=FOLDERS",
        help="a curve's name and its result folders, separated by commas; * is allowed, hashes may be left out",
    )
    parser.add_argument("--data", metavar="NAME", help="also the points on this data set in points.csv, e.g. kodak")
    parser.add_argument("--codecs", metavar="A,B", help="with --data: only these codecs, in this order")
    parser.add_argument("--points", type=Path, metavar="FILE", help=f"default: {POINTS}")
    parser.add_argument(
        "--published",
        metavar="NAMES",
        help="also published curves, which are of Kodak: main, all, or names such as vtm,elic2022",
    )


def read_chosen(options: argparse.Namespace) -> tuple[Curves, Curves]:
    """Measured curves and published ones, each `{name: points by rising bpp}`.

    Raises ValueError where there are none of what was asked for, or published ones would stand beside other images.
    """
    if options.data is None and (options.codecs or options.points):
        raise ValueError("--codecs and --points choose from points.csv: say of which data set, --data kodak")
    if options.published and options.data not in (None, DATASET):
        raise ValueError(f"--published curves are of {DATASET}: they cannot stand beside --data {options.data}")
    curves = read_curves(options.curves)
    if options.data is not None:
        file = options.points or POINTS
        points = read_points(file)
        if not points:
            raise ValueError(f"no points at {file}: `make table-baselines` and the like write it, or name another")
        codecs = options.codecs.split(",") if options.codecs else None
        measured = curves_of(points, options.data, codecs)
        twice = curves.keys() & measured.keys()
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))}: a codec of {file.name} has that name, give another")
        curves |= measured
    if not curves:
        raise ValueError("nothing is named: give NAME=FOLDERS, or --data kodak for what points.csv has")
    if not options.published:
        return curves, {}
    for name, points in curves.items():
        for point in points:
            if point.get("images", IMAGES) != IMAGES:
                raise ValueError(
                    f"--published is of Kodak's {IMAGES} images, {name} of {point['images']:.0f} others"
                )
    return curves, read_published(options.published)


def read_curves(texts: Sequence[str]) -> dict[str, list[Point]]:
    """`NAME=FOLDER,FOLDER…` → `{NAME: results}`, each curve's results by rising bpp.

    Says so where they are not of the same images. Raises ValueError where a folder holds no results.json, or two
    curves have one name.
    """
    folders: dict[str, list[Path]] = {}
    read: dict[str, list[Point]] = {}
    for text in texts:
        name, _, patterns = text.rpartition("=")
        if not name or name in folders:
            raise ValueError(f"{text}: every curve has a name of its own; give NAME=runs/a,runs/b")
        try:
            folders[name] = [folder for pattern in patterns.split(",") for folder in find_runs(pattern)]
            read[name] = [read_results(folder / "results.json") for folder in folders[name]]
        except ValueError as error:
            raise ValueError(f"{text}: {error}; give NAME=runs/a,runs/b") from error
    warn_of_other_images(folders, "points")
    return {name: sorted(points, key=lambda point: point["bpp"]) for name, points in read.items()}
