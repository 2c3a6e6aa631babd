"""MSE, PSNR, SSIM and MS-SSIM against independent implementations, and the mean over images."""

import math

import numpy as np
import pytest
import torch
from conftest import to_tensor
from scipy.ndimage import gaussian_filter
from skimage import data as photographs
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from codec.baselines import Jpeg
from codec.metrics import image_quality, mean_of_rows

PHOTOGRAPHS = {
    "astronaut": photographs.astronaut(),
    "chelsea": photographs.chelsea(),
    "coffee": photographs.coffee(),
    "camera": photographs.camera()[..., None],
}


def to_array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def noisy(image: Tensor) -> Tensor:
    noise = 12 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def jpeg(image: Tensor, quality: int) -> Tensor:
    return Jpeg(quality).decode(Jpeg(quality).encode(image))


DEGRADATIONS = {
    "jpeg 5": lambda image: jpeg(image, 5),
    "jpeg 75": lambda image: jpeg(image, 75),
    "noise": noisy,
    "shifted": lambda image: image.roll(1, dims=-1),
}


def mirrored(planes: np.ndarray) -> np.ndarray:
    """`[H, W, C]` with 5 mirrored pixels on every side, so that a whole 11×11 window is centred on each pixel.

    torchmetrics counts SSIM there too; Wang et al. and scikit-image count whole windows only. On the pictures
    below the two differ by up to 0.006.
    """
    return np.pad(planes, ((5, 5), (5, 5), (0, 0)), mode="reflect")


def mean_ssim_terms(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of two `[H, W, C]` images, whole 11×11 Gaussian windows only."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def local_mean(planes: np.ndarray) -> np.ndarray:
        return gaussian_filter(planes, sigma=1.5, radius=5, axes=(0, 1))[5:-5, 5:-5]

    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x) - mean_x**2 + local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    structure = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (luminance * structure).mean(), structure.mean()


def halved(planes: np.ndarray) -> np.ndarray:
    """`[H, W, C]` to `[H//2, W//2, C]`, each pixel the mean of four."""
    height, width, channels = planes.shape[0] // 2, planes.shape[1] // 2, planes.shape[2]
    return planes[: 2 * height, : 2 * width].reshape(height, 2, width, 2, channels).mean(axis=(1, 3))


def ms_ssim(decoded: np.ndarray, original: np.ndarray) -> float:
    """MS-SSIM of two `[H, W, C]` images by Wang, Simoncelli and Bovik (2003), five scales, averaged over channels.

    As in torchmetrics, the borders count at the coarsest scale only, the one where SSIM itself is taken.
    """
    x, y = decoded.astype(np.float64), original.astype(np.float64)
    result = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363):
        result *= mean_ssim_terms(x, y)[1] ** weight
        x, y = halved(x), halved(y)
    return result * mean_ssim_terms(mirrored(x), mirrored(y))[0] ** 0.1333


@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize("degradation", DEGRADATIONS)
def test_mse_psnr_ssim_and_ms_ssim_agree_with_independent_implementations(photograph, degradation):
    original = to_tensor(PHOTOGRAPHS[photograph])
    decoded = DEGRADATIONS[degradation](original)
    x, y = to_array(original), to_array(decoded)
    quality = image_quality(decoded, original)
    assert quality["mse"] == pytest.approx(np.mean((x / 255 - y / 255) ** 2), rel=1e-5)
    assert quality["psnr"] == pytest.approx(peak_signal_noise_ratio(x, y, data_range=255), abs=1e-3)
    ssim = structural_similarity(
        mirrored(x),
        mirrored(y),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=2,
    )
    assert quality["ssim"] == pytest.approx(ssim, abs=1e-4)
    assert quality["ms_ssim"] == pytest.approx(ms_ssim(y, x), abs=1e-4)


def test_equal_images_have_no_error_infinite_psnr_and_similarity_one():
    image = to_tensor(photographs.astronaut())
    assert image_quality(image, image) == pytest.approx({"mse": 0.0, "psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0})


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ((1, 1), {"mse", "psnr"}),
        ((10, 400), {"mse", "psnr"}),
        ((11, 11), {"mse", "psnr", "ssim"}),
        ((175, 400), {"mse", "psnr", "ssim"}),
        ((400, 175), {"mse", "psnr", "ssim"}),
        ((176, 176), {"mse", "psnr", "ssim", "ms_ssim"}),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_metric_is_absent_where_its_window_does_not_fit(size, names, channels):
    original = to_tensor(photographs.coffee())[:channels, : size[0], : size[1]]
    quality = image_quality(noisy(original), original)
    assert set(quality) == names
    assert all(math.isfinite(value) for value in quality.values())


def test_validation_in_bfloat16_measures_in_full_precision():
    original = to_tensor(photographs.coffee())[:, :200, :200]
    expected = image_quality(noisy(original), original)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert image_quality(noisy(original), original) == expected


def test_images_of_different_shapes_are_not_compared():
    with pytest.raises(ValueError, match=r"decoded image \[3, 8, 9\] is not of the original's shape \[3, 8, 8\]"):
        image_quality(torch.zeros(3, 8, 9, dtype=torch.uint8), torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_the_mean_of_psnr_is_over_images_and_leaves_lossless_ones_out():
    rows = [{"name": "a", "psnr": 30.0}, {"name": "b", "psnr": math.inf}, {"name": "c", "psnr": 40.0}]
    assert mean_of_rows(rows) == {"psnr": 35.0, "lossless": 1}


def test_the_mean_of_psnr_is_infinite_where_all_images_are_lossless():
    assert mean_of_rows([{"psnr": math.inf}, {"psnr": math.inf}]) == {"psnr": math.inf, "lossless": 2}


def test_a_mean_is_over_the_images_that_have_the_metric():
    rows = [{"psnr": 30.0, "ms_ssim": 0.9}, {"psnr": 32.0}, {"psnr": 34.0, "ms_ssim": 0.7}]
    assert mean_of_rows(rows) == pytest.approx({"psnr": 32.0, "ms_ssim": 0.8, "lossless": 0})


def test_there_is_no_mean_of_no_images():
    assert mean_of_rows([]) == {}
