"""The means of finished evaluations as a table, and their images' values joined in one CSV.

  python -m experiments.tables.means runs/jpeg-q50_on_kodak runs/mine_on_kodak
  python -m experiments.tables.means 'runs/*_on_kodak' --out docs/kodak.md

The first prints the table in Markdown; with --out x.md it goes there, the same as x.csv, and the images' values to
x_per_image.csv: a line for every image and codec.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from codec.training.results import COLUMNS, read_results, shown
from experiments.run_folders import find_runs, image_rows, named, warn_of_other_images

Means = dict[str, dict[str, float]]


def markdown(means: Means) -> str:
    """A Markdown table of `{codec: results}`; what none of them has is no column, what one lacks is a dash."""
    columns = ["images", *(name for name in COLUMNS if any(name in results for results in means.values()))]
    lines = [f"| codec | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for codec, results in means.items():
        cells = [shown(results.get(name), COLUMNS.get(name, "{:.0f}")) for name in columns]
        lines.append(f"| {codec} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_means(runs: dict[str, Path], out: Path) -> list[Path]:
    """Writes the table of `{codec: finished run's folder}` to `out`, as x.csv and x_per_image.csv beside it.

    Returns the paths. A lossless PSNR is inf in a CSV, and what is not known is empty.
    """
    means = {codec: read_results(folder / "results.json") for codec, folder in runs.items()}
    table, joined = out.with_suffix(".csv"), out.with_name(f"{out.stem}_per_image.csv")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"{markdown(means)}\n", encoding="utf-8")
    numbers = {
        codec: {name: results[name] for name in ("images", *COLUMNS) if name in results}
        for codec, results in means.items()
    }
    _write_csv(table, [{"codec": codec, **values} for codec, values in numbers.items()])
    rows = [
        {"image": row.pop("name"), "codec": codec, **row}
        for codec, folder in runs.items()
        for row in image_rows(folder)
    ]
    _write_csv(joined, sorted(rows, key=lambda row: row["image"]))  # stable: codecs stay in their order
    return [out, table, joined]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints or writes the means of what the command line names."""
    summary, examples, more = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.tables.means",
        description=summary,
        epilog=f"{examples}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders with results.json; hashes may be left out")
    parser.add_argument("--out", type=Path, metavar="X.md", help="write files instead of printing")
    options = parser.parse_args(arguments)
    if options.out and options.out.suffix != ".md":
        parser.error(f"--out {options.out}: give the Markdown file, x.md; the CSVs come beside it")
    try:
        runs = named(folder for run in options.runs for folder in find_runs(run))
    except ValueError as error:
        parser.error(f"{error}: give the folders of finished runs of train.py or evaluate.py")
    warn_of_other_images({codec: [folder] for codec, folder in runs.items()}, "means")
    if options.out:
        print(*write_means(runs, options.out), sep="\n")
    else:
        print(markdown({codec: read_results(folder / "results.json") for codec, folder in runs.items()}))


def _write_csv(file: Path, rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
