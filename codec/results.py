"""What a test leaves behind: results.json, per_image.csv, and a table for the terminal.

Conventions, the same everywhere: bpp counts the whole file, header included, over the original pixels; PSNR, SSIM
and MS-SSIM compare 8-bit images, per image, and are then averaged (see `codec.metrics`).
"""

import csv
import json
import math
from pathlib import Path
from typing import Any

from codec.metrics import mean_of_rows

# What a table shows of the columns, and how.
COLUMNS = {
    "bpp": "{:.4f}",
    "estimated_bpp": "{:.4f}",
    "ratio": "{:.2f}",
    "mse": "{:.5f}",
    "psnr": "{:.2f}",
    "ssim": "{:.4f}",
    "ms_ssim": "{:.4f}",
    "encode_ms": "{:.1f}",
    "decode_ms": "{:.1f}",
}


def write_results(folder: Path, rows: list[dict[str, float | str]], about: dict[str, Any]) -> dict[str, Any]:
    """Writes `rows` (one dict an image) as per_image.csv and their means with `about` as results.json.

    Both go to `folder`; returns what results.json holds. An infinite PSNR is written as "inf".
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    results = {**about, "images": len(rows), **mean_of_rows(rows)}
    # JSON has no infinity; a string is what csv writes, too.
    plain = {k: "inf" if isinstance(v, float) and math.isinf(v) else v for k, v in results.items()}
    (folder / "results.json").write_text(json.dumps(plain, indent=2) + "\n")
    return results


def table(rows: dict[str, dict[str, float]]) -> str:
    """A text table of named results (as `mean_of_rows` gives them), one line each; what is absent is a dash."""
    cells = [["codec", *COLUMNS]]
    cells += [
        [name, *(_cell(values.get(key), form) for key, form in COLUMNS.items())] for name, values in rows.items()
    ]
    widths = [max(len(row[n]) for row in cells) for n in range(len(cells[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return "lossless" if math.isinf(value) else form.format(value)
