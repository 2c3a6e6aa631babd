"""The comparison with CompressAI measures what it says, and without CompressAI says what it has not measured."""

import os
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_codec
from PIL import Image

from codec.checkpoint import save_weights
from experiments.bench import peers
from experiments.bench.peer_training import Trained
from experiments.bench.turns import VARIABLE, Times, ratios, spread

CODEC = ("model.widths=[4,4]", "model.latent_channels=2", "prior.filters=[2]")
PYTHON = os.environ.get(VARIABLE)


@pytest.fixture
def few(tmp_path: Path, photograph: torch.Tensor) -> list[str]:
    """The command line of a run that is soon over."""
    save_weights(make_codec("conv_baseline", overrides=CODEC), tmp_path / "codec.safetensors")
    Image.fromarray(photograph[:, :70, :64].permute(1, 2, 0).numpy()).save(tmp_path / "small.png")
    experiments = ["--experiments", "conv_baseline_bsd300", "--crops", "64"]
    files = ["--image", str(tmp_path / "small.png"), "--out", str(tmp_path / "bench.md")]
    return [str(tmp_path / "codec.safetensors"), *files, *experiments, "--rounds", "2"]


@pytest.fixture(autouse=True)
def threads() -> None:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_without_compressai_ours_are_measured_and_ratios_are_not(
    few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    rows, steps = peers.main(few)
    (row,) = rows
    assert len(row.encode) == len(row.decode) == 2
    assert all(t.cpu > 0 and t.wall > 0 for t in (*row.encode, *row.decode))
    assert row.bytes > 0
    for step in steps:
        assert (step.name, step.side, step.peer) == ("conv_baseline_bsd300", 64, ())
        assert len(step.trainer) == len(step.bare) == 2
    page = (tmp_path / "bench.md").read_text()
    printed = capsys.readouterr().out
    assert page in printed + "\n"
    assert f"{VARIABLE}=PYTHON" in printed
    (of_codec,) = [line for line in page.splitlines() if line.startswith("| codec |") and "ms" not in line]
    assert of_codec.count("not measured") == 4
    assert sum(line.startswith("| conv_baseline_bsd300 |") for line in page.splitlines()) == len(steps)
    assert not (tmp_path / "bench.png").exists()


@pytest.mark.skipif(PYTHON is None, reason=f"{VARIABLE} names no Python with CompressAI")
def test_beside_compressai_every_round_has_a_ratio_and_there_is_a_chart(few: list[str], tmp_path: Path) -> None:
    _, steps = peers.main(few)
    assert all(len(step.peer) == 2 and step.peer[0].cpu > 0 for step in steps)
    page = (tmp_path / "bench.md").read_text()
    assert "not measured" not in page
    assert f"| {peers.PEER} |" in page
    assert (tmp_path / "bench.svg").read_text().count("aimed at") == 2


@pytest.mark.parametrize(
    ("python", "said"), [("no_such_python", "cannot be run: No such file"), (sys.executable, "'compressai'")]
)
def test_a_python_that_will_not_do_is_named_in_one_line(
    python: str, said: str, few: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, python)
    with pytest.raises(SystemExit) as stop:
        peers.main(few)
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: {VARIABLE}={python}: ")
    assert said in line


def test_ratios_are_of_the_same_round_by_the_same_clock() -> None:
    ours, theirs = [Times(1.0, 8.0), Times(3.0, 2.0)], [Times(2.0, 4.0), Times(2.0, 4.0)]
    assert ratios(ours, theirs, "cpu") == [0.5, 1.5]
    assert ratios(ours, theirs, "wall") == [2.0, 0.5]
    assert ratios(ours, [], "cpu") == []
    assert spread([0.5, 1.5, 0.75]) == "0.75 (0.50–1.50)"
    assert spread([]) == "not measured"


def test_images_a_second_are_compared_the_other_way_round_than_times() -> None:
    fast, slow = [Times(0.5, 0.5)] * 2, [Times(1.0, 1.0)] * 2
    (line,) = peers.training_table([Trained("preset", 128, "32-true", fast, slow, slow)]).splitlines()[2:]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:2] == ["preset", "8 of 128²"]
    assert cells[3:] == ["500", "16.0", "2.00 (2.00–2.00)", "2.00 (2.00–2.00)", "0.50 (0.50–0.50)"]
