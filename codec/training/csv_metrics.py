"""What runs have logged as CSV, whichever of their starts wrote it."""

import csv
import re
from pathlib import Path

FILES = "metrics/version_*/metrics.csv"


def read_logged(run: Path) -> list[dict[str, str]]:
    """The rows of a run's metrics/version_*/metrics.csv, as if it had never been cut short; empty values left out.

    A resumed run begins at the last checkpoint: what an earlier start logged from there on does not count.
    """
    logged: list[dict[str, str]] = []
    for file in sorted(run.glob(FILES), key=lambda file: int(re.sub(r"\D", "", file.parent.name) or 0)):
        with file.open(encoding="utf-8", newline="") as lines:
            rows = [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(lines)]
        rows = [row for row in rows if "step" in row]  # a killed process may have written half of the last one
        first = min((int(row["step"]) for row in rows), default=None)
        if first is not None:
            logged = [row for row in logged if int(row["step"]) < first] + rows
    return logged
