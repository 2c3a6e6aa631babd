"""What a test leaves behind: results.json, per_image.csv, and a table for the terminal."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from codec.errors import CheckpointError, number_of
from codec.text_table import text_table
from codec.whole_file import whole_file

CONVENTIONS = (
    "bpp: bits of the whole file, header included, per original pixel; bpsp: per sample, R, G or B. "
    "mse (on [0, 1]), psnr (dB), ssim, ms_ssim: torchmetrics on 8-bit images, per image, then the mean; images "
    "decoded without loss are left out of the mean "
    "psnr and counted as lossless. psnr_of_mean_mse: of the mean of the images' mse. lpips: torchmetrics, by the "
    "network that config.yaml names, lower is better. dists: torchmetrics, at the image's own size, lower is "
    "better. psnr_y: of luma, BT.601. psnr_hvs_m: of luma, by psnr_hvsm. ciede2000: mean of the pixels, read as "
    "sRGB, lower is better. ssimulacra2: by its port to NumPy. paper_pixel_ratio: values of the image over "
    "values of the latent alone, paper_memory_ratio: twice that, as its paper counts bytes; ratio is that of the "
    "files."
)

# What a table shows of the columns, and how.
COLUMNS = {
    "quality": "{:.1f}",
    "bpp": "{:.4f}",
    "bpsp": "{:.4f}",
    "estimated_bpp": "{:.4f}",
    "ratio": "{:.2f}",
    "mse": "{:.5f}",
    "psnr": "{:.2f}",
    "ssim": "{:.4f}",
    "ms_ssim": "{:.4f}",
    "lpips": "{:.4f}",
    "dists": "{:.4f}",
    "psnr_y": "{:.2f}",
    "psnr_hvs_m": "{:.2f}",
    "ciede2000": "{:.3f}",
    "ssimulacra2": "{:.2f}",
    "encode_ms": "{:.1f}",
    "decode_ms": "{:.1f}",
    "paper_pixel_ratio": "{:.2f}",
    "paper_memory_ratio": "{:.2f}",
}


def results_of(rows: list[dict[str, float | str]], about: dict[str, Any]) -> dict[str, Any]:
    """What results.json holds of `rows`, one dict an image: `about`, then their means."""
    from codec.metrics import mean_of_rows  # takes torch, which showing a table does not

    means = mean_of_rows(rows)
    pooled = -10 * math.log10(means["mse"]) if means["mse"] > 0 else math.inf
    return {**about, "conventions": CONVENTIONS, "images": len(rows), **means, "psnr_of_mean_mse": pooled}


def write_results(folder: Path, rows: list[dict[str, float | str]], about: dict[str, Any]) -> dict[str, Any]:
    """Writes `rows` (one dict an image) as per_image.csv and, last, their means with `about` as results.json.

    Both go to `folder`; returns what results.json holds. An infinite PSNR is written as "inf".
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(folder / "per_image.csv") as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
    results = results_of(rows, about)
    # JSON has no infinity; a string is what csv writes, too.
    plain = {k: "inf" if isinstance(v, float) and math.isinf(v) else v for k, v in results.items()}
    with whole_file(folder / "results.json") as file:
        file.write(json.dumps(plain, indent=2, ensure_ascii=False).encode() + b"\n")
    return results


def read_results(file: Path) -> dict[str, Any]:
    """What `write_results` wrote to a results.json. Raises CheckpointError where it is damaged."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file.absolute()} is damaged: {error}; without it, it is measured again") from error
    return {k: math.inf if v == "inf" else v for k, v in plain.items()}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A text table of named results (as `mean_of_rows` gives them), one line each.

    What none of them has is left out, what one lacks is a dash; bpsp is shown where a codec is lossless, and no
    ratio as a paper counts it. Below it stands what ended a training early, and which images are not in the means.
    """
    columns = {key: form for key, form in COLUMNS.items() if any(key in values for values in rows.values())}
    for of_a_paper in ("paper_pixel_ratio", "paper_memory_ratio"):  # which no file achieves, beside `ratio`
        columns.pop(of_a_paper, None)
    if not any(math.isinf(values.get("psnr", 0)) for values in rows.values()):
        columns.pop("bpsp", None)
    cells = [
        [name, *(shown(values.get(key), form) for key, form in columns.items())] for name, values in rows.items()
    ]
    lines = [text_table(["codec", *columns], cells, right=list(columns))]
    lines += [f"{name}: {values['stopped']}" for name, values in rows.items() if "stopped" in values]
    lines += [f"{name}: {left_out(values)}" for name, values in rows.items() if "skipped" in values]
    return "\n".join(lines)


def left_out(results: dict[str, Any]) -> str:
    """Which images these results are without, in one line."""
    skipped = results["skipped"]
    first = next(iter(skipped))
    others = f" and {len(skipped) - 1} more" if len(skipped) > 1 else ""
    return f"without {first}{others}, of {number_of(results['images'] + len(skipped), 'image')}: {skipped[first]}"


def shown(value: float | None, form: str) -> str:
    """A cell of any table: `value` as `form` has it, a dash for None, and that an infinite one is lossless."""
    if value is None:
        return "–"
    return "lossless" if math.isinf(value) else form.format(value)
