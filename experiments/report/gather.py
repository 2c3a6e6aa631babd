"""What the page shows of points.csv, of published curves, of run folders and of sweeps, as plain containers."""

import csv
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from codec.run_names import without_hash
from codec.sweeps.record import FILE as SWEEP_FILE
from codec.sweeps.record import Sweep
from codec.training.csv_metrics import FILES, read_logged
from codec.training.results import read_results
from experiments.points import LABELS, Point, curves_of, quality_of
from experiments.published import DATASET, read_published

OUTCOMES = ("val_loss", "bpp", "psnr", "ms_ssim", "train_minutes")
_DIGITS = 6
_PLACES = ("runs", "resume", "test", "logger", "more_epochs", "save_files")  # overrides that change no result
_WHAT = ("name", "run", "pretrained", "model", "data")  # which codec and which images, not how
_ALONG = ("quality", "model.quality", "target_bpp", "loss.rate_weight")  # what moves a point along its curve
# Overrides of how it is measured, which leave its quality and rate as they are.
_NO_CODEC = ("device", "metrics", "lpips", "data.num_workers", "data.cache")
# Of `data`, what is done to the images that are trained on, and how images get into memory.
_NO_TEST_IMAGES = {
    *("val", "val_fraction", "crop_size", "smallest_scale", "flip", "shuffle_channels", "crops_per_image"),
    *("batch_size", "num_workers", "cache", "codings", "codings_folder", "seed"),
}
Run = dict[str, Any]


def curve_points(points: Sequence[Point]) -> list[dict[str, Any]]:
    """All points of points.csv, and all published ones: codec, setting, dataset, kind, and their figures."""
    measured = [
        {**point, "dataset": dataset, "kind": "measured"}
        for dataset in dict.fromkeys(row["dataset"] for row in points)
        for curve in curves_of(points, dataset).values()
        for point in curve
    ]
    published = [
        {**point, "codec": name, "dataset": DATASET, "kind": "published"}
        for name, curve in read_published("all").items()
        for point in curve
    ]
    return [_shown(point) for point in [*measured, *published]]


