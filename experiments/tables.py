"""The papers' tables beside what Quintet measures: finds or trains what a table needs, and measures real files.

  make table-conv                 writes experiments/results/conv.md, conv.csv and figures; all points to points.csv
  make tables BUDGET=smoke        all, in minutes, below experiments/results/smoke: proves the path, and no more
  make table-diffusion SEEDS=3    trained with three seeds: mean ± standard deviation

What was finished before is not done again, what was cut short goes on, and a changed config retrains only what
depends on it: every run's folder below runs/ follows from its config.
"""

import argparse
import importlib
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evaluate
from codec.checkpoint import find_checkpoint
from codec.config import user_errors
from codec.data.image_file import whole_file
from codec.runs import RunFolder
from experiments.compose import composed
from experiments.curves import draw
from experiments.plan import TABLES, Evaluation, Plan, PlanError, Training, read_plan
from experiments.points import Point, curves_of, record
from experiments.published import read_published
from experiments.report import BUDGET_LINE, Measured, as_csv, as_markdown, budget_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments/results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the tables that the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tables", nargs="+", metavar="TABLE", help=f"all, or of {', '.join(TABLES)}")
    parser.add_argument("--budget", default="small", help="smoke, small (default) or paper")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="train with seeds 0 … N-1 (default: 1)")
    options = parser.parse_args(arguments)
    try:
        plans = [
            read_plan(table, options.budget, options.seeds)
            for table in (TABLES if options.tables == ["all"] else options.tables)
        ]
        folder = RESULTS / "smoke" if options.budget == "smoke" else RESULTS
        for plan in plans:
            check_not_better(folder / f"{plan.table}.md", plan.budget)
        for plan in plans:
            make_table(plan, folder)
    except PlanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_table(plan: Plan, folder: Path) -> Path:
    """Does what the plan's table still lacks, writes it to `folder`, and returns the Markdown file."""
    for n, training in enumerate(plan.trainings, 1):
        if RunFolder(training.folder).results is None:
            print(f"\n{plan.table}: training {n} of {len(plan.trainings)}, {training.name}", flush=True)
            train(training)
    measured = []
    for n, evaluation in enumerate(plan.evaluations, 1):
        results = finished(evaluation)
        if results is None:
            print(f"\n{plan.table}: measuring {n} of {len(plan.evaluations)}, {evaluation.name}", flush=True)
            with composed("evaluate", evaluation.command_overrides()) as config:
                results = evaluate.evaluate(config)
        trained = {} if evaluation.training is None else RunFolder(evaluation.training.folder).results
        measured.append(Measured(evaluation, {**_minutes(trained), **results}))
    points = [row.point for row in measured]
    figures = draw_figures(plan, points, folder)
    record(points, folder / "points.csv")
    file = folder / f"{plan.table}.md"
    _write(file.with_suffix(".csv"), as_csv(plan, measured))
    _write(file, as_markdown(plan, measured, [figure.name for figure in figures]))
    print(f"\n{file}")
    return file


def draw_figures(plan: Plan, points: Sequence[Point], folder: Path) -> list[Path]:
    """The plan's curves and figures; what is as new as what it shows is not drawn again."""
    figures = []
    for dataset in dict.fromkeys(row["dataset"] for row in points if not math.isinf(row["psnr"])):
        figures.append(folder / f"{plan.table}_{dataset}.png")
        published = read_published() if dataset == "kodak" else None
        draw(curves_of(points, dataset), figures[-1], title=f"{plan.title}, {dataset}", published=published)
    for figure in plan.figures:
        out = folder / f"{plan.table}_{figure.file}"
        figures.append(out)
        newest = max(find_checkpoint(training.folder).stat().st_mtime for training in figure.trainings)
        if not out.is_file() or out.stat().st_mtime < newest:
            importlib.import_module(f"experiments.{figure.tool}").main(figure.arguments(out))
    return figures


def train(training: Training) -> None:
    """Runs train.py to its end. Raises PlanError if it fails; what it says is on the terminal."""
    environment = {"WANDB_RUN_GROUP": "tables", **os.environ}
    command = [sys.executable, str(ROOT / "train.py"), *training.overrides]
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        raise PlanError(
            f"training {training.name} ended with status {done.returncode}, for the reason above; "
            f"by itself: {shlex.join(['python', 'train.py', *training.overrides])}"
        )


def finished(evaluation: Evaluation) -> dict[str, Any] | None:
    """The results of an evaluation that was made of the weights as they are now; None: it is still to be made."""
    with composed("evaluate", evaluation.command_overrides()) as config:
        folder = evaluate.results_folder(config)
    results = folder.results
    if results is not None and evaluation.training is not None:
        weights = find_checkpoint(evaluation.training.folder)
        if weights.stat().st_mtime > (folder.path / "results.json").stat().st_mtime:
            return None
    return results


def check_not_better(file: Path, budget: str) -> None:
    """Raises PlanError if the table was made with a larger budget than `budget`."""
    if file.is_file() and (budget, budget_of(file.read_text(encoding="utf-8"))) == ("small", "paper"):
        raise PlanError(f"BUDGET={budget}: {file} was made with BUDGET=paper; delete it to make a lesser one")


def _minutes(trained: dict[str, Any]) -> dict[str, float]:
    return {"train_minutes": trained["train_minutes"]} if "train_minutes" in trained else {}


def _write(file: Path, text: str) -> None:
    """Leaves a file that differs in its line of date and commit only as it is."""
    if file.is_file() and _undated(file.read_text(encoding="utf-8")) == _undated(text):
        return
    with whole_file(file) as out:
        out.write(text.encode())


def _undated(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(BUDGET_LINE)]


if __name__ == "__main__":
    with user_errors():
        sys.exit(main())
