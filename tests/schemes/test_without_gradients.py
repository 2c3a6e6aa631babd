"""What networks compute otherwise where no gradient is wanted is the same but for rounding."""

from pathlib import Path

import pytest
import torch
from conftest import crop
from torch import Tensor

from codec.checkpoint import load_codec, load_pretrained

MODELS = ("conv_baseline", "conv_enhanced", "conv_baseline_dct", "conv_enhanced_dct", "quantized_autoencoder_dct")
DIFFUSION = Path(__file__).parents[2] / "experiments/starts/diffusion_dct.safetensors"


@pytest.mark.parametrize("model", [*MODELS, DIFFUSION], ids=[*MODELS, "diffusion_dct"])
def test_trained_codecs_decode_as_they_were_trained_to(model: str | Path, photograph: Tensor) -> None:
    codec = load_codec(model) if isinstance(model, Path) else load_pretrained(model)
    x = codec.prepared(crop(photograph, 64, 96))
    quality = None if codec.qualities is None else torch.tensor([50.0])
    y = [tensor.detach() for tensor in codec.g_a(x)]
    x_hat = codec.g_s(y, quality).detach()
    with torch.no_grad():
        for ours, reference in zip(codec.g_a(x), y, strict=True):
            torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)
        torch.testing.assert_close(codec.g_s(y, quality), x_hat, atol=1e-6, rtol=0)
