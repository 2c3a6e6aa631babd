"""From latents to bytes and back: quantiser, prior, integer tables, arithmetic coder."""

from codec.entropy.bottleneck import CENTRE, EntropyBottleneck
from codec.entropy.factorized import FactorizedPrior
from codec.entropy.mixture import LogisticMixture, Mixture

__all__ = ["CENTRE", "EntropyBottleneck", "FactorizedPrior", "LogisticMixture", "Mixture"]
