"""What is measured of every decoded image: PSNR, SSIM, MS-SSIM by torchmetrics, per image, then the mean."""

import math

import torch
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

# torchmetrics' Gaussian window is 11 pixels wide; MS-SSIM asks for side // 16 > 10.
SSIM_MIN_SIDE = 11
MS_SSIM_MIN_SIDE = 176


def image_quality(decoded: Tensor, original: Tensor) -> dict[str, float]:
    """MSE on [0, 1], PSNR in dB (`inf` where equal), SSIM and MS-SSIM of two uint8 images `[C, H, W]`.

    SSIM is absent where a side is under 11 pixels, MS-SSIM where one is under 176.
    Raises ValueError if the two are not of one shape.
    """
    if decoded.shape != original.shape:
        raise ValueError(
            f"decoded image {list(decoded.shape)} is not of the original's shape {list(original.shape)}"
        )
    x_hat, x = decoded[None].float().contiguous(), original[None].float().contiguous()
    side = min(original.shape[-2:])
    with torch.autocast(x.device.type, enabled=False):  # bfloat16, in which validation runs, spoils variances
        quality = {
            "mse": mean_squared_error(x_hat / 255, x / 255).item(),
            "psnr": psnr(x_hat, x),
        }
        if side >= SSIM_MIN_SIDE:
            quality["ssim"] = structural_similarity_index_measure(x_hat, x, data_range=255.0).item()
        if side >= MS_SSIM_MIN_SIDE:
            quality["ms_ssim"] = multiscale_structural_similarity_index_measure(x_hat, x, data_range=255.0).item()
    return quality


def psnr(decoded: Tensor, original: Tensor) -> float:
    """In dB, `inf` where equal, of two images of one shape with samples of 0 to 255."""
    return peak_signal_noise_ratio(decoded.float(), original.float(), data_range=255.0).item()


def mean_of_rows(rows: list[dict[str, float | str]]) -> dict[str, float]:
    """The mean of every numeric column over the images that have it.

    An infinite PSNR, of whichever kind, is no number to average: the mean is over the finite ones, `lossless`
    counts the images of which `psnr` is infinite, and only where all values are infinite is the mean itself.
    """
    means = {}
    columns = {name: None for row in rows for name, value in row.items() if not isinstance(value, str)}
    for name in columns:
        values = [row[name] for row in rows if name in row]
        values = [value for value in values if not math.isinf(value)] or values
        means[name] = sum(values) / len(values)
    if rows:
        means["lossless"] = sum(math.isinf(row["psnr"]) for row in rows)
    return means
