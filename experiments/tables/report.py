"""A table as Markdown and CSV, from what was measured and what its paper says."""

import csv
import datetime
import io
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from codec.further_metrics import METRICS
from codec.training.results import COLUMNS, left_out, shown
from experiments.points import Point, curves_of, point, quality_of
from experiments.tables.bd_rate import bd_table
from experiments.tables.pages import notes_on
from experiments.tables.plan import Evaluation, Plan, Training

PAPER_FIGURES = Path(__file__).resolve().parents[1] / "data/paper_figures.csv"
_SHOWN = ("bpp", "bpsp", "ratio", "psnr", "ssim", "ms_ssim", "lpips", *METRICS, "encode_ms", "decode_ms")


@dataclass(frozen=True)
class Measured:
    """An evaluation and its results.json."""

    evaluation: Evaluation
    results: dict[str, Any]

    @property
    def point(self) -> Point:
        """Its row of points.csv."""
        evaluation = self.evaluation
        seed = 0 if evaluation.training is None else evaluation.training.seed
        trained = {} if evaluation.training is None or self.minutes is None else {"train_minutes": self.minutes}
        return point(
            {**self.results, **trained},
            codec=evaluation.codec,
            setting=", ".join(filter(None, (evaluation.setting, f"seed {seed}" if seed else ""))),
            dataset=evaluation.dataset,
            command=shlex.join(["python", "evaluate.py", *evaluation.command_overrides()]),
        )

    @property
    def minutes(self) -> float | None:
        """Of training, with those of what it started from; None where they are not known."""
        training, minutes = self.evaluation.training, 0.0
        while training is not None:
            minutes += math.nan if training.minutes is None else training.minutes
            training = training.start
        return None if math.isnan(minutes) else minutes

    def megabytes_a_second(self, way: str) -> float:
        """Of samples, a byte each, in encoding or decoding (`way`), of images of one size."""
        samples = 8 * self.results["bytes"] / self.results["bpsp"]
        return samples / (1000 * self.results[f"{way}_ms"])

    @property
    def key(self) -> tuple[str, str, str]:
        """What runs of several seeds share."""
        return self.evaluation.dataset, self.evaluation.codec, self.evaluation.setting


def as_markdown(plan: Plan, measured: Sequence[Measured], figures: Sequence[str]) -> str:
    """The whole page: how it was obtained, the paper's figures beside ours, all points, BD-rates, commands."""
    datasets = list(dict.fromkeys(row.evaluation.dataset for row in measured))
    parts = [f"# {plan.title}", _header(plan, measured)]
    if plan.source is not None:
        parts += ["## Beside the paper", f"“{plan.source}”.", _beside_paper(plan, measured)]
    parts.append("## Measured")
    for dataset in datasets:
        rows = [row for row in measured if row.evaluation.dataset == dataset]
        parts += [f"{dataset}, {rows[0].results['images']:g} images:", _means(plan, rows)]
        parts += _below_anchor(plan, rows)
    if plan.anchor is not None:
        points = [row.point for row in measured]
        for dataset in datasets:
            parts += [
                f"## BD-rate against {plan.anchor}, {dataset}",
                bd_table(curves_of(points, dataset), plan.anchor),
            ]
    parts += [f"![{Path(figure).stem}]({figure})" for figure in figures]
    parts += ["## Commands", _commands(plan)]
    return "\n\n".join(parts) + "\n"


def as_csv(plan: Plan, measured: Sequence[Measured]) -> str:
    """One row an evaluation, with every number of its results."""
    rows = []
    for row in measured:
        training = row.evaluation.training
        numbers = {k: v for k, v in row.results.items() if isinstance(v, int | float)}
        described = {"dataset": row.evaluation.dataset, "codec": row.evaluation.codec, "budget": plan.budget}
        described |= {"setting": row.evaluation.setting, "seed": "" if training is None else training.seed}
        rows.append({**described, **numbers})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def made_with(text: str) -> tuple[str, int] | None:
    """Budget and seeds of a page of `as_markdown`."""
    found = re.search(r"^Budget `(\w+)`.* SEEDS=(\d+)", text, re.MULTILINE)
    return None if found is None else (found[1], int(found[2]))


