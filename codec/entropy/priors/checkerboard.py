"""The checkerboard context model: a hyperprior and two passes (He et al. 2021, https://arxiv.org/abs/2103.15306)."""

from collections.abc import Sequence

from codec.entropy.priors.context import ContextPrior, Group


class CheckerboardPrior(ContextPrior):
    """Side information z, then each tensor in two passes, like the colours of a chessboard.

    `features` are the networks' width and z's channels.
    """

    def __init__(
        self, channels: Sequence[int], reach: int, groups: Sequence | None = None, features: int = 64
    ) -> None:
        super().__init__(channels, [[Group(tuple(range(count)), 2)] for count in channels], features, hyper=True)
