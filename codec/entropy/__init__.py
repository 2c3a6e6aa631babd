"""From latents to bytes and back: quantiser, priors, integer tables, arithmetic coder."""

from codec.entropy.bottleneck import QUALITIES, EntropyBottleneck
from codec.entropy.mixture import LogisticMixture, Mixture
from codec.entropy.priors.factorized import FactorizedPrior

__all__ = ["QUALITIES", "EntropyBottleneck", "FactorizedPrior", "LogisticMixture", "Mixture"]
