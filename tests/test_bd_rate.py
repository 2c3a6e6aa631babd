"""BD-rate: what it must give on curves whose difference is known, and where there is none."""

import pytest

from experiments.bd_rate import bd_rate, main

# Two curves of H.264 streams, in kbit/s and dB.
ANCHOR = [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)]
TEST = [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)]


def test_scaling_every_rate_is_a_difference_of_that_scale() -> None:
    found = bd_rate(ANCHOR, [(0.75 * rate, quality) for rate, quality in ANCHOR])
    assert found.percent == pytest.approx(-25)
    assert (found.low, found.high) == (31.42, 40.28)


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


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (ANCHOR[:3], "3 points"),
        ([], "0 points"),
        ([(rate, quality - 20) for rate, quality in ANCHOR], "no quality is on both"),
        ([(1, 30), (2, 32), (3, 31), (4, 33)], "does not rise"),
    ],
)
def test_where_there_is_no_difference_to_compute(points: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bd_rate(ANCHOR, points)


def test_the_command_reads_results(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, factor in (("a", 1.0), ("b", 0.5)):
        for n, (rate, quality) in enumerate(ANCHOR):
            folder = tmp_path / f"{name}{n}-01234567"
            folder.mkdir()
            (folder / "results.json").write_text(f'{{"bpp": {rate * factor}, "psnr": {quality}}}')
    main(["JPEG=a*", "ours=b0,b1,b2,b3"])
    assert (
        capsys.readouterr().out
        == "ours against JPEG: -50.00 % rate at equal psnr, 31.42 to 40.28, 4 and 4 points\n"
    )
    with pytest.raises(SystemExit):
        main(["JPEG=a*", "ours=nothing"])
    assert "no results.json in nothing" in capsys.readouterr().err
