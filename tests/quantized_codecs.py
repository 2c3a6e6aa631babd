"""What tests of the quantised autoencoder share: small ones, with and without the DCT shortcut."""

from conftest import make_codec

from codec.learned_codec import LearnedCodec

DCT = "model.shortcut=dct"
DCT_ALONE = (DCT, "model.encoder=none", "model.pretrained=false")
SMALL = ("model.encoder=resnet18", "model.widths=[32,16,16,8,8]")


def quantized(*overrides: str, channels: int = 3, seed: int = 0) -> LearnedCodec:
    """With the smallest encoder and a narrow decoder, unless `overrides` say otherwise."""
    return make_codec("quantized_autoencoder", channels=channels, seed=seed, overrides=(*SMALL, *overrides))
