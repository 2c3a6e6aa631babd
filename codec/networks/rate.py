"""How networks are told the rate: by how near an image's quality is to each of six knots."""

import torch
from torch import Tensor

KNOTS = 6  # qualities 0, 20, … 100, between which what depends on the rate is interpolated
_APART = 100 / (KNOTS - 1)


def nearness_to_knots(quality: Tensor) -> Tensor:
    """`quality` `[B]`, 0–100 → `[B, KNOTS, 1, 1]`, which is 1 at the knot itself, 0 from the next ones on."""
    knots = torch.arange(KNOTS, device=quality.device) * _APART
    return (1 - (quality[:, None] - knots).abs() / _APART).clamp(min=0)[..., None, None]
