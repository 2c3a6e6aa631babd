"""What tests of the diffusion scheme share: its codecs, and the overrides that make its variants."""

from conftest import make_codec

from codec.learned_codec import LearnedCodec

DCT = "model.shortcut=dct"
WAVELET = "model.shortcut=wavelet"
ITERATIVE = "model.decoder=iterative"
NO_SKIPS = "model.skips=none"
VARIABLE_RATE = "bottleneck.variable_rate=true"


def diffusion(*overrides: str, channels: int = 3, seed: int = 0) -> LearnedCodec:
    return make_codec("diffusion", channels=channels, seed=seed, overrides=overrides)
