"""How a codec's weights are updated, and the loss that a progress bar shows of it."""

import fcntl
import os
import struct
import sys
import termios
from collections.abc import Callable

import pytest
import torch
from conftest import images, make_codec
from lightning import Trainer
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import DataLoader

from codec.errors import ConfigError
from codec.learned_codec import LearnedCodec
from codec.losses import RateDistortionLoss
from codec.training.progress import Bar, Lines, progress

NARROW = ("model.widths=[8,8]", "model.latent_channels=4")


def codec_to_train(optimizer: Callable[..., Optimizer], rate_weight: float = 0.01) -> LearnedCodec:
    codec = make_codec("conv_baseline", overrides=NARROW).train()
    codec.prepare_training(RateDistortionLoss(rate_weight=rate_weight), optimizer)
    return codec


@pytest.mark.parametrize(
    ("optimizer", "options", "fused"),
    [
        (Adam, {}, True),
        (AdamW, {}, True),
        (Adam, {"fused": False}, False),
        (Adam, {"foreach": True}, None),
        (Adam, {"differentiable": True}, None),
        (SGD, {}, None),  # of some, not all devices have a kernel
    ],
)
def test_adam_updates_all_weights_in_one_kernel(optimizer: type, options: dict, fused: bool | None) -> None:
    chosen = codec_to_train(lambda groups: optimizer(groups, lr=1e-3, **options)).configure_optimizers()
    assert [group["fused"] for group in chosen["optimizer"].param_groups] == [fused, fused]


def test_gradients_are_clipped_before_that_kernel() -> None:
    moved = []
    for clipped in (None, 1e-12):
        codec = codec_to_train(lambda groups: Adam(groups, lr=1e-3, eps=1e-3))
        before = torch.cat([p.detach().flatten().clone() for p in codec.parameters()])
        trainer = Trainer(accelerator="cpu", precision="bf16-mixed", gradient_clip_val=clipped, **quiet())
        trainer.fit(codec, batches())
        after = torch.cat([p.detach().flatten() for p in codec.parameters()])
        moved.append(float((after - before).abs().max()))
    assert moved[1] < 1e-6 < moved[0]


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("rate_weight", [0, 0.01])
def test_a_bar_shows_the_loss_that_is_logged(
    together: int, rate_weight: float, capsys: pytest.CaptureFixture[str]
) -> None:
    codec, bar = codec_to_train(Adam, rate_weight), Bar(refresh_rate=1)
    settings = quiet() | {"enable_progress_bar": True}
    trainer = Trainer(accelerator="cpu", callbacks=bar, accumulate_grad_batches=together, **settings)
    trainer.fit(codec, batches())
    shown = bar.get_metrics(trainer, codec)
    assert shown == {"loss": pytest.approx(float(trainer.callback_metrics["train/loss"]), rel=1e-6)}
    assert "epoch 1 of 1: 100%" in capsys.readouterr().out


@pytest.mark.parametrize(("rows", "kind"), [(0, Lines), (24, Bar)])
def test_where_a_terminal_has_no_height_lines_are_written(
    rows: int, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with os.fdopen(ours, "wb"), os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        made = progress(30)
        monkeypatch.undo()
    assert type(made) is kind


def batches() -> DataLoader:
    return DataLoader((255 * images(4, 3, 32, 32)).byte(), batch_size=2)


def quiet() -> dict:
    names = ("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary")
    return {"max_epochs": 1, "log_every_n_steps": 1, **dict.fromkeys(names, False)}


def test_a_codec_that_was_not_prepared_says_so_in_a_line() -> None:
    codec = make_codec("conv_baseline")
    with pytest.raises(ConfigError, match=r"prepare_training\(loss, optimizer\): call it before Trainer\.fit$"):
        codec.configure_optimizers()
