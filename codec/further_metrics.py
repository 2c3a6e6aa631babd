"""What is measured of a decoded image if it is asked for: how far it is from the original as people see it.

torch, and the libraries that compute a metric, are imported where that metric is made.
"""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from codec.checks import check_choice
from codec.errors import ArgumentError, MissingPackageError, install

if TYPE_CHECKING:
    from torch import Tensor

# Of the decoded image and the original, uint8 `[C, H, W]`, C in {1, 3}; None where a side is too small for it.
Metric = Callable[["Tensor", "Tensor"], float | None]

LUMA = (299, 587, 114)  # thousandths of R, G and B, by BT.601, as JPEG has it: sums of integers are exact
SSIMULACRA2_MIN_SIDE = 8  # below, it has no scale to look at

# Of each LPIPS network torchvision's name, and the least side that leaves its last layer a pixel.
LPIPS_NETWORKS = {"alex": ("alexnet", 31), "vgg": ("vgg16", 16), "squeeze": ("squeezenet1_1", 17)}


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

        name, self.min_side = LPIPS_NETWORKS[network]
        self._lpips = _with_weights(
            lambda: LearnedPerceptualImagePatchSimilarity(network, normalize=True), name, "lpips", network
        )

    def __call__(self, decoded: "Tensor", original: "Tensor") -> float | None:
        """Of two uint8 images `[C, H, W]`, C in {1, 3}; None where a side is too small for the network."""
        if min(original.shape[-2:]) < self.min_side:
            return None
        value = _distance(self._lpips, decoded, original)
        self._lpips.reset()  # it would keep the value of every image
        return value


class Dists:
    """DISTS (Ding et al. 2020, https://arxiv.org/abs/2004.07728) of two images: 0 where equal, lower is better.

    torchmetrics brings its own weights, torchvision those of VGG-16, as for `Lpips`. Raises ValueError where they
    cannot be had.
    """

    def __init__(self) -> None:
        from torchmetrics.functional.image.dists import DISTSNetwork

        self._dists = _with_weights(lambda: DISTSNetwork().eval(), "vgg16", "metrics", "dists", "metrics=[]")

    def __call__(self, decoded: "Tensor", original: "Tensor") -> float:
        """Of two uint8 images `[C, H, W]`, C in {1, 3}."""
        return _distance(self._dists, decoded, original)


def psnr_y(decoded: "Tensor", original: "Tensor") -> float:
    """PSNR of the luma alone, BT.601 at full range, in dB, `inf` where equal."""
    from codec.metrics import psnr

    return psnr(_luma(decoded), _luma(original))


def ciede2000(decoded: "Tensor", original: "Tensor") -> float:
    """The mean CIEDE2000 colour difference of all pixels, read as sRGB: 0 where equal; about 1 is just seen."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    lab = [rgb2lab(image.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()) for image in (original, decoded)]
    return float(deltaE_ciede2000(*lab).mean())


def psnr_hvs_m(decoded: "Tensor", original: "Tensor") -> float:
    """PSNR-HVS-M (Ponomarenko et al. 2007) of the luma, in dB: `inf` where equal, else 100 at most.

    100 is where masking hides all of the difference. It looks at blocks of 8×8 pixels; at the right and lower edge
    they are filled up by repeating the last pixel.
    """
    import numpy as np

    with contextlib.redirect_stdout(io.StringIO()):  # where it tells which of its parts it does without
        from psnr_hvsm.numpy import psnr_hvs_hvsm  # compiled, it gives the same, but not on every platform

    height, width = original.shape[-2:]
    ends = (0, -height % 8), (0, -width % 8)
    x_hat, x = (np.pad(_luma(image).double().cpu().numpy() / 255, ends, "edge") for image in (decoded, original))
    if np.array_equal(x_hat, x):
        return float("inf")
    with np.errstate(divide="ignore", invalid="ignore"):  # of flat blocks, and of no error, which it puts right
        return min(float(psnr_hvs_hvsm(x, x_hat)[1]), 100.0)


def ssimulacra2(decoded: "Tensor", original: "Tensor") -> float | None:
    """SSIMULACRA 2 (https://github.com/cloudinary/ssimulacra2): 100 where equal, below 0 where little is left.

    Of images read as sRGB, by a port to NumPy.
    """
    from ssimulacra2 import compute_ssimulacra2

    from codec.data.image_file import pillow_image

    if min(original.shape[-2:]) < SSIMULACRA2_MIN_SIDE:
        return None
    files = [io.BytesIO() for _ in range(2)]  # it takes files, of which BMP costs the least
    for image, file in zip((original, decoded), files, strict=True):
        pillow_image(image).save(file, "BMP")
    return float(compute_ssimulacra2(*files))


# How each is made, and the package that it needs beside those that are always there.
METRICS: Mapping[str, tuple[Callable[[], Metric], str | None]] = {
    "psnr_y": (lambda: psnr_y, None),
    "ciede2000": (lambda: ciede2000, None),
    "psnr_hvs_m": (lambda: psnr_hvs_m, "psnr_hvsm"),
    "ssimulacra2": (lambda: ssimulacra2, "ssimulacra2"),
    "dists": (Dists, None),
}


def check_metrics(names: Sequence[str]) -> None:
    """Raises ArgumentError for no list, or a name that is none of METRICS, or twice.

    And MissingPackageError for a name that needs a package that is not there.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ArgumentError("metrics", names, "a list, as in metrics=[dists]")
    for name in names:
        check_choice("metrics", name, tuple(METRICS))
        package = METRICS[name][1]
        if package is not None and find_spec(package) is None:
            raise MissingPackageError("metrics", name, f"it needs {package}: {install('metrics')}")
    if len(set(names)) < len(names):
        raise ArgumentError("metrics", list(names), "name each once")


def further_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """The metrics by name, which is one of METRICS. Raises what `check_metrics` and `Dists` do."""
    check_metrics(names)
    return {name: METRICS[name][0]() for name in names}


def _luma(image: "Tensor") -> "Tensor":
    """uint8 `[C, H, W]` → float `[H, W]`, 0 to 255."""
    if len(image) == 1:
        return image[0].float()
    return sum(weight * channel for weight, channel in zip(LUMA, image.float(), strict=True)) / 1000


def _with_weights(
    make: Callable[[], Metric], network: str, key: str, value: str, otherwise: str | None = None
) -> Metric:
    """What `make` makes of torchvision's weights of `network`, then in torch.hub's folder and checked."""
    import torch
    from torchvision.models import get_model, get_model_weights  # slow to import, and coding needs none of it

    from codec.networks.pretrained import load_pretrained

    with torch.random.fork_rng(devices=[]):  # what it draws is thrown away
        url = get_model_weights(network).DEFAULT.url
        load_pretrained(get_model(network), url, "", network, otherwise or f"{key}=null", key=key, value=value)
        return make()


def _distance(network: Metric, decoded: "Tensor", original: "Tensor") -> float:
    x_hat, x = (image.expand(3, -1, -1)[None].float() / 255 for image in (decoded, original))
    return network.to(x.device)(x_hat, x).item()
