"""Rate–distortion curves from the results that evaluations left behind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codec.results import read_results

# What a command line says of them.
CURVE_HELP = "a curve's name and its result folders, separated by commas; * is allowed, hashes may be left out"


def read_curves(texts: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """`NAME=FOLDER,FOLDER…` → `{NAME: results}`, each curve's results by rising bpp.

    Raises ValueError where a folder holds no results.json.
    """
    curves = {}
    for text in texts:
        name, _, patterns = text.rpartition("=")
        points = curves[name] = []
        for pattern in patterns.split(","):
            found = [*Path().glob(f"{pattern}/results.json"), *Path().glob(f"{pattern}-????????/results.json")]
            if not found:
                raise ValueError(f"{text}: no results.json in {pattern or 'nothing'}; give NAME=runs/a,runs/b")
            points += [read_results(file) for file in dict.fromkeys(found)]  # both patterns may find one
        points.sort(key=lambda point: point["bpp"])
    return curves