def _header(plan: Plan, measured: Sequence[Measured]) -> str:
    hardware = " and ".join(dict.fromkeys(str(row.results["hardware"]) for row in measured))
    images = {row.evaluation.dataset: row.results["images"] for row in measured}
    photos = " PHOTOS=folder" if plan.photos else ""
    lines = [
        f"Budget `{plan.budget}` ({plan.about_budget}), {datetime.date.today()}, measured at commit "
        f"{_commits(measured)} (each point's: points.csv): "
        f"`make table-{plan.table} BUDGET={plan.budget} SEEDS={plan.seeds}{photos}`.",
        f"Tested on {', '.join(f'{name} ({count:g} images)' for name, count in images.items())}; whole files, "
        f"header included; means over the images, of `ratio` too. On {hardware}; times are by the wall clock, in "
        "ms an image, whatever else the machine did: not to be compared closely.",
    ]
    trained = dict.fromkeys(_trained(training) for training in plan.trainings)
    if trained:
        lines.append(f"Trained, by the wall clock: {'; '.join(trained)}.")
    if plan.photos:
        lines.append("Besides the preset's images, photographs in $QUINTET_PHOTOS were trained on.")
    lacking = [f"{row.evaluation.name}: {left_out(row.results)}" for row in measured if "skipped" in row.results]
    notes = [f"- {note}" for note in [*plan.notes, *notes_on(images), *lacking]]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _commits(measured: Sequence[Measured]) -> str:
    """The commits, each once: one that was also measured at with changes is not named again for those."""
    commits = dict.fromkeys(str(row.results["commit"]) for row in measured)
    return ", ".join(c for c in commits if not c.endswith("+changes") or c.removesuffix("+changes") not in commits)


def _trained(training: Training) -> str:
    seed = f", seed {training.seed}" if training.seed else ""
    after = "" if training.start is None else f" after {training.start.name}"
    weights = training.weights
    known = (training.results if weights is None else weights.training) or {}
    took = known.get("time", f"in unknown time on {training.hardware}")
    if training.minutes is not None:
        took = f"{training.minutes:.0f} min on {training.hardware}"
    precision = f" in {known['precision']}" if "precision" in known else ""
    stopped = f", {known['stopped']}" if "stopped" in known else ""
    commit = known.get("commit", "unknown")
    at = "" if commit == "unknown" else f" at commit {commit}"
    packaged = "" if weights is None else f" (the package's weights `{weights.stem}`)"
    return f"{training.name}{seed} {took}{precision}{after}{at}{packaged}{stopped}"