def run_points(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """A point for each run that was tested, by rising bpp: those of one codec on one data set are a curve."""
    points = [
        _shown({**run["results"], **{key: run[key] for key in ("codec", "setting", "dataset")}, "kind": "run"})
        for run in runs
        if "bpp" in run["results"]
    ]
    return sorted(points, key=lambda point: point["bpp"])


def read_runs(folder: Path) -> list[Run]:
    """The runs in a folder, tested or not: `codec`, `setting`, `dataset`, `name`, `folder`, `overrides`, `results`.

    `codec`: the name that was given to it; else of an evaluation the run, pretrained model or standard codec that
    it measured, of a training its folder's name without the hash; and after it, where others of that name on the
    same images are no points of one rate–distortion curve with it, the overrides that tell them apart. `setting`:
    its other overrides; `dataset`: the images that its command names. `name` is that name, and where several share
    it also what tells them apart. `results` of a run that was not tested is its lowest `val_loss`, if it has one.
    `curve`: the overrides that are alike in all runs of a curve. Raises CheckpointError where results are damaged.
    """
    runs = [_run(file.parent) for file in sorted(folder.glob("*/config.yaml"))]
    for same in _grouped(runs, lambda run: run["codec"]):
        _name_apart(same)
    for same in _grouped(runs, lambda run: (run["codec"], run["dataset"])):
        for run, told in zip(same, _told_apart([run["curve"] for run in same]), strict=True):
            run["codec"] = ", ".join([run["codec"], *told])
    return sorted(runs, key=lambda run: run["name"])


def per_image(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """`name`, `columns` and `rows` of each run's per_image.csv."""
    tables = []
    for run in runs:
        file = run["folder"] / "per_image.csv"
        if file.is_file():
            with file.open(encoding="utf-8", newline="") as lines:
                head, *rows = csv.reader(lines)
            tables.append(
                {"name": run["name"], "columns": head, "rows": [[_value(cell) for cell in row] for row in rows]}
            )
    return tables


def sweeps(runs: Sequence[Run], folder: Path) -> list[dict[str, Any]]:
    """What parallel coordinates need of each sweep in a folder, then of all trainings and all evaluations there.

    `name`, `jobs` and `axes`, each `label` and `values`, one for each job: an override to which jobs give several
    values, or an outcome.
    """
    by_folder = {run["folder"].resolve(): run for run in runs}
    found = []
    for file in sorted(folder.glob(f"sweeps/*/{SWEEP_FILE}")):
        sweep = Sweep.read(file.parent)
        of_jobs = [by_folder.get(Path(job.folder).resolve()) if job.folder else None for job in sweep.jobs]
        found.append((sweep.name, [run for run in of_jobs if run is not None]))
    evaluated = [run for run in runs if run["results"] and "val_loss" not in run["results"]]
    found += [("all trainings", [run for run in runs if run not in evaluated]), ("all evaluations", evaluated)]
    shown = [{"name": name, "jobs": [run["name"] for run in of], "axes": _axes(of)} for name, of in found]
    return [sweep for sweep in shown if len(sweep["jobs"]) > 1 and sweep["axes"]]


def _axes(runs: Sequence[Run]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(key for run in runs for key in run["overrides"])
    axes = [{"label": key, "values": [_value(run["overrides"].get(key, "")) for run in runs]} for key in keys]
    outcomes = [
        {"label": key, "values": [_finite(run["results"].get(key)) for run in runs]}
        for key in OUTCOMES
        if any(_finite(run["results"].get(key)) is not None for run in runs)
    ]
    return [*(axis for axis in axes if len(set(map(str, axis["values"]))) > 1), *outcomes]


def _run(folder: Path) -> Run:
    given = _overrides(folder / "provenance/commands.txt")
    file = folder / "results.json"
    results = read_results(file) if file.is_file() else _validated(folder)
    own = without_hash(folder.name)
    codec = given.get("name") or (_measured_codec(given) if "val_loss" not in results else None) or own
    images = [key for key in sorted(given) if _chooses_images(key)]
    setting = " ".join(f"{key}={value}" for key, value in given.items() if key not in (*_WHAT, *images))
    # Runs that one `name=` was given to are one curve because someone says so.
    any_value = {"name", *_ALONG, *_NO_CODEC, *images} | ({"run"} if "name" in given else set())
    return {
        "codec": codec,
        "setting": setting,
        "dataset": ", ".join(["runs", *(f"{key}={given[key]}" for key in images)]),
        "folder": folder,
        "overrides": {key: value for key, value in given.items() if key != "name"},
        "curve": {key: value for key, value in given.items() if key not in any_value},
        "results": results,
    }


def _chooses_images(key: str) -> bool:
    """Whether an override chooses the images that are measured, or what is made of them before."""
    first, *rest = key.split(".")
    return key in ("data", "test_fraction") or (first == "data" and rest[0] not in _NO_TEST_IMAGES)


def _measured_codec(given: dict[str, str]) -> str | None:
    """What an evaluation was of: a run by its folder's name, a pretrained model, a standard codec."""
    run = Path(given.get("run", ""))
    of_run = without_hash((run.parents[1] if run.suffix == ".ckpt" and len(run.parts) > 2 else run).name)
    return of_run or given.get("pretrained") or given.get("model")


def _name_apart(runs: Sequence[Run]) -> None:
    """Gives runs of one codec their `name`: with the overrides that are not alike, and the hash where all are."""
    for run, told in zip(runs, _told_apart([run["overrides"] for run in runs]), strict=True):
        run["name"] = ", ".join([run["codec"], *told])
    counts = Counter(run["name"] for run in runs)
    for run in runs:
        if counts[run["name"]] > 1:
            run["name"] += f", {run['folder'].name}"


def _grouped(runs: Sequence[Run], key: Callable[[Run], Any]) -> list[list[Run]]:
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _told_apart(settings: Sequence[dict[str, str]]) -> list[list[str]]:
    """Of each the `key=value` that not all have."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    apart = [key for key in keys if len({setting.get(key) for setting in settings}) > 1]
    return [[f"{key}={setting[key]}" for key in apart if key in setting] for setting in settings]


def _validated(folder: Path) -> dict[str, float]:
    if not any(folder.glob(FILES)):
        return {}
    losses = [float(row["val/loss"]) for row in read_logged(folder) if "val/loss" in row]
    return {"val_loss": min(losses)} if losses else {}


def _overrides(file: Path) -> dict[str, str]:
    """`{key: value}` of the last command that was given to a run."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    words = shlex.split(lines[-1]) if lines else []
    pairs = (word.lstrip("+~").split("=", 1) for word in words if "=" in word and not word.startswith("-"))
    changing = [(key, value) for key, value in pairs if key.partition(".")[0] not in _PLACES]
    own = ("hydra.", "hydra/")
    return {key: value for key, value in changing if not key.startswith(own) and not key.endswith(".download")}


def _shown(point: Point) -> dict[str, Any]:
    texts = {key: point[key] for key in ("codec", "setting", "dataset", "kind") if key in point}
    numbers = {key: _finite(point.get(key)) for key in ("bpp", "bpsp", "images", "encode_ms", "decode_ms")}
    numbers |= {key: _finite(quality_of(point, key)) for key in LABELS}
    lossless = math.isinf(point.get("psnr", 0))
    return {**texts, **{key: value for key, value in numbers.items() if value is not None}, "lossless": lossless}


def _finite(value: Any) -> float | None:
    """A number as JSON has it, rounded to what is shown; None for what is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def _value(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return text if not math.isfinite(number) else float(f"{number:.{_DIGITS}g}")
