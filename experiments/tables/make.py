"""The papers' tables beside what Quintet measures: finds or trains what a table needs, and measures real files.

  make table-conv                 writes experiments/results/conv.md, conv.csv and figures; all points to points.csv
  make tables BUDGET=smoke        all, in minutes, below experiments/results/smoke: proves the path, and no more
  make table-diffusion SEEDS=3    trained with three seeds: mean ± standard deviation

What was finished before is not done again, what was cut short goes on, and a changed config retrains only what
depends on it: every run's folder below runs/ follows from its config. Where a training's weights come with the
package, they are measured and nothing is trained. A table that was made with a larger budget is left alone. An
installed package writes its tables to results/ of the current folder: python -m experiments.tables conv.
"""

import argparse
import importlib
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from codec.errors import MissingPackageError
from codec.training import measuring
from codec.training.faults import USER_ERRORS, messages
from codec.training.paths import entry_command
from codec.training.run_folder import evaluation_folder
from experiments.compose import composed
from experiments.plots.curves import draw
from experiments.points import RESULTS, PointKey, curves_of, record
from experiments.published import DATASET, IMAGES, read_published
from experiments.tables.pages import write_page
from experiments.tables.plan import TABLES, Evaluation, Plan, PlanError, PlannedFigure, Training, read_plan
from experiments.tables.report import Measured, as_csv, as_markdown, made_with

BUDGETS = ("smoke", "small", "paper")  # from the least to the best


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
    except PlanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folder = RESULTS / "smoke" if options.budget == "smoke" else RESULTS
    plans = [plan for plan in plans if not better_is_there(folder / f"{plan.table}.md", plan)]
    possible, failed = [], False
    for step in (check, lambda plan: make_table(plan, folder)):  # one that fails does not stop the others
        todo, possible = (plans if step is check else possible), []
        for plan in todo:
            try:
                step(plan)
                possible.append(plan)
            except (PlanError, *USER_ERRORS) as error:
                print(
                    *(f"error: {plan.table}: {message}" for message in messages(error)), sep="\n", file=sys.stderr
                )
                failed = True
    return 2 if failed else 0


def check(plan: Plan) -> None:
    """Raises what would stop the table later: images that are not there.

    They are fetched where $QUINTET_DOWNLOAD is true.
    """
    for command, overrides in data_sets(plan):
        with composed(command, overrides) as config:
            data = OmegaConf.to_container(config.data, resolve=True)
        instantiate(data, _convert_="all").prepare_data()


def make_table(plan: Plan, folder: Path) -> Path:
    """Does what the plan's table still lacks, writes it to `folder`, and returns the Markdown file."""
    needed = trainings_needed(plan, folder)
    for n, training in enumerate(needed, 1):
        print(f"\n{plan.table}: training {n} of {len(needed)}, {training.name}", flush=True)
        train(training)
    measured, missing = [], set()
    for n, evaluation in enumerate(plan.evaluations, 1):
        results = finished(evaluation)
        fault = None if results is not None else missing_package(evaluation)
        if fault is not None:
            if evaluation.codec not in missing:
                print(f"\n{plan.table}: without {evaluation.codec}: {fault}", flush=True)
            missing.add(evaluation.codec)
            continue
        if results is None:
            print(f"\n{plan.table}: measuring {n} of {len(plan.evaluations)}, {evaluation.name}", flush=True)
            with composed("evaluate", evaluation.command_overrides()) as config:
                results = measuring.evaluate(config)
        measured.append(Measured(evaluation, results))
    points = [row.point for row in measured]
    curves = {
        dataset: folder / f"{plan.table}_{dataset}.png"
        for dataset in dict.fromkeys(row["dataset"] for row in points if not math.isinf(row["psnr"]))
    }
    figures = [*curves.values(), *(_figure_file(plan, figure, folder) for figure in plan.figures)]
    record(points, folder / "points.csv", planned())
    file = folder / f"{plan.table}.md"
    changed = write_page(file.with_suffix(".csv"), as_csv(plan, measured))
    changed |= write_page(file, as_markdown(plan, measured, [figure.name for figure in figures]))
    for dataset, out in curves.items():
        if changed or not out.is_file():
            shown = [row for row in points if row["dataset"] == dataset]
            published = read_published() if (dataset, shown[0]["images"]) == (DATASET, IMAGES) else None
            draw(curves_of(shown, dataset), out, title=f"{plan.title}, {dataset}", published=published)
    draw_figures(plan, folder, changed)
    print(f"\n{file}")
    return file


