"""Train and validation loss of runs, finished or not, as a figure and an SVG beside it.

python -m experiments.plots.losses runs/conv_baseline runs/conv_enhanced --log --out docs/losses.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from codec.training.csv_metrics import FILES, read_logged
from experiments.plots.figures import COLOURS, figure_file, look, plain_numbers, save
from experiments.run_folders import find_runs, named


class Logged(NamedTuple):
    """One value of the loss: after `step` steps, in epoch `epoch`, from 0."""

    epoch: int
    step: int
    loss: float


def read_losses(run: Path) -> dict[str, list[Logged]]:
    """`{"train": …, "val": …}` of what a run has logged, as if it had never been cut short."""
    rows = read_logged(run)
    return {
        name: [
            Logged(int(row["epoch"]), int(row["step"]), float(row[f"{name}/loss"]))
            for row in rows
            if f"{name}/loss" in row
        ]
        for name in ("train", "val")
    }


def mean_of_epochs(logged: list[Logged]) -> list[Logged]:
    """One value an epoch: the mean of what it logged, at its last step."""
    of_epoch: dict[int, list[Logged]] = {}
    for value in logged:
        of_epoch.setdefault(value.epoch, []).append(value)
    return [
        Logged(epoch, values[-1].step, sum(value.loss for value in values) / len(values))
        for epoch, values in of_epoch.items()
    ]


def draw(
    runs: dict[str, dict[str, list[Logged]]], out: Path, *, over: str = "epochs", log: bool = False
) -> list[Path]:
    """Writes the losses of `{name: what read_losses gave}` to `out` and as SVG beside it; returns the paths.

    `over` epochs: of the train loss an epoch's mean, over steps: all that was logged. `log` is for the loss.
    """
    figure = Figure(figsize=(8 if len(runs) == 1 else 9.5, 4.4), layout="constrained")
    axis = figure.subplots()
    for n, (name, losses) in enumerate(runs.items()):
        train = mean_of_epochs(losses["train"]) if over == "epochs" else losses["train"]
        colour = {"color": COLOURS[n % len(COLOURS)]}
        faint = {"linewidth": 1.6} if over == "epochs" else {"linewidth": 0.8, "alpha": 0.6}
        marker = "." if over == "epochs" or len(train) == 1 else ""
        axis.plot(*_xy(train, over), **colour, **faint, marker=marker, label=f"{name}, train")
        dashed = {"linestyle": "--", "marker": look(n)["marker"], "markersize": 5}
        axis.plot(*_xy(losses["val"], over), **colour, **dashed, label=f"{name}, validation")
    axis.set(xlabel=over, ylabel="loss")
    if log:
        axis.set_yscale("log")
        plain_numbers(axis.yaxis)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3, which="both" if log else "major")
    figure.legend(loc="outside right center", frameon=False)
    return save(figure, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what the command line names."""
    summary, _, examples = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plots.losses",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="runs' folders; * is allowed, hashes may be left out"
    )
    parser.add_argument("--over", default="epochs", choices=("epochs", "steps"), help="default: epochs")
    parser.add_argument("--log", action="store_true", help="a logarithmic loss axis")
    parser.add_argument("--out", required=True, type=figure_file, help="the figure, e.g. x.png; x.svg comes beside")
    options = parser.parse_args(arguments)
    try:
        folders = [folder for run in options.runs for folder in find_runs(run, FILES)]
    except ValueError as error:
        parser.error(f"{error}: give the folder of a run of train.py")
    runs = {name: read_losses(folder) for name, folder in named(folders).items()}
    for name, losses in runs.items():
        if not losses["train"] and not losses["val"]:
            parser.error(f"{name} has logged no loss yet")
        if options.log and min(value.loss for logged in losses.values() for value in logged) <= 0:
            parser.error(f"{name} has losses of 0 or below: they have no place on --log")
    print(*draw(runs, options.out, over=options.over, log=options.log), sep="\n")


def _xy(logged: list[Logged], over: str) -> tuple[list[int], list[float]]:
    places = [value.epoch + 1 if over == "epochs" else value.step + 1 for value in logged]
    return places, [value.loss for value in logged]


if __name__ == "__main__":
    main()
