"""results.json, per_image.csv and the table."""

import math
import re
from pathlib import Path

import pytest

from codec.metrics import mean_of_rows
from codec.schemes.diffusion import paper_ratios
from codec.training.results import read_results, table, write_results

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


def test_images_that_are_not_in_the_means_are_told_below_them(tmp_path: Path) -> None:
    skipped = {"wide.png": "width=17000: WEBP allows 1 to 16383 pixels", "cut.png": "truncated"}
    write_results(tmp_path, ROWS, {"skipped": skipped})
    last = table({"webp": read_results(tmp_path / "results.json")}).splitlines()[-1]
    assert last == "webp: without wide.png and 1 more, of 4 images: width=17000: WEBP allows 1 to 16383 pixels"


def test_a_value_that_is_no_number_is_not_averaged_away() -> None:
    assert math.isnan(mean_of_rows([{"loss": math.nan, "psnr": 1.0}, {"loss": 1.0, "psnr": 1.0}])["loss"])


def cells(rows: dict[str, dict[str, float]]) -> list[list[str]]:
    """The table's cells, which two spaces or more keep apart."""
    return [re.split(r"\s{2,}", line.strip()) for line in table(rows).splitlines()]


def test_what_one_codec_lacks_is_a_dash_and_what_all_lack_is_no_column() -> None:
    assert cells(
        {"x": {"bpp": 1.0, "psnr": 30.0, "lossless": 0}, "y": {"bpp": 2.0, "psnr": 31.0, "ms_ssim": 0.9}}
    ) == [
        ["codec", "bpp", "psnr", "ms_ssim"],
        ["x", "1.0000", "30.00", "–"],
        ["y", "2.0000", "31.00", "0.9000"],
    ]


def test_columns_stand_in_one_order_whatever_that_of_the_rows() -> None:
    heads, *_ = cells({"x": {"lpips": 0.1, "ms_ssim": 0.9}, "y": {"encode_ms": 3.0, "bpp": 1.0}})
    assert heads == ["codec", "bpp", "ms_ssim", "lpips", "encode_ms"]


def test_the_papers_ratios_are_written_and_stand_beside_no_file_s(tmp_path: Path) -> None:
    rows = [{"name": "a", "ratio": 9.0, "mse": 0.1, "psnr": 10.0, **paper_ratios(3 * 64 * 64, 128 * 8 * 8)}]
    results = write_results(tmp_path, rows, {})
    assert (results["paper_pixel_ratio"], results["paper_memory_ratio"]) == (1.5, 3.0)
    assert cells({"x": mean_of_rows(rows)}) == [
        ["codec", "ratio", "mse", "psnr"],
        ["x", "9.00", "0.10000", "10.00"],
    ]


def test_the_mean_lpips_is_written_and_the_conventions_say_whose_it_is(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "lpips": 0.2}, {**ROWS[0], "lpips": 0.4}, ROWS[0]]
    results = write_results(tmp_path, rows, {})
    assert results["lpips"] == pytest.approx(0.3)
    for name in ("lpips", "paper_pixel_ratio", "paper_memory_ratio"):
        assert name in results["conventions"]


def test_a_table_of_nothing_is_its_head_alone() -> None:
    assert table({}) == "codec"
