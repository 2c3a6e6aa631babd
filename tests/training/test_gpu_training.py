"""Trainings on a GPU, and one there that a CPU has begun."""

import csv
import json
from pathlib import Path

import pytest
import torch
from conftest import folder_of, run_python
from sweeping import TINY, TRAIN

pytestmark = pytest.mark.gpu
STEPS = (
    *(option for option in TINY if option not in ("test=false", "strategy.accelerator=cpu")),
    *("trainer.log_every_n_steps=1", "trainer.limit_test_batches=1", "callbacks=ema"),
)
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


def results_of(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def losses_of(run: Path) -> list[float]:
    """Of every step, those after a resume too, which Lightning logs as another version."""
    rows = []
    for path in sorted(run.glob("metrics/version_*/metrics.csv")):
        with path.open() as file:
            rows += csv.DictReader(file)
    return [float(row["train/loss"]) for row in rows if row["train/loss"]]


@pytest.mark.parametrize("strategy", ["gpu", "ddp", "fsdp"])  # the last two on all GPUs that there are
def test_steps_in_bfloat16_teach_weights_that_are_measured_there(strategy: str, tmp_path: Path) -> None:
    options = (f"strategy={strategy}", "strategy.accelerator=gpu", "strategy.precision=bf16-mixed", "name=one")
    run_python(TRAIN, *STEPS, *options, cwd=tmp_path)
    run = folder_of(tmp_path / "runs", "one")
    results = results_of(run)
    assert (results["precision"], results["hardware"]) == ("bf16-mixed", torch.cuda.get_device_name())
    assert results["images"] == 1
    checkpoint = torch.load(run / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)
    assert checkpoint["global_step"] == len(losses_of(run)) >= 1
    weights = [tensor for tensor in checkpoint["state_dict"].values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in weights)


def test_a_gpu_goes_on_with_what_a_cpu_has_begun(tmp_path: Path) -> None:
    losses = {}
    for second, environment in (("cpu", HIDDEN), ("gpu", {})):
        (folder := tmp_path / second).mkdir()
        # Rounding's noise would be another on each device.
        command = (TRAIN, *STEPS, "quantization.noise=straight_through", "name=moved")
        run_python(*command, cwd=folder, **HIDDEN)
        run = folder_of(folder / "runs", "moved")
        assert "thread" in results_of(run)["hardware"]
        assert "resuming in" in run_python(*command, "more_epochs=1", cwd=folder, **environment).stdout
        losses[second] = losses_of(run)
    assert (results_of(run)["hardware"], results_of(run)["epochs"]) == (torch.cuda.get_device_name(), 2)
    assert len(losses["gpu"]) == 4
    assert losses["gpu"] == pytest.approx(losses["cpu"], rel=0.02)
