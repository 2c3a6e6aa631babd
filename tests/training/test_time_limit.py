"""What ended a training: its last step, or the time it was given; steps before a resume count."""

from datetime import timedelta
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.demos.boring_classes import BoringModel

from codec import pretrained
from codec.training.fitting import stopped_by_max_time, train_minutes
from codec.training.results import table
from experiments.release.model_card import card
from experiments.tables.plan import Training
from experiments.tables.report import _trained

STOPPED = "stopped by max_time after 30 of 1,800 steps"


def fitted(folder: Path, epochs: int, clock: Timer | None, resumed_from: Path | None = None) -> Trainer:
    """A trainer that has fitted epochs of four steps, as long as its clock let it."""
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        limit_train_batches=4,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[] if clock is None else [clock],
    )
    trainer.fit(BoringModel(), ckpt_path=resumed_from, weights_only=True)
    return trainer


def test_only_a_training_that_time_cut_short_is_said_to_be(tmp_path: Path) -> None:
    unlimited, whole = fitted(tmp_path, 1, None), fitted(tmp_path, 2, Timer(timedelta(hours=1)))
    assert stopped_by_max_time(unlimited) is None
    assert stopped_by_max_time(whole) is None
    assert train_minutes(unlimited) is None
    whole.save_checkpoint(tmp_path / "last.ckpt")
    cut = fitted(tmp_path, 500, Timer(timedelta(microseconds=1)), tmp_path / "last.ckpt")
    assert stopped_by_max_time(cut) == f"stopped by max_time after {cut.global_step} of 2,000 steps"
    assert 8 <= cut.global_step < 13


def test_every_table_and_card_says_what_time_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {"psnr": 16.6, "bpp": 0.2, "train_minutes": 3.5, "hardware": "a machine", "precision": "bf16-mixed"}
    results["stopped"] = STOPPED
    assert table({"demo": results}).splitlines()[-1] == f"demo: {STOPPED}"
    monkeypatch.setattr(Training, "results", results)
    assert _trained(Training("demo", (), 0)) == f"demo 4 min on a machine in bf16-mixed, {STOPPED}"
    model = pretrained.pretrained_models()[0]
    model.weights[0].training["stopped"] = STOPPED
    assert f", {STOPPED}. The best weights" in card(model)
