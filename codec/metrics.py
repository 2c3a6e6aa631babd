"""What is measured of a decoded image: PSNR, SSIM, MS-SSIM, LPIPS by torchmetrics, per image, then the mean."""

import math

import torch
from torch import Tensor
from torchmetrics.functional import mean_squared_error
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from codec.checks import check_choice
from codec.networks.pretrained import load_pretrained

# torchmetrics' Gaussian window is 11 pixels wide; MS-SSIM asks for side // 16 > 10.
SSIM_MIN_SIDE = 11
MS_SSIM_MIN_SIDE = 176

# Of each LPIPS network torchvision's name, and the least side that leaves its last layer a pixel.
LPIPS_NETWORKS = {"alex": ("alexnet", 31), "vgg": ("vgg16", 16), "squeeze": ("squeezenet1_1", 17)}


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


class Lpips:
    """LPIPS (Zhang et al. 2018, https://arxiv.org/abs/1801.03924) of two images: 0 where equal, lower is better.

    `network` is alex, vgg or squeeze; their values do not compare. torchmetrics brings the weights of the distance,
    torchvision's ImageNet weights are fetched once and checked against the hash in their name. Not an nn.Module:
    the network is no part of a codec that is measured by it, nor of its checkpoints or its fingerprint.

    Raises ValueError on another network, and where the weights cannot be had.
    """

    def __init__(self, network: str) -> None:
        check_choice("lpips", network, tuple(LPIPS_NETWORKS))
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import get_model, get_model_weights  # slow to import, and coding needs none of it

        name, self.min_side = LPIPS_NETWORKS[network]
        with torch.random.fork_rng(devices=[]):  # what it draws is thrown away
            # torchmetrics then finds the file in torch.hub's folder, which it would read without these checks.
            url = get_model_weights(name).DEFAULT.url
            load_pretrained(get_model(name), url, "", name, "lpips=null", key="lpips", value=network)
            self._lpips = LearnedPerceptualImagePatchSimilarity(network, normalize=True)

    def __call__(self, decoded: Tensor, original: Tensor) -> float | None:
        """Of two uint8 images `[C, H, W]`, C in {1, 3}; None where a side is too small for the network."""
        if min(original.shape[-2:]) < self.min_side:
            return None
        x_hat, x = (image.expand(3, -1, -1)[None].float() / 255 for image in (decoded, original))
        value = self._lpips.to(x.device)(x_hat, x).item()
        self._lpips.reset()  # it would keep the value of every image
        return value


def mean_of_rows(rows: list[dict[str, float | str]]) -> dict[str, float]:
    """The mean of every numeric column over the images that have it.

    An infinite PSNR is no number to average: the mean is over the finite ones, `lossless` counts the others,
    and only where all images are lossless is the mean itself infinite.
    """
    means = {}
    columns = {name: None for row in rows for name, value in row.items() if not isinstance(value, str)}
    for name in columns:
        values = [row[name] for row in rows if name in row]
        if name == "psnr":
            values = [value for value in values if not math.isinf(value)] or values
        means[name] = sum(values) / len(values)
    if rows:
        means["lossless"] = sum(math.isinf(row["psnr"]) for row in rows)
    return means
