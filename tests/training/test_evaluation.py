"""The end of a measurement: every logger is told, W&B has it all, and only then results.json says: done."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from lightning.pytorch.loggers import CSVLogger
from omegaconf import open_dict
from torch import Tensor
from wandb_files import read_back, run_without_key

from codec.baselines import Jpeg
from codec.sweeps.status import status_of
from codec.training.config import ConfigError
from codec.training.evaluation import choose_device, evaluate_into
from codec.training.measuring import evaluate
from codec.training.results import read_results
from codec.training.run_folder import evaluation_folder
from codec.training.run_state import RunState
from experiments.compose import composed

ONE_IMAGE = ("model=jpeg", "data=samples", "data.limit=1", "device=cpu")


class Refusing(CSVLogger):
    """Takes no numbers while there is a file `refuses` in the working folder, whose text says in which way."""

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        file = Path("refuses")
        if file.exists():
            raise {"interrupted": KeyboardInterrupt, "no room": ConfigError}[file.read_text()]("no")
        super().log_metrics(metrics, step)


class Interrupted(Jpeg):
    """Somebody presses Ctrl-C while it codes."""

    def encode(self, image: Tensor) -> bytes:
        raise KeyboardInterrupt


@pytest.mark.parametrize(("reason", "state"), [("interrupted", "cut off"), ("no room", "failed")])
def test_a_measurement_that_a_logger_did_not_take_is_not_done_and_is_made_again(
    reason: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("refuses").write_text(reason)
    logger = ("+logger.refusing._target_=test_evaluation.Refusing", "+logger.refusing.save_dir=${folder}")
    with composed("evaluate", [*ONE_IMAGE, "logger=none", *logger]) as config:
        run = evaluation_folder(config)
        with pytest.raises((KeyboardInterrupt, ConfigError)):
            evaluate(config)
        assert RunState.read(run.path).state == status_of("a", "", run.path).state == state
        assert not run.is_done(config)
        assert run.results is None
        Path("refuses").unlink()
        evaluate(config)
        assert RunState.read(run.path).state == status_of("a", "", run.path).state == "done"
        assert run.is_done(config)


def test_wandbs_run_has_all_and_is_finished_before_results_are_written(tmp_path: Path) -> None:
    with composed("evaluate", ONE_IMAGE) as config:
        run = tmp_path / evaluation_folder(config).path
    (run / "per_image.csv").mkdir(parents=True)  # which cannot be written then
    command = (ROOT / "evaluate.py", *ONE_IMAGE, "logger=wandb")
    process = run_without_key(*command, cwd=tmp_path)
    assert process.returncode == 2, process.stderr[-3000:]
    written = read_back(run)
    assert written.exit.exit_code == 0
    assert written.tables.keys() == {"test/images", "test/rate_distortion"}
    assert "test/psnr" in written.summary
    assert not (run / "results.json").exists()
    assert RunState.read(run).state == "failed"

    (run / "per_image.csv").rmdir()
    process = run_without_key(*command, cwd=tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    assert (run / "results.json").exists()
    assert f"W&B: offline; to upload it: wandb sync {run.relative_to(tmp_path)}/wandb" in process.stdout


def test_files_of_another_effort_are_not_taken_for_those_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    measured = {}
    for effort in (None, 0, 1):
        overrides = ("pretrained=diffusion_wavelet", *ONE_IMAGE[1:], "data.eval_crop=64", "logger=csv")
        given = ["quality=30.5", *([] if effort is None else [f"effort={effort}"])]
        with composed("evaluate", [*overrides, *given]) as config:
            assert not evaluation_folder(config).is_done(config)
            measured[effort] = evaluate(config)
            assert evaluation_folder(config).is_done(config)
            assert read_results(evaluation_folder(config).path / "results.json") == measured[effort]
    assert [results.get("effort") for results in measured.values()] == [None, 0, 1]
    assert measured[None]["bpp"] == measured[1]["bpp"] < measured[0]["bpp"]


def test_a_target_has_a_folder_and_a_quality_for_each_image_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders, measured = set(), []
    overrides = ("pretrained=diffusion_wavelet", "data=samples", "data.limit=2", "data.eval_crop=64", "device=cpu")
    for target in (0.6, 1.2):
        with composed("evaluate", [*overrides, f"target_bpp={target}"]) as config:
            measured.append(evaluate(config))
            folders.add(folder := evaluation_folder(config).path)
        rows = list(csv.DictReader((folder / "per_image.csv").read_text().splitlines()))
        assert all(float(row["bpp"]) <= target for row in rows)
        assert len({row["quality"] for row in rows}) == 2
        assert measured[-1]["target_bpp"] == target
        assert measured[-1]["quality"] == sum(float(row["quality"]) for row in rows) / 2
    assert len(folders) == 2
    assert measured[0]["quality"] < measured[1]["quality"]


def test_what_is_not_asked_for_changes_no_folders_name() -> None:
    with composed("evaluate", ONE_IMAGE) as config:
        plain = evaluation_folder(config).path
        with open_dict(config):
            del config["metrics"], config["target_bpp"]
        assert evaluation_folder(config).path == plain
    for asked in ("metrics=[psnr_y]", "target_bpp=0.5"):
        with composed("evaluate", [*ONE_IMAGE, asked]) as config:
            assert evaluation_folder(config).path != plain


def test_an_interrupt_while_it_codes_is_an_interrupt_and_not_a_failure(tmp_path: Path) -> None:
    with composed("evaluate", ONE_IMAGE) as config:
        data = instantiate(config.data, _convert_="all")
    with pytest.raises(KeyboardInterrupt):
        evaluate_into(tmp_path, Interrupted(quality=50), data, {})
    assert not (tmp_path / "results.json").exists()


def test_a_device_is_what_was_asked_for_or_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="^device=cuda:99: torch finds no such device here$"):
        choose_device("cuda:99")
    with pytest.raises(ConfigError, match="^device=tpu: allowed are auto, cpu, cuda, cuda:N, mps$"):
        choose_device("tpu")
