"""BD-rate and BD-PSNR: published values, what they must give on curves whose difference is known, and refusals."""

import math
import re
import shlex
from pathlib import Path

import pytest

from experiments.points import PACKAGED, curves_of, lossy, quality_of, read_points, record
from experiments.published import read_published
from experiments.tables.bd_rate import QUALITIES, bd_psnr, bd_rate, bd_table, main
from experiments.tables.pages import JPEG_BORN_NOTE

# Two curves of H.264 streams, in kbit/s and dB, and two of H.265 streams, from the README of FAU-LMS/bjontegaard.
ANCHOR = [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)]
TEST = [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)]
H265_ANCHOR = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)]
H265_TEST = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)]

# JPEG on Kodak (Pillow, optimised, 4:2:0, qualities 5, 10, 20, … 90, 95): means of 24 images, whole files.
JPEG = [
    *((0.14080, 23.8522), (0.25551, 26.6718), (0.44915, 29.1445), (0.61010, 30.4915), (0.74326, 31.4220)),
    *((0.86919, 32.1738), (1.00491, 32.9076), (1.21301, 33.9167), (1.54904, 35.3700), (2.31538, 38.0340)),
    (3.30606, 40.5604),
]

# Of published curves the BD-rate against that JPEG in %, and the same from 30.4 to 36 dB, as computed elsewhere.
AGAINST_JPEG = {
    "vtm18": (-66.59, -63.45),
    "elic2022": (-65.83, -65.73),
    "vtm": (-64.64, -63.17),
    "cheng2020-attn": (-62.40, -61.08),
    "qres34m": (-61.97, -63.24),
    "av1": (-58.66, -57.12),
    "mbt2018": (-58.46, -58.73),
    "bpg": (-55.15, -53.28),
    "bmshj2018-hyperprior-vbr": (-51.83, -51.83),
    "bmshj2018-factorized-paper": (-40.49, -38.35),
    "webp": (-32.18, -32.28),
    "jpeg": (13.43, 5.75),
}


@pytest.mark.parametrize(
    ("anchor", "test", "percent", "gain"),  # of bjontegaard 1.3.0, method="pchip"
    [(ANCHOR, TEST, 31.3798782024, -1.1834724046), (H265_ANCHOR, H265_TEST, -4.4174853506, 0.1196927854)],
)
def test_both_deltas_are_those_of_another_implementation(
    anchor: list, test: list, percent: float, gain: float
) -> None:
    assert bd_rate(anchor, test).percent == pytest.approx(percent, abs=1e-9)
    assert bd_psnr(anchor, test).gain == pytest.approx(gain, abs=1e-9)


@pytest.mark.parametrize("codec", AGAINST_JPEG)
def test_published_curves_save_what_was_computed_of_them_elsewhere(codec: str) -> None:
    points = [(point["bpp"], point["psnr"]) for point in read_published("all")[codec]]
    found = bd_rate(JPEG, points).percent, bd_rate(JPEG, points, 30.4, 36).percent
    assert tuple(round(percent, 2) for percent in found) == AGAINST_JPEG[codec]


def test_scaling_every_rate_is_a_difference_of_that_scale() -> None:
    found = bd_rate(ANCHOR, [(0.75 * rate, quality) for rate, quality in ANCHOR])
    assert found.percent == pytest.approx(-25)
    assert (found.low, found.high) == (31.42, 40.28)


def test_raising_every_quality_is_a_gain_of_that_much() -> None:
    assert bd_psnr(ANCHOR, [(rate, quality + 1.5) for rate, quality in ANCHOR]).gain == pytest.approx(1.5)
    found = bd_psnr(ANCHOR, TEST)
    assert (found.low, found.high) == (pytest.approx(112.75), pytest.approx(686.76))


def test_the_two_directions_are_inverse() -> None:
    there, back = bd_rate(ANCHOR, TEST), bd_rate(TEST, ANCHOR)
    assert (1 + there.percent / 100) * (1 + back.percent / 100) == pytest.approx(1)
    assert there.percent > 25


def test_a_narrower_range_counts_only_what_is_in_it() -> None:
    cheaper_above = [(rate / (1.25 if quality > 35 else 1), quality) for rate, quality in ANCHOR]
    below, whole, above = (bd_rate(ANCHOR, cheaper_above, *ends) for ends in ((None, 33), (), (37.2, None)))
    assert below.percent > whole.percent > above.percent
    assert above.percent == pytest.approx(-20, abs=3)
    assert (below.high, above.low) == (33, 37.2)


