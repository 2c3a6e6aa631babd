"""Schedules of the learning rate that torch has the parts of, but no class for."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

_FIRST = 0.1


def warm_up_cosine(optimizer: Optimizer, epochs: int, warm_up: int = 1, eta_min: float = 0.0) -> SequentialLR:
    """From a tenth of the learning rate up to all of it over `warm_up` epochs, then down to `eta_min`.

    Adam's first steps are as large as any, and of no better direction than its statistics are: without a warm-up
    they undo some of what weights that were trained before can do.
    """
    rising = LinearLR(optimizer, start_factor=_FIRST, total_iters=warm_up)
    falling = CosineAnnealingLR(optimizer, T_max=max(1, epochs - warm_up), eta_min=eta_min)
    return SequentialLR(optimizer, [rising, falling], milestones=[warm_up])
