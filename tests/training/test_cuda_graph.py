"""Training steps that are recorded and replayed on a GPU, and what is said where that cannot be."""

import csv
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import composed, folder_of, run_python
from omegaconf import OmegaConf
from sweeping import TINY, TRAIN

from codec.errors import ConfigError, UserError
from codec.training.assembly import check_cuda_graph, training_parts

STEPS = (
    *(option for option in TINY if option not in ("epochs=1", "strategy.accelerator=cpu")),
    *("trainer.log_every_n_steps=1", "epochs=3", "strategy=gpu"),
)


def test_without_a_gpu_no_recording_begins() -> None:
    config = composed("train", ["strategy=cpu", "strategy.cuda_graph=true"])
    with pytest.raises(UserError, match=r"^strategy.cuda_graph=true: steps are recorded on one CUDA.*1 × cpu"):
        training_parts(config)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("strategy", ["gpu", "fsdp"])
def test_a_gpu_that_is_not_there_is_told(strategy: str) -> None:
    with pytest.raises(UserError, match=r"^strategy.accelerator=gpu: torch finds no GPU here: strategy=cpu"):
        training_parts(composed("train", [f"strategy={strategy}"]))


@pytest.mark.parametrize(("device", "processes", "batches"), [("cpu", 1, 1), ("cuda:0", 2, 1), ("cuda:0", 1, 2)])
def test_steps_are_recorded_on_one_gpu_that_takes_one_for_every_batch(
    device: str, processes: int, batches: int
) -> None:
    strategy = SimpleNamespace(root_device=torch.device(device))
    trainer = SimpleNamespace(strategy=strategy, world_size=processes, accumulate_grad_batches=batches)
    for recorded in (False, True):
        config = OmegaConf.create({"strategy": {"cuda_graph": recorded}})
        with pytest.raises(ConfigError, match=rf"{processes} × {device}") if recorded else nullcontext():
            check_cuda_graph(config, trainer)


@pytest.mark.gpu
@pytest.mark.parametrize("prior", ["factorized", "hyperprior", "channel_context"])
def test_recorded_steps_teach_what_steps_teach(prior: str, tmp_path: Path) -> None:
    losses = []
    for recorded, name in (("false", "as_it_is"), ("true", "recorded")):
        options = (f"prior={prior}", "quantization.noise=straight_through", "strategy.precision=32-true")
        run_python(TRAIN, *STEPS, *options, f"strategy.cuda_graph={recorded}", f"name={name}", cwd=tmp_path)
        with (folder_of(tmp_path / "runs", name) / "metrics/version_0/metrics.csv").open() as file:
            losses.append([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])
    assert len(losses[0]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1][0] != losses[1][-1]


@pytest.mark.gpu
def test_what_cannot_be_recorded_is_told(tmp_path: Path) -> None:
    others = (option for option in STEPS if not option.startswith("model."))
    options = ("model=comcnn_reccnn", "model.layers=4", "strategy.cuda_graph=true")
    stopped = run_python(TRAIN, *others, *options, cwd=tmp_path, check=False)
    assert "strategy.cuda_graph=true: a step of this codec cannot be recorded" in stopped.stderr
