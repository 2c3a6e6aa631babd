"""The comparison with CompressAI measures what it says, and tells how to get what it needs."""

import importlib.util
from pathlib import Path

import pytest
import torch
from conftest import crop, make_codec
from torch import Tensor

from codec.checkpoint import save_weights
from experiments.bench import peers

CODEC = ("model.widths=[4,4]", "model.latent_channels=2", "prior.filters=[2]")
INSTALLED = importlib.util.find_spec("compressai") is not None


@pytest.mark.skipif(INSTALLED, reason="CompressAI is installed")
def test_without_compressai_one_line_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        peers.main([])
    assert stop.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert line.endswith("pip install compressai")


@pytest.mark.skipif(not INSTALLED, reason="CompressAI is not installed")
def test_rows_are_ours_and_then_the_peer(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    save_weights(make_codec("conv_baseline", overrides=CODEC), tmp_path / "codec.safetensors")
    try:
        rows = peers.main([str(tmp_path / "codec.safetensors"), "--repeats", "1"])
    finally:
        torch.set_num_threads(threads)
    assert [(row.name, row.effort) for row in rows] == [("codec", None), (peers.PEER, None)]
    assert all(row.median(way, part) > 0 for row in rows for way in ("encode", "decode") for part in ("coder",))


def test_the_parts_of_ours_add_up_to_the_whole(photograph: Tensor) -> None:
    row = peers.Row("tiny", make_codec("conv_baseline", overrides=CODEC), effort=0)
    image = crop(photograph, 64, 64)
    for _ in range(3):
        row.measure(image)
    assert row.bytes == len(row.codec.encode(image))
    for way in ("encode", "decode"):
        whole, *parts = (row.times[way, part] for part in ("whole", "transform", "prior", "coder"))
        assert len(whole) == 3
        for total, *split in zip(whole, *parts, strict=True):
            assert 0 < sum(split) <= total
            assert split[2] > 0
    assert row.total == row.median("encode") + row.median("decode")


def test_no_repeats_are_a_user_s_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        peers.main(["--repeats", "0"])
    assert stop.value.code == 2
    assert "--repeats 0" in capsys.readouterr().err
