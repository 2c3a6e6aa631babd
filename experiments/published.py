"""Published rate–distortion points on Kodak, of `data/published_kodak.csv`; its README says whose they are."""

import csv
from pathlib import Path

from experiments.points import Point

FILE = Path(__file__).resolve().parent / "data/published_kodak.csv"
DATASET = "kodak"
IMAGES = 24

# What `main` stands for: the best standard, and a learned codec of 2018, of 2020 and of 2022.
MAIN = ("vtm", "bmshj2018-hyperprior", "cheng2020-attn", "elic2022")


def read_published(codecs: str = "main") -> dict[str, list[Point]]:
    """`{codec: points by rising bpp}` of the names in `codecs`, separated by commas, of `main` or of `all`.

    A point has bpp, psnr and mostly ms_ssim. Raises ValueError naming a codec that is not there.
    """
    curves: dict[str, list[Point]] = {}
    with FILE.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            values = {key: float(row[key]) for key in ("bpp", "psnr", "ms_ssim") if row[key]}
            curves.setdefault(row["codec"], []).append(values)
    chosen = {"all": tuple(curves), "main": MAIN}.get(codecs) or codecs.split(",")
    unknown = [codec for codec in chosen if codec not in curves]
    if unknown:
        raise ValueError(f"no published curve of {', '.join(unknown)}: there are all, main, {', '.join(curves)}")
    return {codec: sorted(curves[codec], key=lambda point: point["bpp"]) for codec in chosen}
