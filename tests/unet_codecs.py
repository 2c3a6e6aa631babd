"""What tests of the lossless U-Net share: small ones, with and without context."""

import torch
from conftest import generator, make_codec

from codec.schemes.lossless_unet import LosslessUNet

SMALL = ("model.features=8", "model.width=8", "model.blocks=1")
NONE, POLYPHASE = "lossless_unet", "lossless_unet_polyphase"


def lossless(model: str, *overrides: str, channels: int = 3, seed: int = 0) -> LosslessUNet:
    """A small one, whose zeroed ends are not zero: all that is there takes part."""
    codec = make_codec(model, channels=channels, seed=seed, overrides=(*SMALL, *overrides))
    for n, parameter in enumerate(codec.parameters()):
        if not bool(parameter.any()) and parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator(n))
    return codec
