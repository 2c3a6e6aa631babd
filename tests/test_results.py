"""results.json, per_image.csv and the table."""

import math
from pathlib import Path

import pytest

from codec.metrics import mean_of_rows
from codec.results import read_results, table, write_results

ROWS = [
    {"name": "a", "bpp": 1.0, "mse": 0.01, "psnr": 20.0, "ms_ssim": 0.9},
    {"name": "b", "bpp": 3.0, "mse": 0.0, "psnr": math.inf},
]


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = write_results(tmp_path, ROWS, {"run": "x"})
    assert read_results(tmp_path / "results.json") == written
    assert (tmp_path / "per_image.csv").read_text().splitlines()[1:] == ["a,1.0,0.01,20.0,0.9", "b,3.0,0.0,inf,"]


def test_lossless_images_are_counted_apart(tmp_path: Path) -> None:
    results = write_results(tmp_path, ROWS, {})
    assert (results["psnr"], results["lossless"], results["bpp"]) == (20.0, 1, 2.0)
    assert results["psnr_of_mean_mse"] == pytest.approx(-10 * math.log10(0.005))


def test_a_wholly_lossless_result_is_shown_as_such_after_it_was_read_back(tmp_path: Path) -> None:
    write_results(tmp_path, ROWS[1:], {})
    assert "lossless" in table({"x": read_results(tmp_path / "results.json")})


def test_a_value_that_is_no_number_is_not_averaged_away() -> None:
    assert math.isnan(mean_of_rows([{"loss": math.nan, "psnr": 1.0}, {"loss": 1.0, "psnr": 1.0}])["loss"])


def test_what_no_image_has_is_a_dash_in_the_table() -> None:
    line = table({"x": mean_of_rows(ROWS[1:])}).splitlines()[-1]
    assert "-" in line.split()
