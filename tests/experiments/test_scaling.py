"""`python -m experiments.bench.scaling`: what a training costs before its first step, and its speed."""

import re
import shlex

import pytest
from sweeping import TINY

from experiments.bench import scaling
from experiments.bench.scaling import PHASES, main, report

PROGRAM = "python -m experiments.bench.scaling"
SMALL = [override for override in TINY if not override.startswith(("logger=", "test=", "epochs=", "~"))]


def cells(table: str) -> list[list[str]]:
    """The rows of a Markdown table, without the rule below its head."""
    lines = [line.strip("|") for line in table.splitlines() if "---" not in line]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def test_the_table_has_a_row_for_every_part_of_the_way_to_the_first_step_and_the_parts_add_up(
    capsys: pytest.CaptureFixture,
) -> None:
    results = main([*SMALL, "--processes", "2", "--steps", "2", "--device", "cpu"])
    about, table = capsys.readouterr().out.split("\n\n")
    assert re.match(r"cpu: \d+ threads? of \d+, .+; load \d+\.\d$", about)
    head, *rows = cells(table)
    assert head == ["s", "2 processes", ""]
    assert [row[0] for row in rows] == [*PHASES, "first step", "after the last step", "images/s"]
    assert results.keys() == {2}
    measured = results[2]
    for name, shown, why in rows:
        assert float(shown) == pytest.approx(measured[name], abs=0.051)
        assert why == PHASES.get(name, "")
    assert all(value > 0 for value in measured.values())
    assert sum(measured[phase] for phase in PHASES) == pytest.approx(measured["first step"])


def test_more_processes_are_compared_with_the_first() -> None:
    one = dict.fromkeys([*PHASES, "first step", "after the last step"], 1.0) | {"images/s": 100.0}
    table = report({1: one, 2: one | {"images/s": 175.0}, 4: one | {"images/s": 50.0}})
    head, *_, last = cells(table)
    assert head == ["s", "1 process", "2 processes", "4 processes", ""]
    assert last == ["images/s, times the first", "1.00", "1.75", "0.50", ""]


def test_the_commands_of_the_help_text_are_understood(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    told = capsys.readouterr().out
    commands = re.findall(r"^  python -m experiments\.bench\.scaling(.*?)(?:   |$)", told, re.MULTILINE)
    assert len(commands) == 2
    asked = []
    one = dict.fromkeys([*PHASES, "first step", "images/s"], 1.0)
    monkeypatch.setattr(scaling, "measured", lambda *arguments: asked.append(arguments) or one)
    for command in commands:
        main([*shlex.split(command), "--device", "cpu"])
    assert [(processes, overrides) for processes, _, _, overrides in asked] == [
        *((processes, []) for processes in (1, 2)),
        *((processes, ["model=diffusion"]) for processes in (1, 2, 4)),
    ]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            ["--processes", "1", "0"],
            f"{PROGRAM}: error: --processes 0: allowed are the integers from 1",
        ),
        (["--steps", "0"], f"{PROGRAM}: error: --steps 0: allowed are the integers from 1"),
        (["optimizer.lr=-1", "--processes", "1"], "error: optimizer.lr=-1: allowed are numbers above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_x(arguments: list[str], fault: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--device", "cpu"])
    assert exit_.value.code == 2
    assert fault in capsys.readouterr().err.splitlines()
