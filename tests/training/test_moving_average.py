"""What is averaged of the weights, and when."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from codec.errors import ArgumentError, ConfigError
from codec.training.assembly import check_average
from codec.training.moving_average import MovingAverage


class Counter(LightningModule):
    """Its weight is the number of the step, and one of its buffers that, too."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.steps += 1
        return -self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def averaged(steps: int, counted: int | None = None, **options: float) -> float:
    """The average after so many steps; its counter is at `counted`, None being the last step's."""
    model = Counter()
    trainer = Trainer(
        callbacks=MovingAverage(**options),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    trainer.fit(model, DataLoader(torch.zeros(steps, 1), batch_size=1))
    assert model.steps.dtype == torch.int64
    assert int(model.steps) == (counted or steps)  # counters have no average
    return float(model.weight)


def test_of_a_long_training_it_is_an_exponential_average() -> None:
    assert averaged(200, decay=0.5) == pytest.approx(199, abs=1e-3)  # Σ n · 0.5^(200 − n + 1)


def test_of_a_short_training_it_is_of_its_end_and_not_of_its_beginning() -> None:
    assert 0.85 * 50 < averaged(50, decay=0.999) < 50


def test_updates_can_be_few() -> None:
    # After steps 1, 5, … 197: what is averaged is four steps apart.
    assert averaged(200, counted=197, decay=0.5, every_n_steps=4) == pytest.approx(197 - 4, abs=1e-3)


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"decay": -0.1}, {"decay": "much"}, {"every_n_steps": 0}])
def test_what_is_no_decay_and_no_number_of_steps_is_refused(options: dict) -> None:
    (name,) = options
    with pytest.raises(ArgumentError, match=rf"^{name}="):
        MovingAverage(**options)


def test_a_resumed_training_goes_on_with_the_average_and_the_number_of_its_updates(tmp_path: Path) -> None:
    data = DataLoader(torch.zeros(20, 1), batch_size=1)
    averages = []
    for resumed in (None, tmp_path / "half.ckpt"):
        trainer = Trainer(
            max_epochs=1,
            callbacks=[MovingAverage(), ModelCheckpoint(tmp_path, "half", every_n_train_steps=12, save_top_k=-1)],
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model = Counter()
        trainer.fit(model, data, ckpt_path=resumed)
        averages.append(float(model.weight.detach()))
    assert averages[0] == averages[1]


def test_an_average_lies_in_memory_as_the_weights_do() -> None:
    model, callback = Counter(), MovingAverage(decay=0.5)
    model.weight = nn.Parameter(torch.arange(16.0).view(2, 2, 2, 2))
    callback.setup(Trainer(accelerator="cpu", logger=False), model, "fit")
    model.to(memory_format=torch.channels_last)
    callback._average_model.update_parameters(model)
    with torch.no_grad():
        model.weight += 1
    callback._average_model.update_parameters(model)
    (average,) = callback._average_model.module.parameters()
    assert average.stride() == model.weight.stride() != torch.empty(2, 2, 2, 2).stride()
    kept = 2 / 11  # after one update
    assert torch.allclose(average, model.weight - kept)


def test_of_weights_that_devices_share_out_none_is_kept() -> None:
    for processes, refused in ((1, nullcontext()), (2, pytest.raises(ConfigError, match=r"^callbacks.ema=.*ddp"))):
        trainer = SimpleNamespace(callbacks=[MovingAverage()], strategy=FSDPStrategy(), world_size=processes)
        with refused:
            check_average(trainer)
