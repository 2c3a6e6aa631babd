"""Training losses: distortion + rate_weight · bpp, the distortion a weighted sum of MSE, SSIM and VGG terms."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from codec.checks import check_loss
from codec.errors import ArgumentError
from codec.networks.pretrained import load_pretrained

# Where relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3 end in torchvision's VGG-16.
_VGG_LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}


# The smallest images that torchmetrics' SSIM and MS-SSIM take, by their number of scales.
_SSIM_SIDES = {1: 11, 2: 12, 3: 44, 4: 99, 5: 176}


class LossTerms(NamedTuple):
    """Scalars: `loss` is minimised, `total` is distortion + rate_weight·bpp, the rest are its parts.

    `loss` differs from `total` in one case: with rate_weight 0 it adds the bpp that fits the prior, whose
    gradient `EntropyBottleneck.shapes_latent = False` keeps away from the transforms.
    """

    loss: Tensor
    total: Tensor
    distortion: Tensor
    bpp: Tensor


class RateDistortionLoss:
    """mse_weight · MSE + ssim_weight · (1 − SSIM) + vgg_weight · VGG + rate_weight · bpp, on images in [0, 1].

    `rate_weight` is λ's inverse in papers that write R + λD; 0 trains the transforms for distortion alone.
    `ssim_scales` [1.0] is SSIM; several numbers, finest scale first, are the exponents of MS-SSIM (Wang et al.
    2003: 0.0448, 0.2856, 0.3001, 0.2363, 0.1333). Both are torchmetrics', whose window wants images of
    `smallest_side`: 11 pixels for one scale, 99 for four, 176 for five.
    """

    def __init__(
        self,
        mse_weight: float = 1.0,
        vgg_weight: float = 0.0,
        rate_weight: float = 0.0,
        perceptual: "VGGPerceptual | None" = None,
        ssim_weight: float = 0.0,
        ssim_scales: Sequence[float] = (1.0,),
    ) -> None:
        check_loss(mse_weight, ssim_weight, vgg_weight, rate_weight, ssim_scales)
        if vgg_weight > 0 and perceptual is None:
            raise ArgumentError("vgg_weight", vgg_weight, "a perceptual term is needed, choose loss=mse_vgg")
        self.mse_weight = mse_weight
        self.ssim_weight = ssim_weight
        self.ssim_scales = tuple(ssim_scales)
        self.vgg_weight = vgg_weight
        self.rate_weight = rate_weight
        self.perceptual = perceptual

    @property
    def smallest_side(self) -> int:
        """Height and width that images need at least, in pixels."""
        return _SSIM_SIDES[len(self.ssim_scales)] if self.ssim_weight > 0 else 1

    def __call__(self, x_hat: Tensor, bits: Tensor, x: Tensor) -> LossTerms:
        """`x_hat` and `x` `[B, C, H, W]`, `bits` `[B]` of the whole images."""
        x_hat, x = x_hat.float(), x.float()
        distortion = self.mse_weight * F.mse_loss(x_hat, x)
        if self.ssim_weight > 0:
            distortion = distortion + self.ssim_weight * (1 - self._ssim(x_hat, x))
        if self.vgg_weight > 0:
            distortion = distortion + self.vgg_weight * self.perceptual(x_hat, x)
        bpp = bits.mean() / (x.shape[-2] * x.shape[-1])
        total = distortion + self.rate_weight * bpp
        loss = total if self.rate_weight > 0 else distortion + bpp
        return LossTerms(loss, total, distortion, bpp)

    def _ssim(self, x_hat: Tensor, x: Tensor) -> Tensor:
        # The windows' convolutions are several times faster on CPUs with channels last.
        pair = [image.contiguous(memory_format=torch.channels_last) for image in (x_hat, x)]
        with torch.autocast(x.device.type, enabled=False):  # variances are differences of near equals
            if len(self.ssim_scales) == 1:
                return structural_similarity_index_measure(*pair, data_range=1.0)
            return multiscale_structural_similarity_index_measure(
                *pair, data_range=1.0, betas=self.ssim_scales, normalize="relu"
            )


class VGGPerceptual:
    """Mean squared difference of VGG-16 features (Johnson et al. 2016, https://arxiv.org/abs/1603.08155).

    Compares `layers` (any of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3), averaged. `pretrained` takes
    torchvision's ImageNet weights, from `url` if it is given, downloaded once and checked against the hash in its
    name; False draws random features from a fixed seed. Not an nn.Module: the features are no part of a codec, its
    checkpoints or its gradients.
    """

    def __init__(
        self,
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3"),
        pretrained: bool = True,
        url: str | None = None,
    ) -> None:
        if not layers or any(name not in _VGG_LAYERS for name in layers):
            raise ArgumentError("layers", layers, f"allowed are lists of {', '.join(_VGG_LAYERS)}")
        from torchvision.models import VGG16_Weights  # slow to import, and coding needs none of it
        from torchvision.models.vgg import cfgs, make_layers

        with torch.random.fork_rng(devices=[]):  # what it draws is thrown away
            features = make_layers(cfgs["D"])[: 1 + max(_VGG_LAYERS[name] for name in layers)]
        if pretrained:
            url = url or VGG16_Weights.IMAGENET1K_V1.url
            load_pretrained(features, url, "features.", "VGG-16", "loss.perceptual.pretrained=false")
        else:
            generator = torch.Generator().manual_seed(0)
            for parameter in features.parameters():
                if parameter.ndim == 4:
                    nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
                else:
                    nn.init.zeros_(parameter)
        self.features = features.eval().requires_grad_(False)
        self.ends = [_VGG_LAYERS[name] for name in layers]

    def __call__(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """A scalar for two batches `[B, C, H, W]` in [0, 1], C in {1, 3}."""
        self.features.to(x.device)
        terms = [F.mse_loss(a, b) for a, b in zip(self._activations(x_hat), self._activations(x), strict=True)]
        return torch.stack(terms).mean()

    def _activations(self, x: Tensor) -> list[Tensor]:
        x = x.expand(-1, 3, -1, -1)
        mean = x.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = x.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        x = (x - mean) / std
        kept = []
        for n, layer in enumerate(self.features):
            x = layer(x)
            if n in self.ends:
                kept.append(x.float())
        return kept
