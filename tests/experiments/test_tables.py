"""Tables are made of real runs and real files, once; what changed, and only that, is made again."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, wait_for
from tiny_plan import PLAN, only_tiny

from codec import pretrained
from codec.training.run_state import RunState
from experiments.compose import composed
from experiments.points import read_points
from experiments.release.export import export
from experiments.tables import make
from experiments.tables.pages import JPEG_BORN_NOTE
from experiments.tables.plan import read_plan
from experiments.tables.report import made_with

ONE_EVALUATION = "evaluations:\n  - {codec: tiny, run: first, data: [samples]}\nclaims: {}\n"


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_tiny(tmp_path, monkeypatch)


def count_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is trained and measured from now on."""
    done: list[str] = []
    train, measure = make.train, make.measuring.evaluate
    monkeypatch.setattr(make, "train", lambda training: (done.append(training.name), train(training)))
    monkeypatch.setattr(make.measuring, "evaluate", lambda config: (done.append(config.name), measure(config))[1])
    return done


def test_a_table_is_made_once_and_what_is_missing_or_changed_is_made_again(
    plans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = count_work(monkeypatch)
    assert make.main(["tiny"]) == 0
    qualities = [f"jpeg_quality-{quality}_samples" for quality in (2, 20, 90)]
    assert done == ["first", "second", "tiny_small_samples", "tiny_smaller_samples", *qualities, "png_samples"]

    page = (plans.parent / "results/tiny.md").read_text()
    points = read_points(plans.parent / "results/points.csv")
    assert made_with(page) == ("small", 1)
    assert len(points) == 6
    (tiny,) = [row for row in points if row["setting"] == "small"]
    assert f"| PSNR (dB) | < 99 | {tiny['psnr']:.2f} | reached | tiny small, samples | page 3 |" in page
    assert f"| SSIM | 0.5 | {tiny['ssim']:.4f} | {tiny['ssim'] - 0.5:+.4f} |" in page
    assert "| page 4 | grey |" in page
    assert "| MS-SSIM | 0.9 | – | – | nothing measured |" in page
    assert "Loses to jpeg in PSNR: tiny at 2 of 2 rates, worst -" in page
    assert "Loses to jpeg in MS-SSIM: tiny at 2 of 2 rates, worst -" in page
    assert "\n- JPEG is only here to be beaten.\n" in page
    assert JPEG_BORN_NOTE not in page
    assert "python train.py name=first" in page
    assert tiny["train_minutes"] >= 0
    assert tiny["images"] == 2
    with (plans.parent / "results/tiny.csv").open() as file:
        assert float(next(csv.DictReader(file))["psnr"]) == pytest.approx(tiny["psnr"], abs=1e-3)
    assert (plans.parent / "results/tiny_samples.png").is_file()

    done.clear()
    before = (plans.parent / "results/tiny.md").stat().st_mtime_ns
    assert make.main(["tiny"]) == 0
    assert done == []
    assert (plans.parent / "results/tiny.md").stat().st_mtime_ns == before

    (lost,) = (plans.parent / "runs").glob("jpeg_quality-20_samples-*/results.json")
    lost.unlink()
    assert make.main(["tiny"]) == 0
    assert done == ["jpeg_quality-20_samples"]

    done.clear()
    (plans / "tiny.yaml").write_text(PLAN.replace("loss.rate_weight=0.002", "loss.rate_weight=0.003"))
    assert make.main(["tiny"]) == 0
    assert done == ["second", "tiny_smaller_samples"]
    assert len(read_points(plans.parent / "results/points.csv")) == 6


def test_a_change_reaches_all_that_starts_from_it(plans: Path) -> None:
    first, second = (training.folder for training in read_plan("tiny", "small").trainings)
    (plans / "tiny.yaml").write_text(PLAN.replace("loss.rate_weight=0.001", "loss.rate_weight=0.005"))
    changed = [training.folder for training in read_plan("tiny", "small").trainings]
    assert changed[0] != first
    assert changed[1] != second


def test_weights_that_are_newer_than_the_results_are_measured_again(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plans / "tiny.yaml").write_text(PLAN.partition("  second:")[0] + ONE_EVALUATION)
    make.main(["tiny"])
    done = count_work(monkeypatch)
    (weights,) = (plans.parent / "runs").glob("first-*/checkpoints/best.ckpt")
    weights.touch()
    make.main(["tiny"])
    assert done == ["tiny_samples"]


def test_smoke_lies_apart_and_says_what_it_is(plans: Path) -> None:
    assert make.main(["all", "--budget", "smoke"]) == 0
    assert not (plans.parent / "results/tiny.md").exists()
    page = (plans.parent / "results/smoke/tiny.md").read_text()
    assert made_with(page) == ("smoke", 1)
    assert "its figures mean nothing" in page


@pytest.mark.parametrize("with_which", ["BUDGET=paper SEEDS=1", "BUDGET=small SEEDS=3"])
def test_a_lesser_table_does_not_replace_a_better_one(
    plans: Path, with_which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plans.parent / "results"
    folder.mkdir()
    budget = with_which.split()[0].removeprefix("BUDGET=")
    (folder / "tiny.md").write_text(
        f"# Tiny\n\nBudget `{budget}` (long), 2026-01-01: `make table-tiny {with_which}`.\n"
    )
    assert make.main(["tiny"]) == 0
    assert f"made with {with_which}; delete it to make a lesser one" in capsys.readouterr().out
    assert not (plans.parent / "runs").exists()


def test_a_training_that_fails_is_one_line_with_its_command(plans: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (plans / "tiny.yaml").write_text(PLAN.replace("epochs=1", "epochs=0"))
    assert make.main(["tiny"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-2] == "error: epochs=0: allowed are the integers from 1"
    assert said[-1].startswith("error: tiny: training first ended with status 2")
    assert "python train.py name=first" in said[-1]


def test_unknown_tables_and_budgets_are_named(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make.main(["nothing"]) == 2
    assert "table=nothing: allowed are tiny" in capsys.readouterr().err
    assert make.main(["tiny", "--budget", "huge"]) == 2
    assert "BUDGET=huge: allowed are smoke, small, paper" in capsys.readouterr().err


def test_weights_that_come_with_the_package_are_measured_and_not_trained_again(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", plans.parent)
    (plans / "tiny.yaml").write_text(PLAN.partition("  - {codec: jpeg")[0] + "claims: {}\n")
    first, second = read_plan("tiny", "small").trainings
    make.train(first)
    make.train(second)
    export(second.folder, "second", data=["samples"], golden=plans.parent / "golden")
    shutil.rmtree(plans.parent / "runs")

    done = count_work(monkeypatch)
    assert make.main(["tiny"]) == 0
    assert done == ["first", "tiny_small_samples", "tiny_smaller_samples"]
    page = (plans.parent / "results/tiny.md").read_text()
    assert "python evaluate.py pretrained=second data=samples" in page
    assert "(the package's weights `second`)" in page
    (plans.parent / "second.safetensors").touch()  # as an installation does
    (other,) = (plans.parent / "runs").glob("tiny_smaller_samples-*/results.json")
    results = json.loads(other.read_text())
    for weights, again in ((results["weights"], []), ("00000000", ["tiny_smaller_samples"])):
        other.write_text(json.dumps(results | {"weights": weights}))
        done.clear()
        assert make.main(["tiny"]) == 0
        assert done == again

    (plans / "tiny.yaml").write_text(
        (plans / "tiny.yaml").read_text().replace("rate_weight=0.002", "rate_weight=1")
    )
    (plans / "tiny.yaml").write_text(
        (plans / "tiny.yaml").read_text().replace("second: {", "second: {stand_in: second, ")
    )
    done.clear()
    assert make.main(["tiny"]) == 0
    assert done == []

    (plans / "tiny.yaml").write_text((plans / "tiny.yaml").read_text().replace("stand_in: second, ", ""))
    assert make.main(["tiny"]) == 0
    assert done == ["second", "tiny_smaller_samples"]


def test_a_figure_of_what_a_training_left_on_its_way_trains_it_though_its_weights_are_there(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", plans.parent)
    alone = PLAN.partition("  second:")[0] + ONE_EVALUATION
    (plans / "tiny.yaml").write_text(alone + "figures: {losses.png: {tool: losses, runs: [first], options: []}}\n")
    (first,) = read_plan("tiny", "small").trainings
    make.train(first)
    export(first.folder, "first", data=["samples"], golden=plans.parent / "golden")
    shutil.rmtree(plans.parent / "runs")
    done = count_work(monkeypatch)
    assert make.main(["tiny"]) == 0
    assert done == ["first", "tiny_samples"]
    assert (plans.parent / "results/tiny_losses.png").is_file()
    shutil.rmtree(plans.parent / "runs")
    done.clear()
    assert make.main(["tiny"]) == 0
    assert done == ["tiny_samples"]


@pytest.mark.parametrize("cut", [signal.SIGINT, signal.SIGTERM])
def test_a_table_that_is_interrupted_stops_its_training_which_keeps_what_it_has(
    plans: Path, cut: signal.Signals
) -> None:
    (plans / "tiny.yaml").write_text(PLAN.replace("epochs=1", "epochs=100000"))
    patched = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from experiments.tables import make, plan\n"
        f"plan.PLANS = Path({str(plans)!r}); plan.TABLES = make.TABLES = ['tiny']\n"
        f"make.RESULTS = Path({str(plans.parent / 'results')!r})\n"
        "from codec.training.faults import user_errors\n"
        "with user_errors(): sys.exit(make.main(['tiny']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", patched], cwd=plans.parent, env=environment) as process:
        (last,) = wait_for(lambda: list(plans.parent.glob("runs/first-*/checkpoints/last.ckpt")), process)
        process.send_signal(cut)
        assert process.wait(60) == 130
    assert RunState.read(last.parents[1]).state == "cut off"


def test_images_that_are_not_there_are_told_of_before_anything_is_trained(
    plans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUINTET_DATA", str(plans / "nowhere"))
    monkeypatch.delenv("QUINTET_DOWNLOAD", raising=False)
    (plans / "tiny.yaml").write_text(
        PLAN.replace("[data=samples, data.limit=2, data.eval_crop=192]", "[data=kodak]")
    )
    done = count_work(monkeypatch)
    assert make.main(["tiny"]) == 2
    assert done == []
    assert "nowhere/kodak" in capsys.readouterr().err


def test_data_sets_are_fetched_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, downloads in (("true", True), ("false", False)):
        monkeypatch.setenv("QUINTET_DOWNLOAD", said)
        for option in ("kodak", "bsd300"):
            with composed("evaluate", ["model=jpeg", f"data={option}"]) as config:
                assert config.data.test.download is downloads
