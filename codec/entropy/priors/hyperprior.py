"""The mean and scale hyperprior (Minnen, Ballé, Toderici 2018, https://arxiv.org/abs/1809.02736)."""

from collections.abc import Sequence

from codec.entropy.priors.context import ContextPrior, Group


class HyperpriorPrior(ContextPrior):
    """Side information z, then each tensor of the latent in one pass. `features` are z's channels too."""

    def __init__(
        self, channels: Sequence[int], reach: int, groups: Sequence | None = None, features: int = 64
    ) -> None:
        super().__init__(channels, [[Group(tuple(range(count)), 1)] for count in channels], features, hyper=True)
