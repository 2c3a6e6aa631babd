"""Tables are made of real runs and real files, once; what changed, and only that, is made again."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codec import pretrained
from codec.run_state import RunState
from experiments import plan as planning
from experiments import report, tables
from experiments.compose import composed
from experiments.export import export
from experiments.pages import JPEG_BORN_NOTE
from experiments.plan import Evaluation, Training, read_plan
from experiments.points import curves_of, read_points, record
from experiments.report import Measured, made_with

TRAINING = (
    'model=conv_baseline, "model.widths=[4,4]", model.latent_channels=2, "prior.filters=[2]", data=samples, '
    "data.crop_size=32, data.num_workers=0, data.limit=3, epochs=1, trainer.limit_train_batches=1, "
    "trainer.limit_test_batches=1, logger=csv"
)
PLAN = f"""
title: Tiny
source: A paper about nothing
datasets: {{samples: [data=samples, data.limit=2, data.eval_crop=192]}}
trainings:
  first: {{small: [name=first, loss.rate_weight=0.001, {TRAINING}]}}
  second: {{start_from: first, small: [name=second, loss.rate_weight=0.002, {TRAINING}]}}
evaluations:
  - {{codec: tiny, setting: small, run: first, data: [samples]}}
  - {{codec: tiny, setting: smaller, run: second, data: [samples]}}
  - {{codec: jpeg, model: jpeg, sweep: {{model.quality: [2, 5, 20, 60, 90]}}, data: [samples]}}
  - {{codec: png, model: png, data: [samples]}}
anchor: jpeg
notes: [JPEG is only here to be beaten.]
claims:
  PSNR (dB): [{{codec: tiny, setting: small, dataset: samples, column: psnr}}]
  SSIM: [{{codec: tiny, setting: small, dataset: samples, column: ssim}}]
  MS-SSIM: [{{codec: elsewhere, dataset: samples, column: ms_ssim}}]
"""
FIGURES = (
    "table,figure,relation,value,source,remark\ntiny,PSNR (dB),<,99,page 3,\ntiny,SSIM,=,0.5,page 4,grey\n"
    "tiny,MS-SSIM,=,0.9,page 5,\n"
)


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan `tiny`, the only one, whose runs and results lie in a folder of their own."""
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(PLAN)
    (folder / "budgets.yaml").write_text((planning.PLANS / "budgets.yaml").read_text())
    (tmp_path / "figures.csv").write_text(FIGURES)
    for module in (planning, tables):
        monkeypatch.setattr(module, "TABLES", ["tiny"])
    monkeypatch.setattr(planning, "PLANS", folder)
    monkeypatch.setattr(report, "PAPER_FIGURES", tmp_path / "figures.csv")
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return folder


