"""The forward diffusion process, and deterministic sampling back (Ho et al. 2020; Song et al. 2021)."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


class NoiseSchedule(nn.Module):
    """β linear from `first` to `last` over `steps`; t runs from 0, almost clean, to steps − 1, almost noise."""

    alpha_bar: Tensor

    def __init__(self, steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> None:
        super().__init__()
        if steps < 2 or not 0 < first <= last < 1:
            raise ValueError(f"steps={steps}, first={first}, last={last}: needs 2 steps and 0 < first <= last < 1")
        self.steps = steps
        beta = torch.linspace(first, last, steps, dtype=torch.float64)
        self.register_buffer("alpha_bar", torch.cumprod(1 - beta, 0).float(), persistent=False)

    def q_sample(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """√ᾱ_t · x + √(1 − ᾱ_t) · noise; `x` `[B, ...]`, `t` int64 `[]` or `[B]` (Ho et al., equation 4)."""
        alpha_bar = self.alpha_bar[t].reshape(-1, *[1] * (x.ndim - 1))
        return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise

    def ddim(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        """From `noise` to a sample: `steps` calls of `predict(x_t, t)` → x_0 (Song et al., equation 12, σ = 0)."""
        if steps < 1:
            raise ValueError(f"steps={steps}: sampling needs at least one")
        x_t = noise
        times = torch.linspace(self.steps - 1, 0, steps).round().long().tolist()
        for t, then in pairwise(times):
            x_0 = predict(x_t, torch.full((len(x_t),), t, device=x_t.device))
            noise = (x_t - self.alpha_bar[t].sqrt() * x_0) / (1 - self.alpha_bar[t]).sqrt()
            x_t = self.alpha_bar[then].sqrt() * x_0 + (1 - self.alpha_bar[then]).sqrt() * noise
        return predict(x_t, torch.full((len(x_t),), times[-1], device=x_t.device))
