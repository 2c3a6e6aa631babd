"""From the points of a sweep to its jobs: what each runs, where, on what, and whether it has to."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, composed
from sweeping import EVALUATE, TRAIN, planned

from codec.sweeps.plan import gpus_wanted
from codec.sweeps.record import Sweep


def finish(run: Path, results: str = '{"val_loss": 0.25}') -> None:
    run.mkdir()
    (run / "results.json").write_text(results)


@pytest.mark.parametrize(
    ("overrides", "present", "wanted"),
    [
        ([], 0, 0),
        ([], 2, 1),
        (["strategy=gpu"], 0, 1),
        (["strategy=gpu", "strategy.devices=2"], 1, 2),
        (["strategy=ddp"], 4, 4),
        (["strategy=ddp", "strategy.devices=-1"], 4, 4),
        (["strategy=ddp", "strategy.devices='2'"], 4, 2),
        (["strategy=ddp", "strategy.devices=[1,3]"], 4, 4),
        (["strategy=ddp", "strategy.devices=2", "strategy.accelerator=cpu"], 4, 0),
        (["strategy=cpu"], 4, 0),
    ],
)
def test_a_training_wants_the_gpus_that_lightning_would_take(overrides: list, present: int, wanted: int) -> None:
    assert gpus_wanted(composed("train", overrides), present) == wanted


@pytest.mark.parametrize(
    ("device", "present", "wanted"),
    [("auto", 0, 0), ("auto", 2, 1), ("cpu", 2, 0), ("cuda", 2, 1), ("cuda:1", 2, 2), ("mps", 0, 0)],
)
def test_an_evaluation_wants_a_gpu_where_it_measures_on_one(device: str, present: int, wanted: int) -> None:
    assert gpus_wanted(composed("evaluate", [f"device={device}"]), present) == wanted


def test_a_point_that_is_done_has_its_value(tmp_path: Path) -> None:
    job, _ = planned(tmp_path)
    assert (job.done, job.value) == (False, None)
    finish(job.run.path)
    job, _ = planned(tmp_path)
    assert (job.done, job.value, job.failure) == (True, 0.25, None)


def test_a_point_whose_results_cannot_be_read_has_failed_and_says_where(tmp_path: Path) -> None:
    job, _ = planned(tmp_path)
    finish(job.run.path, results="{")
    job, _ = planned(tmp_path)
    assert job.value is None
    assert str(job.failure).startswith(f"job 0 failed: {job.run.path}/results.json is damaged: Expecting ")


def test_of_points_that_share_a_folder_one_is_run(tmp_path: Path) -> None:
    first, _ = planned(tmp_path, "data.num_workers=2")
    other, _ = planned(tmp_path, "seed=1", others=[first])
    same, _ = planned(tmp_path, "data.num_workers=8", others=[first, other])
    assert (first.same_as, other.same_as, same.same_as) == (None, None, first)


def test_what_cannot_be_resolved_has_failed_in_a_line(tmp_path: Path) -> None:
    job, _ = planned(tmp_path, "name=a/b")
    assert job.record.folder is None
    assert job.record.error.startswith("name=a/b: allowed are letters")


def test_a_job_is_told_what_the_sweep_was_but_not_what_is_the_sweeps_own(tmp_path: Path) -> None:
    sweeps = ("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "~hydra.launcher.poll_s", "hydra.sweep.dir=x")
    further = "+hydra.launcher.additional_parameters.reservation=night"
    job, _ = planned(tmp_path, *sweeps, further, "++hydra.mode=MULTIRUN", "hydra.verbose=false", "seed=1")
    assert job.command[1:] == [str(TRAIN), "hydra.verbose=false", f"runs={tmp_path}", "seed=1"]


def test_a_job_reads_the_configs_that_the_sweep_was_told_to_read(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    job, _ = planned(tmp_path, "model=png", "data=samples", script=EVALUATE, conf=tmp_path / "conf")
    assert job.command[2:4] == ["--config-path", str(tmp_path / "conf")]


def test_a_record_names_its_folders_and_logs_from_wherever_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    sweep = Sweep.begin("runs/sweeps/a", "train.py", "local")
    sweep.add(0, [], "runs/b-0")
    sweep.add(1, [], None)
    assert Sweep.read("runs/sweeps/a") == sweep
    monkeypatch.chdir(there)
    first, second = Sweep.read("../here/runs/sweeps/a").jobs
    assert (first.folder, first.log) == ("../here/runs/b-0", "../here/runs/sweeps/a/0.log")
    assert second.folder is None


def test_a_record_begun_at_a_later_job_keeps_the_ones_before(tmp_path: Path) -> None:
    for first, kept in ((0, []), (1, [0]), (1, [0]), (2, [0, 1])):
        sweep = Sweep.begin(tmp_path, "train.py", "local", first)
        assert [job.number for job in sweep.jobs] == kept
        sweep.add(first, [], None)
    assert [job["number"] for job in json.loads((tmp_path / "sweep.json").read_text())["jobs"]] == [0, 1, 2]


def test_jobs_are_named_by_what_the_sweep_varies(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "python train.py -m model=a,b epochs=3 hydra.launcher.n_jobs=1,2", "", "")
    assert sweep.what_differs(["model=b", "epochs=3"]) == "model=b"
    assert sweep.what_differs(["epochs=3", "seed=1"]) == "epochs=3 seed=1"
