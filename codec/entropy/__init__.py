"""From latents to bytes and back: quantiser, prior, integer tables, arithmetic coder."""

from codec.entropy.bottleneck import EntropyBottleneck
from codec.entropy.factorized import FactorizedPrior

__all__ = ["EntropyBottleneck", "FactorizedPrior"]
