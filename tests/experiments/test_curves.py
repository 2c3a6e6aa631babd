"""Rate–distortion curves: what is drawn of runs, of points.csv and of published points, and what is refused."""

import math
import re
from pathlib import Path

import pytest
from PIL import Image

from codec.training.results import write_results
from experiments.plots.curves import draw, main
from experiments.plots.figures import CODECS, look, looks
from experiments.points import quality_of, record
from experiments.published import MAIN, read_published

CURVES = {
    "jpeg": [
        {"bpp": 0.5 * n, "psnr": 26.0 + 3 * n, "ssim": 0.7 + n / 20, "ms_ssim": 0.9 + n / 60} for n in (1, 2, 4)
    ],
    "one point": [{"bpp": 0.7, "psnr": 33.0, "ssim": 0.9}],
    "png": [{"bpp": 13.0, "psnr": math.inf, "ssim": 1.0, "ms_ssim": 1.0}],
}


def texts(svg: Path) -> list[str]:
    return re.findall(r"<text[^>]*>(.*?)</text>", svg.read_text())


@pytest.fixture
def points(tmp_path: Path) -> Path:
    """A points.csv of two codecs on two data sets."""
    rows = [
        {
            "codec": codec,
            "setting": f"q{n}",
            "dataset": data,
            "images": 24,
            "bpp": 0.3 * n,
            "psnr": 25.0 + shift + n,
        }
        for codec, shift in (("jpeg", 0), ("webp", 2))
        for data in ("kodak", "bsd300")
        for n in (1, 2, 3, 4)
    ]
    record(rows, tmp_path / "points.csv")
    return tmp_path / "points.csv"


def test_a_figure_comes_as_png_and_svg_of_which_the_text_is_text(tmp_path: Path) -> None:
    assert draw(CURVES, tmp_path / "docs/x.png") == [tmp_path / "docs/x.png", tmp_path / "docs/x.svg"]
    assert min(Image.open(tmp_path / "docs/x.png").size) > 500
    assert (tmp_path / "docs/x.png").stat().st_size < 300_000
    found = texts(tmp_path / "docs/x.svg")
    assert {"jpeg", "one point", "PSNR (dB)", "SSIM", "MS-SSIM (dB)", "bpp, whole files"} <= set(found)
    assert "png" not in found  # lossless
    assert "LPIPS, lower is better" not in found  # nobody has it