def data_sets(plan: Plan) -> list[tuple[str, list[str]]]:
    """The commands, with overrides, that between them read all images the plan needs."""
    measured = {evaluation.dataset: evaluation for evaluation in plan.evaluations}
    return [
        *(("train", list(training.overrides)) for training in plan.trainings if training.weights is None),
        *(("evaluate", evaluation.command_overrides()) for evaluation in measured.values()),
    ]


def trainings_needed(plan: Plan, folder: Path) -> list[Training]:
    """Those that are neither done nor come with the package, and those that one of them starts from, in order.

    A figure of what a training left on its way needs the training itself, unless it is there already.
    """
    lacking = [f for f in plan.figures if f.of_runs and not _figure_file(plan, f, folder).is_file()]
    needed = {id(training) for figure in lacking for training in figure.trainings}
    undone = [training for training in plan.trainings if training.results is None]
    for training in reversed(undone):  # what one starts from stands before it
        if training.weights is None or id(training) in needed:
            needed |= {id(training), id(training.start)}
    return [training for training in undone if id(training) in needed]


def planned() -> set[PointKey]:
    """All points that a table names, at any budget."""
    plans = (read_plan(table, budget) for table in TABLES for budget in BUDGETS)
    return {(e.codec, e.setting, e.dataset) for plan in plans for e in plan.evaluations}


def draw_figures(plan: Plan, folder: Path, changed: bool) -> None:
    """Draws the plan's figures that are missing and, where the table `changed`, those that it can draw again."""
    for figure in plan.figures:
        out = _figure_file(plan, figure, folder)
        needs_runs = figure.of_runs and any(training.weights is not None for training in figure.trainings)
        if out.is_file() and (needs_runs or not changed):
            continue
        try:
            importlib.import_module(f"experiments.plots.{figure.tool}").main(figure.arguments(out))
        except SystemExit as error:  # of its own parser, which has said why
            raise PlanError(f"{out.name} could not be drawn, for the reason above") from error


def train(training: Training) -> None:
    """Runs train.py to its end. Raises PlanError if it fails; what it says is on the terminal."""
    environment = {"WANDB_RUN_GROUP": "tables", **os.environ}
    command = [sys.executable, *entry_command("train"), *training.overrides]
    # In a session of its own, or Ctrl-C would reach it from the terminal and from here.
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.terminate()  # it finishes what it is writing
            process.wait()
            raise
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise PlanError(
            f"training {training.name} ended with status {status}, for the reason above; "
            f"by itself: {training.command}"
        )


def finished(evaluation: Evaluation) -> dict[str, Any] | None:
    """The results of an evaluation that was made of the weights as they are now; None: it is still to be made."""
    with composed("evaluate", evaluation.command_overrides()) as config:
        folder = evaluation_folder(config)
        return folder.results if folder.is_done(config) else None


def missing_package(evaluation: Evaluation) -> str | None:
    """What is to be installed before this codec can be measured; None: it can be."""
    with composed("evaluate", evaluation.command_overrides()) as config:
        try:
            instantiate(config.get("model"))
        except InstantiationException as error:
            return str(error.__cause__) if isinstance(error.__cause__, MissingPackageError) else None
    return None


def better_is_there(file: Path, plan: Plan) -> bool:
    """Whether the table was made with a larger budget or more seeds, which is then said."""
    made = made_with(file.read_text(encoding="utf-8")) if file.is_file() else None
    if made is None:
        return False
    budget, seeds = made
    better = (BUDGETS.index(budget), seeds) > (BUDGETS.index(plan.budget), plan.seeds)
    if better:
        print(f"{file} is there, made with BUDGET={budget} SEEDS={seeds}; delete it to make a lesser one")
    return better


def _figure_file(plan: Plan, figure: PlannedFigure, folder: Path) -> Path:
    return folder / f"{plan.table}_{figure.file}"