@pytest.mark.parametrize("delta", [bd_rate, bd_psnr])
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (ANCHOR[:3], "3 points, 4 are the least"),
        ([], "0 points"),
        ([(rate * 99, quality + 20) for rate, quality in ANCHOR], "is on both"),
        ([(1, 30), (2, 32), (3, 31), (4, 33)], "does not rise"),
        ([(1, 30), (2, 31), (2, 32), (4, 33)], "does not rise"),
    ],
)
def test_where_there_is_no_difference_to_compute(delta, points: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        delta(ANCHOR, points)


def points_of(curve: list, **more: float) -> list[dict]:
    return [{"bpp": bpp, "psnr": psnr, **more} for bpp, psnr in sorted(curve)]


def test_the_table_states_overlap_and_points_and_why_a_codec_is_not_in_it() -> None:
    curves = {
        "png": [{"bpp": 13.0, "psnr": float("inf")}],
        "short": points_of(ANCHOR[:3]),
        "jpeg": points_of(ANCHOR),
        "ours": points_of([(0.5 * rate, quality) for rate, quality in ANCHOR]),
    }
    heads, _, png, short, ours = bd_table(curves, "jpeg").splitlines()
    assert heads.endswith("| points (jpeg: 4) |")
    assert "the test curve has 0 points" in png
    assert "the test curve has 3 points" in short
    assert ours.startswith("| ours | -50.00 % | 31.42–40.28 | +")
    assert ours.endswith(" | 85.950–343.380 | – | – | 4 |")
    with pytest.raises(ValueError, match="no curve of webp to compare with: there are png, short, jpeg, ours"):
        bd_table(curves, "webp")


def test_beside_the_chosen_quality_stand_the_bd_rates_by_the_others() -> None:
    bpp = (0.1, 0.2, 0.4, 0.8)

    def points(factor: float, psnr: float, ssim: float, ms_ssim: float) -> list[dict]:
        return [
            {"bpp": factor * rate, "psnr": psnr + n, "ssim": ssim + n / 20, "ms_ssim": ms_ssim + n / 50}
            for n, rate in enumerate(bpp)
        ]

    better, worse = points(1, 30, 0.7, 0.9), points(1, 30.5, 0.7, 0.89)
    heads, _, line = bd_table({"jpeg": better, "ours": worse}, "jpeg").splitlines()
    assert heads.startswith("| codec | BD-rate against jpeg, PSNR | over PSNR (dB) | BD-PSNR (dB) | over bpp |")
    assert heads.endswith("| BD-rate, SSIM | BD-rate, MS-SSIM (dB) | points (jpeg: 4) |")
    _, _, psnr, *_, ssim, ms_ssim, _, _ = [float(c.strip(" %")) if "%" in c else c for c in line.split("|")]
    assert (psnr < 0, ssim, ms_ssim > 0) == (True, 0, True)
    ours = {**worse[0], "bpp": 0.11}
    line = bd_table({"jpeg": better, "ours": [ours, *worse[1:3]]}, "jpeg").splitlines()[-1]
    assert line.endswith("|  |  |  | – | – | 3 |")


def test_ms_ssim_is_compared_in_db() -> None:
    db = {
        "a": [(0.1, 10.0), (0.2, 12.0), (0.4, 15.0), (0.8, 17.0)],
        "b": [(0.1, 11.0), (0.2, 13.0), (0.4, 15.5), (0.8, 18.0)],
    }
    curves = {
        name: [{"bpp": bpp, "psnr": 1.0, "ms_ssim": 1 - 10 ** (-value / 10)} for bpp, value in curve]
        for name, curve in db.items()
    }
    line = bd_table(curves, "a", "ms_ssim_db").splitlines()[-1]
    assert f"| {bd_rate(db['a'], db['b']).percent:+.2f} % | 11.00–17.00 |" in line


def test_the_command_reads_results(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, factor in (("a", 1.0), ("b", 0.5)):
        for n, (rate, quality) in enumerate(ANCHOR):
            folder = tmp_path / f"{name}{n}-01234567"
            folder.mkdir()
            (folder / "results.json").write_text(f'{{"bpp": {rate * factor}, "psnr": {quality}}}')
    main(["JPEG=a*", f"ours={tmp_path}/b0,b1,b2,b3"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("| ours | -50.00 % | 31.42–40.28 |")
    for arguments, message in [
        (["JPEG=a*", "ours=nothing"], "no results.json in nothing"),
        (["JPEG=a*", "ours=b0,b1,b2"], "ours against JPEG: the test curve has 3 points, 4 are the least"),
        (["JPEG=a*"], "JPEG is the only lossy curve"),
        (["JPEG=a*", "a*"], "every curve has a name of its own"),
        (["--data", "kodak"], "--anchor jpeg"),
    ]:
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err.splitlines()[-1]


def write_points(folder: Path) -> Path:
    rows = [
        {"codec": codec, "setting": str(n), "dataset": data, "images": 24, "bpp": bpp * factor, "psnr": psnr}
        for codec, factor in (("jpeg", 1), ("ours", 0.8), ("other", 2))
        for data in ("kodak", "bsd300")
        for n, (bpp, psnr) in enumerate(JPEG)
    ]
    record(rows, folder / "points.csv")
    return folder / "points.csv"


def test_a_written_table_says_what_it_is_of_and_another_day_alone_changes_nothing(tmp_path: Path) -> None:
    points, out = write_points(tmp_path), tmp_path / "docs/x.md"
    command = ["--points", str(points), "--data", "bsd300", "--anchor", "jpeg", "--out", str(out)]
    main(command)
    page = out.read_text()
    assert page.startswith("# BD-rates: bsd300, 24 images\n")
    for text in (f"jpeg ({len(JPEG)} points)", JPEG_BORN_NOTE, shlex.join(command), "| ours | -20.00 % |"):
        assert text in page
    old = re.sub(r"\d{4}-\d\d-\d\d", "1999-12-31", page)
    assert old != page
    out.write_text(old)
    main(command)
    assert out.read_text() == old
    main([*command, "--codecs", "ours"])
    assert "1999-12-31" not in out.read_text()


def test_the_command_reads_points_and_published_curves(tmp_path: Path, capsys) -> None:
    command = ["--points", str(write_points(tmp_path)), "--data"]
    main([*command, "kodak", "--anchor", "jpeg", "--codecs", "ours", "--published", "vtm"])
    *_, ours, vtm = capsys.readouterr().out.splitlines()
    assert ours.startswith("| ours | -20.00 % | 23.85–40.56 | ")
    assert vtm.startswith("| vtm (published) | -64.64 % | 26.14–40.56 | ")
    assert vtm.endswith("| – | – | 8 |")
    main([*command, "kodak", "--anchor", "vtm", "--codecs", "jpeg", "--published", "vtm"])
    assert "against vtm (published)" in capsys.readouterr().out
    lossless = {"codec": "png", "setting": "", "dataset": "kodak", "images": 24, "bpp": 13.4, "psnr": math.inf}
    record([lossless], tmp_path / "points.csv")
    main([*command, "kodak", "--anchor", "jpeg"])
    assert "png" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "bsd300", "--anchor", "jpeg", "--published", "vtm"])
    assert "--published curves are of kodak" in capsys.readouterr().err


@pytest.mark.parametrize("dataset", ["kodak", "bsd300"])
@pytest.mark.parametrize("quality", QUALITIES)
def test_every_codec_that_was_measured_has_the_deltas_that_the_package_bjontegaard_finds(
    dataset: str, quality: str
) -> None:
    bjontegaard = pytest.importorskip("bjontegaard", reason="the extra dev brings it")
    curves = curves_of(read_points(PACKAGED), dataset)
    pairs = {name: [(p["bpp"], quality_of(p, quality)) for p in lossy(points)] for name, points in curves.items()}
    anchor = pairs.pop("jpeg")
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    compared = 0
    for test in pairs.values():
        try:
            ours = bd_rate(anchor, test).percent, bd_psnr(anchor, test).gain
        except ValueError:  # too few points, or no quality that both have
            continue
        theirs = [
            delta(*zip(*sorted(anchor), strict=True), *zip(*sorted(test), strict=True), **options)
            for delta in (bjontegaard.bd_rate, bjontegaard.bd_psnr)
        ]
        assert ours == pytest.approx(theirs, abs=1e-9)
        compared += 1
    assert compared >= 5