def _beside_paper(plan: Plan, measured: Sequence[Measured]) -> str:
    with PAPER_FIGURES.open(encoding="utf-8", newline="") as file:
        figures = [row for row in csv.DictReader(file) if row["table"] == plan.table]
    if not figures:
        return "It reports no figures."
    heads = ["figure", "paper", "ours", "difference", "ours is of", "where in the paper", "remark"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for figure in figures:
        name, bound, value = figure["figure"], figure["relation"] == "<", float(figure["value"])
        paper = f"< {figure['value']}" if bound else figure["value"]
        rows = []
        for claim in plan.claims.get(name, []):
            ours = [row.results[claim["column"]] for row in measured if _fits(row, claim)]
            if ours:
                said = f"{claim['codec']} {claim.get('setting', '')}".strip()
                form = COLUMNS[claim["column"]]
                difference = form.replace(":", ":+").format(mean(ours) - value)
                if bound:
                    difference = "reached" if mean(ours) < value else "not reached"
                rows.append([_spread(ours, form), difference, f"{said}, {claim['dataset']}"])
        lines += [
            f"| {' | '.join([name, paper, *cells, figure['source'], figure['remark']])} |"
            for cells in rows or [["–", "–", "nothing measured"]]
        ]
    return "\n".join(lines)


def _fits(row: Measured, claim: dict[str, str]) -> bool:
    evaluation = row.evaluation
    same = (evaluation.codec, evaluation.dataset) == (claim["codec"], claim["dataset"])
    return same and claim.get("setting", evaluation.setting) == evaluation.setting


def _means(plan: Plan, rows: Sequence[Measured]) -> str:
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    columns = [column for column in _SHOWN if any(column in row.results for row in rows)]
    ways = [way for way in ("encode", "decode") if f"{way}_ms" in columns]
    if not any(math.isinf(row.results["psnr"]) for row in rows):
        columns.remove("bpsp")
        ways = []
    anchored = plan.anchor is not None
    heads = ["codec", "setting", *columns, *(f"{way} MB/s" for way in ways)]
    if anchored:
        heads.append(f"PSNR − {plan.anchor}'s at this bpp")
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    for (_, codec, setting), group in groups.items():
        cells = [
            _spread([row.results[column] for row in group if column in row.results], COLUMNS[column])
            for column in columns
        ]
        cells += [_spread([row.megabytes_a_second(way) for row in group], "{:.2f}") for way in ways]
        if anchored:
            above = [gain for row in group if (gain := _above_anchor(plan, rows, row, "psnr")) is not None]
            cells.append(_spread(above, "{:+.2f}"))
        lines.append(f"| {' | '.join([codec, setting, *cells])} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], form: str) -> str:
    middle = shown(mean(values) if values else None, form)
    if len(values) < 2 or math.isinf(values[0]):
        return middle
    return f"{middle} ± {form.replace('+', '').format(stdev(values))}"


def _above_anchor(plan: Plan, rows: Sequence[Measured], row: Measured, quality: str) -> float | None:
    """By how many dB of `quality` a point lies above the anchor's curve; None for the anchor itself.

    Beyond the anchor's highest rate a point below its last one loses in any case, by that much at least; other
    points outside its rates are not compared: None.
    """
    of_anchor = [other.results for other in rows if other.evaluation.codec == plan.anchor]
    curve = sorted((r["bpp"], value) for r in of_anchor if (value := quality_of(r, quality)) is not None)
    bpp, value = row.results["bpp"], quality_of(row.results, quality)
    if row.evaluation.codec == plan.anchor or value is None or len(curve) < 2 or bpp < curve[0][0]:
        return None
    rates, values = np.array(curve).T
    if bpp > rates[-1]:
        return value - values[-1] if value < values[-1] else None
    return value - float(PchipInterpolator(np.log(rates), values)(math.log(bpp)))


def _below_anchor(plan: Plan, rows: Sequence[Measured]) -> list[str]:
    """A sentence of each quality by which some codec loses: which, at how many of its settings, by how much."""
    sentences = []
    for quality, name in (("psnr", "PSNR"), ("ms_ssim_db", "MS-SSIM")):
        gains: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            gain = _above_anchor(plan, rows, row, quality)
            if gain is not None:
                of_codec = gains.setdefault(row.evaluation.codec, {})
                of_codec.setdefault(row.evaluation.setting, []).append(gain)
        losing = []
        for codec, of_settings in gains.items():
            means = [mean(of_seeds) for of_seeds in of_settings.values()]
            if min(means) < 0:
                lost = sum(gain < 0 for gain in means)
                losing.append(f"{codec} at {lost} of {len(means)} rates, worst {min(means):+.2f} dB")
        if losing:
            sentences.append(f"Loses to {plan.anchor} in {name}: {'; '.join(losing)}.")
    return sentences


def _commands(plan: Plan) -> str:
    lines = [
        *(t.command if t.weights is None else t.weights.training["command"] for t in plan.trainings),
        *(shlex.join(["python", "evaluate.py", *e.command_overrides()]) for e in plan.evaluations),
    ]
    return "\n".join(["```", *lines, "```"])
