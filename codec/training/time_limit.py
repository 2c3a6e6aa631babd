"""How long a training took, and whether `trainer.max_time` ended it before its last step."""

from lightning import Trainer
from lightning.pytorch.callbacks import Timer


def train_minutes(trainer: Trainer) -> float | None:
    """The minutes that a training took, those before a resume included; None where no clock ran."""
    clock = _clock(trainer)
    return None if clock is None else round(clock.time_elapsed() / 60, 1)


def stopped_by_max_time(trainer: Trainer) -> str | None:
    """After a fit: "stopped by max_time after N of M steps" where that is what happened, else None.

    Steps of earlier starts are counted.
    """
    clock, planned = _clock(trainer), trainer.estimated_stepping_batches
    remaining = None if clock is None else clock.time_remaining()
    if remaining is None or remaining > 0 or trainer.global_step >= planned:
        return None
    return f"stopped by max_time after {trainer.global_step:,} of {planned:,} steps"


def _clock(trainer: Trainer) -> Timer | None:
    return next((callback for callback in trainer.callbacks if isinstance(callback, Timer)), None)