def count_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is trained and measured from now on."""
    done: list[str] = []
    train, measure = tables.train, tables.evaluate.evaluate
    monkeypatch.setattr(tables, "train", lambda training: (done.append(training.name), train(training)))
    monkeypatch.setattr(tables.evaluate, "evaluate", lambda config: (done.append(config.name), measure(config))[1])
    return done


def test_a_table_is_made_once_and_what_is_missing_or_changed_is_made_again(
    plans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = count_work(monkeypatch)
    assert tables.main(["tiny"]) == 0
    qualities = [f"jpeg_quality-{quality}_samples" for quality in (2, 5, 20, 60, 90)]
    assert done == ["first", "second", "tiny_small_samples", "tiny_smaller_samples", *qualities, "png_samples"]

    page = (plans.parent / "results/tiny.md").read_text()
    points = read_points(plans.parent / "results/points.csv")
    assert made_with(page) == ("small", 1)
    assert len(points) == 8
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
    assert tables.main(["tiny"]) == 0
    assert done == []
    assert (plans.parent / "results/tiny.md").stat().st_mtime_ns == before

    (lost,) = (plans.parent / "runs").glob("jpeg_quality-20_samples-*/results.json")
    lost.unlink()
    assert tables.main(["tiny"]) == 0
    assert done == ["jpeg_quality-20_samples"]

    done.clear()
    (plans / "tiny.yaml").write_text(PLAN.replace("loss.rate_weight=0.002", "loss.rate_weight=0.003"))
    assert tables.main(["tiny"]) == 0
    assert done == ["second", "tiny_smaller_samples"]
    assert len(read_points(plans.parent / "results/points.csv")) == 8


def test_a_change_reaches_all_that_starts_from_it(plans: Path) -> None:
    first, second = (training.folder for training in read_plan("tiny", "small").trainings)
    (plans / "tiny.yaml").write_text(PLAN.replace("loss.rate_weight=0.001", "loss.rate_weight=0.005"))
    changed = [training.folder for training in read_plan("tiny", "small").trainings]
    assert changed[0] != first
    assert changed[1] != second


def test_weights_that_are_newer_than_the_results_are_measured_again(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plans / "tiny.yaml").write_text(
        PLAN.replace("  - {codec: tiny, setting: smaller, run: second, data: [samples]}\n", "")
    )
    tables.main(["tiny"])
    done = count_work(monkeypatch)
    (weights,) = (plans.parent / "runs").glob("first-*/checkpoints/best.ckpt")
    weights.touch()
    tables.main(["tiny"])
    assert done == ["tiny_small_samples"]


def test_smoke_lies_apart_and_says_what_it_is(plans: Path) -> None:
    assert tables.main(["all", "--budget", "smoke"]) == 0
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
    assert tables.main(["tiny"]) == 0
    assert f"made with {with_which}; delete it to make a lesser one" in capsys.readouterr().out
    assert not (plans.parent / "runs").exists()


def test_a_training_that_fails_is_one_line_with_its_command(plans: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (plans / "tiny.yaml").write_text(PLAN.replace("epochs=1", "epochs=0"))
    assert tables.main(["tiny"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert said[-2] == "error: epochs=0: allowed are the integers from 1"
    assert said[-1].startswith("error: tiny: training first ended with status 2")
    assert "python train.py name=first" in said[-1]


def test_unknown_tables_and_budgets_are_named(plans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["nothing"]) == 2
    assert "table=nothing: allowed are tiny" in capsys.readouterr().err
    assert tables.main(["tiny", "--budget", "huge"]) == 2
    assert "BUDGET=huge: allowed are smoke, small, paper" in capsys.readouterr().err


def row(
    codec: str, bpp: float, psnr: float, seed: int | None = None, dataset: str = "samples", **more: float | str
) -> Measured:
    training = None if seed is None else Training("x", ("model=conv_baseline",), seed)
    results = {"bpp": bpp, "bpsp": bpp / 3, "psnr": psnr, "images": 2, "ratio": 24 / bpp}
    results |= {"hardware": "a machine", "commit": "abc1234", **more}
    setting = "" if seed is not None else f"at {bpp}"
    return Measured(Evaluation(codec, setting, dataset, training, ()), results)


def test_seeds_become_mean_and_spread(plans: Path) -> None:
    rows = [
        row("ours", bpp, psnr, seed) for seed, (bpp, psnr) in enumerate([(0.5, 30.0), (0.5, 31.0), (0.5, 32.0)])
    ]
    page = report.as_markdown(replace(read_plan("tiny", "small"), anchor=None), rows, [])
    assert "31.00 ± 1.00" in page
    assert "0.5000 ± 0.0000" in page
    assert [row.point["setting"] for row in rows] == ["", "seed 1", "seed 2"]


def test_the_distance_to_the_anchor_is_taken_at_equal_rate(plans: Path) -> None:
    plan = read_plan("tiny", "small")
    anchor = [row("jpeg", 0.25 * 2**n, 26.0 + 3 * n) for n in range(4)]  # straight over log bpp
    above, below, outside = row("ours", 0.5, 30.0), row("ours", math.sqrt(0.5), 30.0), row("ours", 9.0, 50.0)
    wasteful, thrifty = row("ours", 8.0, 30.0), row("ours", 0.1, 10.0)
    rows = [*anchor, above, below, outside, wasteful, thrifty]
    gains = [report._above_anchor(plan, rows, each, "psnr") for each in (above, below, wasteful)]
    assert gains == pytest.approx([1.0, -0.5, -5.0], abs=0.01)
    assert [report._above_anchor(plan, rows, each, "psnr") for each in (outside, thrifty, anchor[0])] == [None] * 3
    page = report.as_markdown(plan, rows, [])
    assert "+1.00" in page
    assert "Loses to jpeg in PSNR: ours at 2 of 3 rates, worst -5.00 dB." in page
    assert "in MS-SSIM" not in page  # it is not known


def test_a_codec_that_wins_in_psnr_and_loses_in_ms_ssim_is_said_to_lose(plans: Path) -> None:
    anchor = [row("jpeg", 0.25 * 2**n, 26.0 + 3 * n, ms_ssim=1 - 10 ** -(1 + 0.3 * n)) for n in range(4)]
    ours = row("ours", 0.5, 30.0, ms_ssim=1 - 10**-1.25)
    page = report.as_markdown(read_plan("tiny", "small"), [*anchor, ours], [])
    assert "Loses to jpeg in MS-SSIM: ours at 1 of 1 rates, worst -0.50 dB." in page
    assert "in PSNR" not in page


def test_a_commit_is_named_once_and_jpeg_born_images_are_told_of(plans: Path) -> None:
    plan = replace(read_plan("tiny", "small"), anchor=None)
    rows = [
        row("ours", n, 30.0, dataset="bsd300_256", commit=commit)
        for n, commit in enumerate(("a+changes", "b", "a", "c+changes"), 1)
    ]
    page = report.as_markdown(plan, rows, [])
    assert "measured at commit b, a, c+changes (" in page
    assert JPEG_BORN_NOTE in page
    resized = row("ours", 1.0, 30.0, dataset="bsd300_grey180")
    assert JPEG_BORN_NOTE not in report.as_markdown(plan, [resized], [])


def test_a_training_is_told_by_its_minutes_or_what_its_weights_say_and_by_its_commit(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training("x", (), 0)
    training.__dict__["folder"] = plans / "nowhere"
    (weights, *_) = pretrained.pretrained_models()[0].weights
    of = {"minutes": 12, "time": "12 minutes on it", "hardware": "a machine", "commit": "abc1234"}
    for known, said in [
        (of, "x 12 min on a machine at commit abc1234 ("),
        ({**of, "minutes": None, "commit": "unknown"}, "x 12 minutes on it ("),
    ]:
        monkeypatch.setattr(Training, "weights", replace(weights, training=known))
        assert report._trained(training).startswith(said)
    monkeypatch.setattr(Training, "weights", None)
    assert report._trained(training) == "x in unknown time on unknown hardware"


def test_seeds_lose_by_their_mean_and_are_one_point_of_a_curve(plans: Path) -> None:
    plan = read_plan("tiny", "small")
    anchor = [row("jpeg", 0.25 * 2**n, 26.0 + 3 * n) for n in range(4)]
    seeds = [row("ours", 0.5, psnr, seed) for seed, psnr in enumerate((30.0, 28.0, 28.0))]
    page = report.as_markdown(plan, [*anchor, *seeds], [])
    assert "Loses to jpeg in PSNR: ours at 1 of 1 rates, worst -0.33 dB." in page
    (mean,) = curves_of([each.point for each in seeds], "samples")["ours"]
    assert mean["psnr"] == pytest.approx(86 / 3)
    assert mean["setting"] == ""


def test_a_lossless_codec_is_shown_as_such(plans: Path) -> None:
    page = report.as_markdown(replace(read_plan("tiny", "small"), anchor=None), [row("png", 9.0, math.inf)], [])
    assert "lossless" in page
    assert "| 3.0000 |" in page


def test_points_without_a_setting_are_read_and_written_again(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    png, jpeg = row("png", 9.0, math.inf).point | {"setting": ""}, row("jpeg", 1.0, 30.0).point
    for points in ([png], [jpeg], [png]):
        record(points, file)
    assert [(each["codec"], each["setting"]) for each in read_points(file)] == [("jpeg", "at 1.0"), ("png", "")]
    assert read_points(file)[1]["psnr"] == math.inf


def test_minutes_of_training_count_those_of_what_it_started_from(plans: Path) -> None:
    first = Training("first", (), 0)
    second = Training("second", (), 0, first)
    for training, minutes in ((first, 5.0), (second, 2.5)):
        training.__dict__["folder"] = plans.parent / training.name
        training.folder.mkdir()
        (training.folder / "results.json").write_text(json.dumps({"train_minutes": minutes}))
    assert replace(row("ours", 1.0, 30.0), evaluation=Evaluation("ours", "", "samples", second, ())).minutes == 7.5
    assert row("ours", 1.0, 30.0).minutes == 0.0


def test_weights_that_come_with_the_package_are_measured_and_not_trained_again(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", plans.parent)
    (plans / "tiny.yaml").write_text(PLAN.partition("anchor:")[0] + "claims: {}\n")
    first, second = read_plan("tiny", "small").trainings
    tables.train(first)
    tables.train(second)
    export(second.folder, "second", data=["samples"], golden=plans.parent / "golden")
    shutil.rmtree(plans.parent / "runs")

    done = count_work(monkeypatch)
    assert tables.main(["tiny"]) == 0
    assert done[:3] == ["first", "tiny_small_samples", "tiny_smaller_samples"]
    page = (plans.parent / "results/tiny.md").read_text()
    assert "python evaluate.py pretrained=second data=samples" in page
    assert "(the package's weights `second`)" in page
    (plans.parent / "second.safetensors").touch()  # as an installation does
    (other,) = (plans.parent / "runs").glob("tiny_smaller_samples-*/results.json")
    results = json.loads(other.read_text())
    for weights, again in ((results["weights"], []), ("00000000", ["tiny_smaller_samples"])):
        other.write_text(json.dumps(results | {"weights": weights}))
        done.clear()
        assert tables.main(["tiny"]) == 0
        assert done == again

    (plans / "tiny.yaml").write_text(
        (plans / "tiny.yaml").read_text().replace("rate_weight=0.002", "rate_weight=1")
    )
    (plans / "tiny.yaml").write_text(
        (plans / "tiny.yaml").read_text().replace("second: {", "second: {stand_in: second, ")
    )
    done.clear()
    assert tables.main(["tiny"]) == 0
    assert done == []

    (plans / "tiny.yaml").write_text((plans / "tiny.yaml").read_text().replace("stand_in: second, ", ""))
    assert tables.main(["tiny"]) == 0
    assert done == ["second", "tiny_smaller_samples"]


def test_a_figure_of_what_a_training_left_on_its_way_trains_it_though_its_weights_are_there(
    plans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", plans.parent)
    alone = (
        PLAN.partition("  second:")[0]
        + "evaluations:\n  - {codec: tiny, run: first, data: [samples]}\nclaims: {}\n"
    )
    (plans / "tiny.yaml").write_text(alone + "figures: {losses.png: {tool: losses, runs: [first], options: []}}\n")
    (first,) = read_plan("tiny", "small").trainings
    tables.train(first)
    export(first.folder, "first", data=["samples"], golden=plans.parent / "golden")
    shutil.rmtree(plans.parent / "runs")
    done = count_work(monkeypatch)
    assert tables.main(["tiny"]) == 0
    assert done == ["first", "tiny_samples"]
    assert (plans.parent / "results/tiny_losses.png").is_file()
    shutil.rmtree(plans.parent / "runs")
    done.clear()
    assert tables.main(["tiny"]) == 0
    assert done == ["tiny_samples"]


@pytest.mark.parametrize("cut", [signal.SIGINT, signal.SIGTERM])
def test_a_table_that_is_interrupted_stops_its_training_which_keeps_what_it_has(
    plans: Path, cut: signal.Signals
) -> None:
    (plans / "tiny.yaml").write_text(PLAN.replace("epochs=1", "epochs=100000"))
    patched = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path; from experiments import plan, tables\n"
        f"plan.PLANS = Path({str(plans)!r}); plan.TABLES = tables.TABLES = ['tiny']\n"
        f"tables.RESULTS = Path({str(plans.parent / 'results')!r})\n"
        "from codec.config import user_errors\n"
        "with user_errors(): sys.exit(tables.main(['tiny']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tables.ROOT)}
    with subprocess.Popen([sys.executable, "-c", patched], cwd=plans.parent, env=environment) as process:
        deadline = time.monotonic() + 300
        while not (found := list(plans.parent.glob("runs/first-*/checkpoints/last.ckpt"))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(cut)
        assert process.wait(60) == 130
    assert RunState.read(found[0].parents[1]).state == "cut off"


def test_images_that_are_not_there_are_told_of_before_anything_is_trained(
    plans: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUINTET_DATA", str(plans / "nowhere"))
    monkeypatch.delenv("QUINTET_DOWNLOAD", raising=False)
    (plans / "tiny.yaml").write_text(
        PLAN.replace("[data=samples, data.limit=2, data.eval_crop=192]", "[data=kodak]")
    )
    done = count_work(monkeypatch)
    assert tables.main(["tiny"]) == 2
    assert done == []
    assert "nowhere/kodak" in capsys.readouterr().err


def test_data_sets_are_fetched_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, downloads in (("true", True), ("false", False)):
        monkeypatch.setenv("QUINTET_DOWNLOAD", said)
        for option in ("kodak", "bsd300"):
            with composed("evaluate", ["model=jpeg", f"data={option}"]) as config:
                assert config.data.test.download is downloads


def test_points_of_settings_that_no_table_names_any_more_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    old, new, other = (row(codec, bpp, 30.0).point for codec, bpp in (("ours", 1.0), ("ours", 2.0), ("mine", 1.0)))
    record([old, other, {**new, "setting": "at 2.0, seed 1"}], file)
    record([new], file, planned={("ours", "at 2.0", "samples")})
    kept = [(each["codec"], each["setting"]) for each in read_points(file)]
    assert kept == [("mine", "at 1.0"), ("ours", "at 2.0, seed 1"), ("ours", "at 2.0")]
