"""The detail that decoded images keep: what is counted, and the command's page and picture."""

from pathlib import Path

import pytest
import torch
from conftest import crop, make_codec
from torch import Tensor
from torch.nn.functional import avg_pool2d

from codec.checkpoint import save_weights
from codec.data.image_file import NamedImage
from codec.errors import ArgumentError
from experiments import detail as experiment
from experiments.detail import compared, detail, main, page


def test_an_image_has_all_of_its_detail_and_a_plain_one_none(photograph: Tensor) -> None:
    assert detail(photograph, photograph) == {"finest": 1.0, "next": 1.0}
    kept = detail(torch.full_like(photograph, 90), photograph)
    assert max(kept.values()) < 1e-8


def test_blur_takes_the_finest_detail_first_and_noise_adds_it(photograph: Tensor) -> None:
    kept = detail(avg_pool2d(photograph.float(), 3, 1, 1, count_include_pad=False).round().byte(), photograph)
    assert kept["finest"] < kept["next"] < 1
    noise = 8 * torch.randn(photograph.shape, generator=torch.Generator().manual_seed(0))
    added = detail((photograph + noise).round().clamp(0, 255).byte(), photograph)
    assert added["finest"] > added["next"] > 1


def test_steps_and_standard_codecs_are_compared_and_shown(photograph: Tensor, monkeypatch) -> None:
    monkeypatch.setattr(experiment, "STEPS", (1, 5))
    monkeypatch.setattr(experiment, "STANDARD", {"JPEG": experiment.STANDARD["JPEG"][:3]})
    codec = make_codec("diffusion", overrides=["model.decoder=iterative", "model.shortcut=wavelet"])
    codec.denoiser.running_var.fill_(0.01)
    rows = {label: row for label, row, _ in compared(codec, NamedImage("a", crop(photograph, 192, 192)))}
    assert list(rows) == ["1 step", "5 steps", "JPEG"]
    assert rows["1 step"]["bytes"] == rows["5 steps"]["bytes"]
    assert rows["1 step"]["psnr"] > rows["5 steps"]["psnr"]
    assert rows["1 step"]["finest"] < rows["5 steps"]["finest"]
    text = page(rows, 1, ["RUN"])
    assert "python -m experiments.detail RUN" in text
    assert sum(line.startswith("| ") for line in text.splitlines()) == 2 + 3


def test_a_run_that_does_not_sample_is_refused(tmp_path: Path) -> None:
    codec = make_codec("diffusion", overrides=["model.shortcut=wavelet"])
    save_weights(codec, tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match="its decoder does not sample"):
        main([str(tmp_path / "a.safetensors")])