def test_the_same_data_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(CURVES, tmp_path / f"{name}.png", published=read_published("vtm"), log=True, qualities=["psnr"])
    for suffix in (".png", ".svg"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_published_curves_are_named_and_do_not_widen_the_figure(tmp_path: Path) -> None:
    draw(CURVES, tmp_path / "x.svg", published=read_published("vtm,elic2022"), qualities=["psnr"])
    found = texts(tmp_path / "x.svg")
    assert {"published", "vtm", "elic2022"} <= set(found)
    assert max(float(text) for text in found if re.fullmatch(r"[\d.]+", text)) < 43  # dB; vtm goes on to 46.6


def test_more_published_curves_than_can_be_named_where_they_end_have_letters(tmp_path: Path) -> None:
    draw(CURVES, tmp_path / "x.svg", published=read_published("all"), qualities=["psnr"])
    found = texts(tmp_path / "x.svg")
    assert "published:" in found
    assert found.count("vtm") == found.count("elic2022") == 1  # in the legend alone


def test_what_is_asked_for_but_not_there_is_named(tmp_path: Path) -> None:
    for keywords, message in [
        ({"qualities": ["lpips"]}, "nothing to draw of lpips: there are psnr, ssim, ms_ssim_db"),
        ({"label": "setting"}, "no point has setting"),
        ({"bpp_max": 0.1}, "nothing to draw up to 0.1 bpp: the points begin at 0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            draw(CURVES, tmp_path / "x.svg", **keywords)
    with pytest.raises(ValueError, match="all points are lossless"):
        draw({"png": CURVES["png"]}, tmp_path / "x.svg")


def test_no_two_curves_look_the_same() -> None:
    assert len({tuple(look(n).items()) for n in range(77)}) == 77


def test_a_codec_looks_the_same_in_every_figure() -> None:
    few, many = looks(["webp", "ours"]), looks(["jpeg", "mine", *reversed(CODECS)])
    assert few["webp"] == many["webp"] == looks(["webp"])["webp"]
    assert len({tuple(style.items()) for style in many.values()}) == len(CODECS) + 1
    assert few["ours"] == many["mine"]  # what is not known comes after all that are


def test_variants_have_the_colour_of_the_codec_they_vary() -> None:
    colours = {name: style["color"] for name, style in looks(CODECS).items()}
    for variant in ("jpeg_444", "jpeg_progressive", "avif_444_psnr", "diffusion", "quantized_autoencoder_paper"):
        (base,) = [
            name for name in CODECS[:7] if variant.startswith((f"{name}_",)) or name.startswith(f"{variant}_")
        ]
        assert colours[variant] == colours[base]
    assert len({colours[name] for name in CODECS[:7]}) == 7


def test_ms_ssim_is_in_db() -> None:
    assert quality_of({"ms_ssim": 0.99}, "ms_ssim_db") == pytest.approx(20)
    assert quality_of({"psnr": 30.0}, "ms_ssim_db") is None


def test_published_points_are_whole() -> None:
    curves = read_published("all")
    assert len(curves) == 26
    assert sum(map(len, curves.values())) == 298
    assert set(MAIN) == read_published().keys()
    for points in curves.values():
        for key in ("bpp", "psnr", "ms_ssim"):
            values = [point[key] for point in points if key in point]
            assert values == sorted(set(values))  # so there are no points twice and no outliers
    with pytest.raises(ValueError, match="no published curve of hevc: there are all, main, jpeg, "):
        read_published("vtm,hevc")


def test_the_command_draws_points_beside_runs(points: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        write_results(
            tmp_path / f"runs/mine{n}-01234567", [{"name": "a", "bpp": 0.5 + n, "mse": 0.1, "psnr": 30.0 + n}], {}
        )
    data = ["--data", "kodak", "--points", "points.csv"]
    main(["mine=runs/mine*", *data, "--codecs", "webp", "--label", "setting", "--out", "docs/x.png"])
    assert capsys.readouterr().out.split() == ["docs/x.png", "docs/x.svg"]
    found = texts(tmp_path / "docs/x.svg")
    assert {"mine", "webp", "q3"} <= set(found)
    assert "jpeg" not in found
    main([*data, "--published", "main", "--log", "--quality", "psnr", "--bpp-max", "1", "--out", "y.svg"])
    assert {"jpeg", "webp", "vtm", "0.5"} <= set(texts(tmp_path / "y.svg"))


def test_wrong_arguments_are_one_line(points: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_results(tmp_path / "runs/one", [{"name": "a", "bpp": 0.5, "mse": 0.1, "psnr": 30.0}], {})
    for arguments, message in [
        (["none=runs/x*"], "no results.json in runs/x*; give NAME=runs/a,runs/b"),
        (["runs/one"], "every curve has a name of its own; give NAME=runs/a,runs/b"),
        ([], "nothing is named"),
        (["a=runs/one", "--codecs", "jpeg"], "say of which data set, --data kodak"),
        (["a=runs/one", "--published", "vtm"], "of Kodak's 24 images, a of 1 others"),
        (["--data", "bsd300", "--points", "points.csv", "--published", "vtm"], "cannot stand beside --data bsd300"),
        (["--data", "kodak", "--points", "points.csv", "--codecs", "vvc"], "there are jpeg, webp"),
        (["--data", "kodak", "--points", "no.csv"], "no points at no.csv"),
        (
            ["jpeg=runs/one", "--data", "kodak", "--points", "points.csv"],
            "jpeg: a codec of points.csv has that name",
        ),
        (["--data", "kodak", "--points", "points.csv", "--quality", "vmaf"], "nothing to draw of vmaf"),
    ]:
        with pytest.raises(SystemExit):
            main([*arguments, "--out", "x.png"])
        assert message in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit):
        main(["a=runs/one", "--out", "x.doc"])
    assert "x.doc: its name ends in none of" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
