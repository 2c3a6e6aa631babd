"""The qualities that are drawn and compared over the rate, by name."""

import math

from experiments.points import Point

# MS-SSIM is drawn and compared in dB, as the field does: near 1, where all codecs are, its own scale shows nothing.
LABELS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim_db": "MS-SSIM (dB)",
    "lpips": "LPIPS, lower is better",
}


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
