"""From latents to bytes and back: quantiser, priors, integer tables, arithmetic coder."""

from codec.entropy.bottleneck import EntropyBottleneck
from codec.entropy.mixture import LogisticMixture, Mixture
from codec.entropy.priors.factorized import FactorizedPrior

__all__ = ["EntropyBottleneck", "FactorizedPrior", "LogisticMixture", "Mixture"]
