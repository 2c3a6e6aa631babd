"""How long a training is: more epochs for a finished one, rare validations, none at all."""

import csv
import json
import re
import signal
from pathlib import Path

import pytest
import torch
from conftest import crop, folder_of, run_python, start_script, wait_for
from sweeping import TINY, TRAIN

from codec.checkpoint import load_codec

# Two steps an epoch.
SMALL = (*(o for o in TINY if o not in ("epochs=1", "~callbacks.progress")), "trainer.log_every_n_steps=1")


def test_more_epochs_go_on_with_a_finished_training_at_the_rates_of_the_longer_one(tmp_path: Path) -> None:
    command = (TRAIN, *SMALL, "epochs=2", "name=more", "scheduler=cosine", "test=true")
    assert "training in" in run_python(*command, cwd=tmp_path).stdout
    longer = run_python(*command, "more_epochs=2", cwd=tmp_path).stdout
    assert "resuming in" in longer
    assert "epoch 3 of 4, step 1 of 2: loss " in longer
    assert "FLOPs" not in longer
    run = folder_of(tmp_path / "runs", "more")
    rates = {}
    for version in (0, 1):
        with (run / f"metrics/version_{version}/metrics.csv").open() as file:
            rates |= {int(row["epoch"]): float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]}
    assert rates == pytest.approx({0: 1e-3, 1: 5.05e-4, 2: 5.05e-4, 3: 1.55e-4}, rel=1e-2)  # halves of 2, then of 4
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (3, 8)
    assert (checkpoint["lr_schedulers"][0]["T_max"], checkpoint["lr_schedulers"][0]["last_epoch"]) == (4, 4)
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert json.loads((run / "results.json").read_text())["val_loss"] == best["val_loss"]
    for again in ((), ("more_epochs=2",), ("more_epochs=1",)):
        assert "more_epochs=3 goes on" in run_python(*command, *again, cwd=tmp_path).stdout


def test_a_longer_training_that_is_cut_off_costs_the_finished_one_nothing(tmp_path: Path) -> None:
    command = (TRAIN, *SMALL, "epochs=1", "test=true", "name=cut")
    run_python(*command, cwd=tmp_path)
    run = folder_of(tmp_path / "runs", "cut")
    results = (run / "results.json").read_text()
    process = start_script(*command, "more_epochs=400", cwd=tmp_path, log=tmp_path / "log")
    wait_for(lambda: epochs_in(run / "checkpoints/last.ckpt") > 2, process, tmp_path / "log")
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert (run / "results.json").read_text() == results
    assert "is done" in run_python(*command, cwd=tmp_path).stdout
    refused = run_python(*command, "more_epochs=2", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: more_epochs=2: this training was cut off on its way to more_epochs=400, which goes on\n"
    )


def test_files_of_finished_weights_are_decoded_after_a_longer_training_and_a_new_one(
    tmp_path: Path, photograph: torch.Tensor
) -> None:
    command, image = (TRAIN, *SMALL, "epochs=1", "name=kept"), crop(photograph, 32, 32)
    run_python(*command, "test=false", cwd=tmp_path)
    run = folder_of(tmp_path / "runs", "kept")
    assert "finished weights" not in run_python(*command, cwd=tmp_path).stdout  # which stay: they are measured
    for further in (("more_epochs=1",), ("more_epochs=2", "test=false"), ("resume=false", "test=false")):
        data = load_codec(run).encode(image)
        said = run_python(*command, *further, cwd=tmp_path).stdout
        (kept,) = re.findall(r"are decoded with --checkpoint (\S+)\n", said)
        assert load_codec(tmp_path / kept).decode(data).shape == image.shape


def epochs_in(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["epoch"] + 1


def test_more_epochs_of_what_something_else_ended_are_refused(tmp_path: Path) -> None:
    steps = run_python(TRAIN, *SMALL, "trainer.max_steps=3", "more_epochs=2", cwd=tmp_path, check=False)
    assert steps.stderr == "error: more_epochs=2: trainer.max_steps=3 ends this training\n"
    limited = (TRAIN, *SMALL, "epochs=100000", "trainer.max_time='00:00:00:02'", "test=true", "name=limited")
    run_python(*limited, cwd=tmp_path)
    refused = run_python(*limited, "more_epochs=2", cwd=tmp_path, check=False)
    assert refused.stderr.startswith("error: more_epochs=2: the training was stopped by max_time after ")


def test_a_plateau_is_looked_for_where_there_is_a_validation(tmp_path: Path) -> None:
    rare = ("epochs=5", "trainer.check_val_every_n_epoch=2", "scheduler=plateau", "scheduler.patience=0")
    run_python(TRAIN, *SMALL, *rare, "name=rare", "optimizer.lr=1e-12", cwd=tmp_path)
    checkpoint = torch.load(folder_of(tmp_path / "runs", "rare") / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["lr_schedulers"][0]["last_epoch"] == 2
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.5e-12)


def test_without_validation_the_last_weights_are_kept(tmp_path: Path) -> None:
    done = run_python(TRAIN, *SMALL, "epochs=1", "trainer.limit_val_batches=0", "name=blind", cwd=tmp_path)
    assert "no epoch is validated: the last weights are kept instead of the best" in done.stdout
    run = folder_of(tmp_path / "runs", "blind")
    assert [file.name for file in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert load_codec(run).model_config["_target_"].endswith("ConvBaseline")
