"""Schedules of the learning rate that torch has the parts of, but no class for."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from codec.checks import check_integer
from codec.errors import ArgumentError, number_of

_FIRST = 0.1


def warm_up_cosine(optimizer: Optimizer, epochs: int, warm_up: int = 1, eta_min: float = 0.0) -> SequentialLR:
    """From a tenth of the learning rate up to all of it, which follows on `warm_up` epochs, then down to `eta_min`.

    Adam's first steps are as large as any, and of no better direction than its statistics are: without a warm-up
    they undo some of what weights that were trained before can do. Raises ArgumentError where no epoch is left.
    """
    check_integer("warm_up", warm_up, 1)
    if warm_up >= epochs:
        raise ArgumentError("warm_up", warm_up, f"of {number_of(epochs, 'epoch')} it leaves none at the whole rate")
    rising = LinearLR(optimizer, start_factor=_FIRST, total_iters=warm_up)
    falling = CosineAnnealingLR(optimizer, T_max=epochs - warm_up, eta_min=eta_min)
    return SequentialLR(optimizer, [rising, falling], milestones=[warm_up])
