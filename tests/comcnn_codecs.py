"""What tests of ComCNN and RecCNN share: small ones, the standard codecs between them, and crops."""

import conftest
import torch
from torch import Tensor, nn

from codec.baselines import Avif, Jpeg, Jpeg2000, WebP
from codec.schemes.comcnn_reccnn import ComRec

SMALL = ("model.layers=6", "model.width=8")
CODECS = {"jpeg": Jpeg(40), "webp": WebP(40), "avif": Avif(40), "jpeg2000": Jpeg2000(40)}


def small(*overrides: str, channels: int = 3, seed: int = 0) -> ComRec:
    """Six narrow layers, unless `overrides` say otherwise."""
    return conftest.make_codec("comcnn_reccnn", channels=channels, seed=seed, overrides=(*SMALL, *overrides))


def lively(codec: ComRec) -> ComRec:
    """As if trained: what starts at zero does something."""
    generator = torch.Generator().manual_seed(1)
    for end in (codec.com.layers[-1], codec.rec.tail):
        nn.init.normal_(end.weight, std=0.1, generator=generator)
    return codec


def crop(photograph: Tensor, height: int = 64, width: int = 96) -> Tensor:
    """Wider than high, so that the two cannot be taken for each other."""
    return conftest.crop(photograph, height, width)
