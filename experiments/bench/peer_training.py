"""Training steps beside CompressAI's: ours as train.py runs them and in a bare loop, and its own loop, in turns."""

import itertools
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from codec.learned_codec import LearnedCodec
from codec.training.assembly import check_cuda_graph
from codec.training.callbacks import ChannelsLast
from codec.training.config import Builder
from codec.training.cuda_graph import RecordedSteps
from codec.training.memory import keep_freed_memory
from experiments.bench.busy import busy_seconds
from experiments.bench.turns import Peer, Times
from experiments.compose import composed

BATCH = 8
_PIXELS = 8 * 2 * 128**2  # of a measurement, which takes several steps where crops are small


class Trained(NamedTuple):
    """Seconds a step, a number a round; `peer` is empty where there is none.

    `busy`: seconds of a step in which the device computes, see `busy_seconds`; None where it was not asked for.
    """

    name: str
    side: int
    precision: str
    trainer: Sequence[Times]
    bare: Sequence[Times]
    peer: Sequence[Times]
    busy: float | None = None


class InTurns(Callback):
    """After steps of the Trainer as many in a bare loop and as many of the peer; the first round is dropped."""

    def __init__(
        self,
        batches: Sequence[Tensor],
        rounds: int,
        peer: Peer | None,
        steps: int | None = None,
        profiled: bool = False,
    ) -> None:
        size, _, side, _ = batches[0].shape
        self.steps = steps or max(1, _PIXELS // (size * side**2))
        self.batches, self.rounds, self.peer = batches, rounds, peer
        self.profiled, self.busy = profiled, None
        self.task = {"batch": size, "side": side, "steps": self.steps}
        self.taken: list[tuple[Times, ...]] = []
        self._left = self.steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = Times.now(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LearnedCodec, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._left -= 1
        if self._left:
            return
        device = pl_module.device
        ends = Times.now(device)
        self._bare_loop(trainer, pl_module, self.steps)
        taken = [self._since.until(ends, self.steps), ends.until(Times.now(device), self.steps)]
        if self.peer is not None:
            taken.append(Times(0.0, 0.0).until(self.peer.ask("train", **self.task), self.steps))
        self.taken.append(tuple(taken))
        trainer.should_stop = len(self.taken) > self.rounds
        if trainer.should_stop and self.profiled:
            self.busy = busy_seconds(lambda: self._bare_loop(trainer, pl_module, 1), device)
        self._left, self._since = self.steps, Times.now(device)

    def _bare_loop(self, trainer: Trainer, codec: LearnedCodec, steps: int) -> None:
        (optimizer,) = trainer.optimizers
        for batch in itertools.islice(itertools.cycle(self.batches), steps):
            optimizer.zero_grad()
            with trainer.precision_plugin.forward_context():
                loss, _ = codec.trained_terms(batch.to(codec.device, non_blocking=True))
            loss.backward()
            if trainer.gradient_clip_val is not None:
                torch.nn.utils.clip_grad_norm_(codec.parameters(), trainer.gradient_clip_val)
            optimizer.step()


def check_presets(experiments: Sequence[str]) -> None:
    """Raises as train.py does where one is none, before anything is measured."""
    for experiment in experiments:
        with composed("train", [f"experiment={experiment}"]):
            pass


def trained(
    experiment: str,
    side: int,
    precision: str,
    rounds: int,
    peer: Peer | None = None,
    overrides: Sequence[str] = (),
    batch: int = BATCH,
    steps: int | None = None,
    profiled: bool = False,
) -> Trained:
    """Trains a preset of `experiment=` on `batch` random crops of `side`² a step, without its checkpoints.

    As strategy=cpu does, unless `overrides` of train.py name another. A round is `steps` steps, or as many as a
    CPU's clock takes; `profiled`: for how long of one more the device computes. Raises ConfigError as train.py.
    """
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # its advice is about training runs
        chosen = [f"experiment={experiment}", f"data.batch_size={batch}", f"folder={folder}"]
        if not any(override.startswith("strategy=") for override in overrides):
            chosen.append("strategy=cpu")
        with composed("train", [*chosen, f"data.crop_size={side}", *overrides]) as config, Builder(config) as build:
            build.seed()
            codec = build.codec("model")
            batches = [_batch(batch, config.data.channels, side) for _ in range(4)]
            turns = InTurns(batches, rounds, peer, steps, profiled)
            callbacks = [c for c in build.group("callbacks") if not isinstance(c, ModelCheckpoint | ProgressBar)]
            if config.strategy.cuda_graph:
                callbacks.append(RecordedSteps())
            codec.prepare_training(loss=build.part("loss"), optimizer=build.part("optimizer"))
            # No scheduler: it acts between epochs, and all steps are of one.
            trainer = build.part(
                "trainer",
                callbacks=[*callbacks, ChannelsLast(), turns],
                logger=CSVLogger(folder),
                precision=precision,
                limit_val_batches=0,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        check_cuda_graph(config, trainer)
        trainer.fit(codec, itertools.cycle(batches))
    by_trainer, bare, *by_peer = zip(*turns.taken[1:], strict=True)
    return Trained(experiment, side, precision, by_trainer, bare, by_peer[0] if by_peer else (), turns.busy)


def _batch(count: int, channels: int, side: int) -> Tensor:
    batch = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    return batch.pin_memory() if torch.cuda.is_available() else batch  # as train.py's loader does
