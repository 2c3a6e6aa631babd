"""What tests of the standard codecs share: one of each, and images for them."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from conftest import ROOT, to_tensor
from hydra.utils import instantiate
from omegaconf import OmegaConf
from skimage import data as photographs
from torch import Tensor

from codec.errors import install

LOSSLESS = ["png", "webp_lossless", "jpegxl_lossless", "jpeg2000_lossless"]
LOSSY = ["jpeg", "jpeg_444", "jpeg_progressive", "webp", "avif", "jpegxl", "jpeg2000"]
WITHOUT_JPEG_XL = find_spec("pillow_jxl") is None
CODECS = {
    name: instantiate(OmegaConf.load(ROOT / "conf/model" / f"{name}.yaml"))
    for name in LOSSY + LOSSLESS
    if not (name.startswith("jpegxl") and WITHOUT_JPEG_XL)
}

needs_jpeg_xl = pytest.mark.skipif(WITHOUT_JPEG_XL, reason=install("jpegxl"))


def named(names: list[str]) -> list:
    return [pytest.param(name, marks=needs_jpeg_xl if name.startswith("jpegxl") else ()) for name in names]


every_codec = pytest.mark.parametrize("name", named(LOSSY + LOSSLESS))
grey_and_rgb = pytest.mark.parametrize("channels", [1, 3])


def photograph(height: int, width: int, channels: int = 3) -> Tensor:
    """A piece of a real photograph, uint8 `[channels, height, width]`."""
    return to_tensor(photographs.astronaut())[:channels, 60 : 60 + height, 150 : 150 + width].contiguous()


def noise(height: int, width: int, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (channels, height, width), generator=generator, dtype=torch.uint8)


def psnr(decoded: Tensor, original: Tensor) -> float:
    return 10 * np.log10(255**2 / (decoded.double() - original.double()).square().mean().item())


def bpp(data: bytes, image: Tensor) -> float:
    return 8 * len(data) / image[0].numel()
