"""What a table's page says of what was measured: means, losses to the anchor, commits, minutes; and its points."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_plan import only_tiny

from codec import pretrained
from experiments.points import curves_of, read_points, record
from experiments.tables import report
from experiments.tables.pages import JPEG_BORN_NOTE
from experiments.tables.plan import Evaluation, Training, read_plan
from experiments.tables.report import Measured


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return only_tiny(tmp_path, monkeypatch)


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


def test_the_speed_of_lossless_codecs_is_that_of_the_samples(plans: Path) -> None:
    # 3,072 samples of 8 bits at 4 bits each are 1,536 bytes.
    ours = row("ours", 12.0, math.inf, bytes=1536, encode_ms=2.0, decode_ms=1.0)
    page = report.as_markdown(replace(read_plan("tiny", "small"), anchor=None), [ours], [])
    assert "| encode MB/s | decode MB/s |" in page
    assert "| 2.0 | 1.0 | 1.54 | 3.07 |" in page


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


def test_points_of_settings_that_no_table_names_any_more_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    old, new, other = (row(codec, bpp, 30.0).point for codec, bpp in (("ours", 1.0), ("ours", 2.0), ("mine", 1.0)))
    record([old, other, {**new, "setting": "at 2.0, seed 1"}], file)
    record([new], file, planned={("ours", "at 2.0", "samples")})
    kept = [(each["codec"], each["setting"]) for each in read_points(file)]
    assert kept == [("mine", "at 1.0"), ("ours", "at 2.0, seed 1"), ("ours", "at 2.0")]
