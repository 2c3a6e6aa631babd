"""Small priors of every kind, with weights as if trained, and latents to code with them."""

import functools
from collections.abc import Callable

import torch
from conftest import generator
from torch import Tensor

from codec.entropy import EntropyBottleneck
from codec.entropy.priors.channel_context import ChannelContextPrior
from codec.entropy.priors.checkerboard import CheckerboardPrior
from codec.entropy.priors.factorized import FactorizedPrior
from codec.entropy.priors.hyperprior import HyperpriorPrior
from codec.entropy.priors.pass_network import SLOWNESS, SlowPredictor
from codec.entropy.priors.prior import Prior
from codec.networks.exact import ExactConv2d

PRIORS: dict[str, Callable] = {
    "factorized": functools.partial(FactorizedPrior, filters=[3]),
    "hyperprior": functools.partial(HyperpriorPrior, features=8),
    "checkerboard": functools.partial(CheckerboardPrior, features=8),
    "channel_context": functools.partial(ChannelContextPrior, features=8, slices=2),
    "channel_context_4_hyper": functools.partial(ChannelContextPrior, features=8, slices=3, phases=4, hyper=True),
}
CHANNELS = [5, 3]
SIZES = [(5, 7), (9, 14)]  # odd ones, the finer cropped from twice the coarser


def make(name: str, **options: object) -> EntropyBottleneck:
    """A bottleneck for a pyramid of two tensors, whose networks' ends are not zero, nor z everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bottleneck = EntropyBottleneck(CHANNELS, bits=4, prior=PRIORS[name], bounded=False, **options)
        enliven(bottleneck.prior)
    return bottleneck


@torch.no_grad()
def enliven(prior: Prior, strength: float = 0.3) -> None:
    """Gives random weights of `strength` to the ends that start at zero, and z a spread of several levels."""
    for module in prior.modules():
        if isinstance(module, ExactConv2d) and not module.weight.any():
            unit = SLOWNESS if isinstance(module, SlowPredictor) else 1
            module.weight.normal_(std=strength * unit / module.weight[0].numel())
    for name, parameter in prior.named_parameters():
        if name.endswith("analysis.4.weight"):
            parameter *= 20


def latent(batch: int = 1, spread: float = 0.2) -> list[Tensor]:
    """A pyramid `[B, C, H, W]` of CHANNELS and SIZES."""
    return [
        spread * torch.randn(batch, channels, *size, generator=generator(n))
        for n, (channels, size) in enumerate(zip(CHANNELS, SIZES, strict=True))
    ]
