"""What a device gets through is measured on a CPU as on a GPU. No speed is asserted."""

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import make_codec

from codec.checkpoint import save_weights
from experiments.bench import peers, throughput
from experiments.bench.busy import busy_seconds, covered

NARROW = ("model.widths=[4,4]", "model.latent_channels=2", "prior.filters=[2]")
CPU = torch.device("cpu")


def test_a_row_for_every_codec_and_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(make_codec("conv_baseline", overrides=NARROW), tmp_path / "narrow.safetensors")
    coded = ["--codecs", str(tmp_path / "narrow.safetensors"), "comcnn_reccnn", "--megapixels", "0.005"]
    training = ["--experiments", "conv_baseline_bsd300", "--batch", "2", "--crop", "32", "--steps", "2"]
    coding, (row,) = throughput.main(
        [*coded, *training, "--together", "1", "2", "--rounds", "2", "--device", "cpu"]
    )
    assert [(one.name, one.way) for one in coding] == [
        ("narrow", "encode, 1 together"),
        ("narrow", "encode, 2 together"),
        ("narrow", "decode"),
        ("comcnn_reccnn", "encode"),  # one image after the other
        ("comcnn_reccnn", "decode"),
    ]
    for one in coding:
        assert one.megapixels == pytest.approx(0.01, rel=0.05)
        assert len(one.times) == 2
    assert (row.name, row.side, len(row.trainer), len(row.bare)) == ("conv_baseline_bsd300", 32, 2, 2)
    assert row.busy > 0
    printed = capsys.readouterr().out
    assert sum(line.startswith(("| narrow |", "| comcnn_reccnn |")) for line in printed.splitlines()) == 5
    assert "| conv_baseline_bsd300 | 2 of 32² |" in printed


def test_steps_are_recorded_on_a_gpu_only(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--batch", "1", "--crop", "32", "--steps", "1", "--rounds", "1", "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        throughput.main(["--codecs", "--experiments", "conv_baseline_bsd300", "--recorded", *small])
    assert stop.value.code == 2
    assert "error: strategy.cuda_graph=true: steps are recorded on one CUDA" in capsys.readouterr().err


def test_what_is_measured_is_shown_where_a_later_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_weights(make_codec("conv_baseline", overrides=NARROW), tmp_path / "narrow.safetensors")
    small = ["--megapixels", "0.005", "--together", "1", "--rounds", "1", "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        codecs = ["--codecs", str(tmp_path / "narrow.safetensors"), "no_such_model"]
        throughput.main([*codecs, "--experiments", *small])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert "| narrow | encode, 1 together |" in shown.out
    assert "no_such_model" in shown.err


@pytest.mark.parametrize("bench", [throughput, peers])
def test_a_preset_that_there_is_not_is_told_before_anything_is_measured(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        bench.main(["--experiments", "conv_baseline_bsd300", "no_such_preset"])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert "no_such_preset" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--steps", "0", "integers from 1"), ("--together", "0", "integers"), ("--megapixels", "-1", "above 0")],
)
def test_numbers_are_checked_before_anything_is_measured(
    option: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        throughput.main([option, value])
    assert stop.value.code == 2
    assert re.search(rf"{option} {value}: allowed are .*{allowed}", capsys.readouterr().err)


@pytest.mark.gpu
def test_of_a_gpu_s_time_in_kernels_and_that_of_the_work() -> None:
    x = torch.ones(1 << 26, device="cuda")
    assert busy_seconds(lambda: x.sqrt_(), x.device) > x.numel() * x.element_size() / 1e14


def test_time_counts_once_where_operations_overlap() -> None:
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.75)]) == 4.0
    assert covered([]) == 0


def test_idle_time_is_not_busy() -> None:
    x = torch.ones(1 << 16)
    assert busy_seconds(lambda: None, CPU) == 0
    assert busy_seconds(lambda: x.sqrt_(), CPU) > 0
