"""Rate–distortion points, as points.csv keeps them for tables and figures, and their qualities by name."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from codec.further_metrics import METRICS
from codec.training.paths import checkout
from codec.whole_file import whole_file

PACKAGED = Path(__file__).resolve().parent / "results/points.csv"
RESULTS = PACKAGED.parent if checkout() else Path("results")  # where tables are written
POINTS = RESULTS / "points.csv"

TEXTS = ("codec", "setting", "dataset", "hardware", "commit", "command")
COLUMNS = (
    *("codec", "setting", "dataset", "images", "bpp", "bpsp", "ratio", "psnr", "ssim", "ms_ssim", "lpips"),
    *(*METRICS, "encode_ms", "decode_ms", "train_minutes", "hardware", "commit", "command"),
)

# MS-SSIM is drawn and compared in dB, as the field does: near 1, where all codecs are, its own scale shows nothing.
LABELS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim_db": "MS-SSIM (dB)",
    "lpips": "LPIPS, lower is better",
    "dists": "DISTS, lower is better",
    "psnr_y": "PSNR of luma (dB)",
    "psnr_hvs_m": "PSNR-HVS-M (dB)",
    "ciede2000": "CIEDE2000, lower is better",
    "ssimulacra2": "SSIMULACRA 2",
}

Point = dict[str, Any]
PointKey = tuple[str, str, str]  # codec, setting without seed, data set


def point(results: dict[str, Any], **texts: str) -> Point:
    """What points.csv keeps of a run's results; `texts` are codec, setting, dataset and command."""
    known = {**results, **texts}
    return {column: known[column] for column in COLUMNS if column in known}


def read_points(file: Path = POINTS) -> list[Point]:
    """All points of a points.csv: texts and floats (a lossless codec's psnr is inf), without what is not known.

    Outside a checkout POINTS begins as those that come with the package.
    """
    if file == POINTS and not file.is_file():
        file = PACKAGED
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as rows:
        return [
            {
                column: value if column in TEXTS else float(value)
                for column, value in row.items()
                if value or column in TEXTS
            }
            for row in csv.DictReader(rows)
        ]


def record(points: Iterable[Point], file: Path, planned: Collection[PointKey] = ()) -> None:
    """Writes `points` to a points.csv, each in place of one of the same codec, setting and dataset.

    Of what was there, a row of a codec and data set of which `planned` has other settings only is left out: its
    table names it no longer.
    """
    pairs = {(codec, dataset) for codec, _, dataset in planned}
    there = [
        row
        for row in read_points(file)
        if (row["codec"], row["dataset"]) not in pairs or _seedless(_key(row)) in planned
    ]
    kept = {_key(row): row for row in [*there, *points]}
    text = io.StringIO(newline="")
    measured = {column for row in kept.values() for column in row}
    columns = [column for column in COLUMNS if column not in METRICS or column in measured]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in sorted(kept.values(), key=lambda row: (row["dataset"], row["codec"], row["bpp"])):
        writer.writerow({column: _cell(row[column]) for column in columns if column in row})
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as out:
        out.write(text.getvalue().encode())


def curves_of(points: Iterable[Point], dataset: str, codecs: Sequence[str] | None = None) -> dict[str, list[Point]]:
    """`{codec: its points on the dataset, by rising bpp}`, of all codecs or of `codecs` in their order.

    A setting that was trained with several seeds is one point, their mean. Raises ValueError naming what is
    missing.
    """
    of_setting: dict[tuple[str, str], list[Point]] = {}
    for row in points:
        if row["dataset"] == dataset:
            _, setting, _ = _seedless(_key(row))
            of_setting.setdefault((row["codec"], setting), []).append({**row, "setting": setting})
    of_codec: dict[str, list[Point]] = {}
    for row in sorted(map(_mean, of_setting.values()), key=lambda row: row["bpp"]):
        of_codec.setdefault(row["codec"], []).append(row)
    missing = [codec for codec in codecs or () if codec not in of_codec]
    if missing or not of_codec:
        there = f"there are {', '.join(sorted(of_codec))}" if of_codec else "there are none of that data set"
        raise ValueError(f"no points of {', '.join(missing) or 'any codec'} on {dataset}: {there}")
    return {codec: of_codec[codec] for codec in codecs or of_codec}


def quality_of(point: Point, name: str) -> float | None:
    """A point's value of a key of `LABELS`; None where it is not known.

    `ms_ssim_db` is −10·log10(1 − MS-SSIM) of the mean over the images.
    """
    if name != "ms_ssim_db":
        return point.get(name)
    ms_ssim = point.get("ms_ssim")
    return None if ms_ssim is None else -10 * math.log10(1 - ms_ssim) if ms_ssim < 1 else math.inf


def lossy(points: list[Point]) -> list[Point]:
    """The points of images that did not all come back exactly: no quality is to be had of the others."""
    return [point for point in points if not math.isinf(point.get("psnr", 0))]


def _mean(rows: Sequence[Point]) -> Point:
    """Texts of the first, means of all numbers that every row has."""
    numbers = [c for c in rows[0] if c not in TEXTS and all(isinstance(row.get(c), int | float) for row in rows)]
    return {
        **{c: v for c, v in rows[0].items() if c in TEXTS},
        **{c: mean(row[c] for row in rows) for c in numbers},
    }


def _key(row: Point) -> PointKey:
    return row["codec"], row["setting"], row["dataset"]


def _seedless(key: PointKey) -> PointKey:
    codec, setting, dataset = key
    return codec, re.sub(r"(, )?seed \d+$", "", setting), dataset


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "inf" if math.isinf(value) else f"{value:.6g}"
