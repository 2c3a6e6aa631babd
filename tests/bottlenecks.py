"""What tests of the entropy bottleneck share: small ones of one tensor, and levels of a known distribution."""

import functools

import torch
from conftest import generator
from torch import Tensor

from codec.entropy import EntropyBottleneck, FactorizedPrior
from codec.entropy.per_channel import ChannelTables


def make_bottleneck(channels: int = 2, bits: int = 4, noise: str = "uniform", seed: int = 0) -> EntropyBottleneck:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EntropyBottleneck([channels], bits, noise, functools.partial(FactorizedPrior, filters=[3]))


def model_of(bottleneck: EntropyBottleneck) -> ChannelTables:
    """The distributions of the only tensor of its latent."""
    (model,) = bottleneck.prior.models
    return model


def sample_levels(pmf: Tensor, count: int, seed: int = 0) -> Tensor:
    """Symbols drawn from every row of `pmf`, int64 `[T, count]`."""
    return torch.multinomial(pmf, count, replacement=True, generator=generator(seed))
