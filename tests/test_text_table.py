"""Tables of text."""

import pytest

from codec.text_table import text_table


def test_columns_are_two_spaces_apart_and_flush_on_their_side() -> None:
    rows = [("a", "1.0", "kodak"), ("longer", "10.25", "")]
    assert text_table(("codec", "bpp", "data"), rows, right={"bpp"}).splitlines() == [
        "codec     bpp  data",
        "a         1.0  kodak",
        "longer  10.25",
    ]


def test_cells_are_shown_as_they_are_and_letters_two_columns_wide_count_as_two() -> None:
    rows = [("图像", "1"), ("[red]:smile:", "2")]
    assert text_table(("name", "n"), rows, right=()).splitlines()[1:] == [
        "图像          1",
        "[red]:smile:  2",
    ]


@pytest.mark.parametrize("environment", [{"COLUMNS": "20"}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}])
def test_a_narrow_or_a_coloured_terminal_changes_nothing(environment: dict, monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert text_table(("x" * 99, "y"), [("a", "b" * 99)], right={"y"}).splitlines() == [
        f"{'x' * 99}  {'y':>99}",
        f"{'a':99}  {'b' * 99}",
    ]
