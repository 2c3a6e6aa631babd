"""The benchmark of large images measures what it says, and notices a lossless codec that is not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import make_codec
from PIL import Image
from torch import Tensor

from codec.checkpoint import save_weights
from experiments.bench import large_images


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process of its own sets is put back where a test runs it in this one."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    overrides = ("model.features=8", "model.width=8", "model.blocks=1")
    codec = make_codec("lossless_unet_polyphase", overrides=overrides)
    path = tmp_path_factory.mktemp("large") / "weights.safetensors"
    save_weights(codec, path)
    return str(path)


def call(function: Callable, *arguments: object) -> object:
    return function(*arguments)


def test_sizes_speeds_and_memory_are_those_of_real_files(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_process = large_images._in_a_process
    jobs = iter([in_a_process, in_a_process])  # a process each for the first size
    monkeypatch.setattr(
        large_images, "_in_a_process", lambda function, *arguments: next(jobs, call)(function, *arguments)
    )
    small, large = large_images.main(
        [checkpoint, "--megapixels", "0.02", "0.08", "--out", str(tmp_path / "sizes.md")]
    )
    assert (small.megapixels, large.megapixels) == pytest.approx((0.02, 0.08), rel=0.05)
    for row in (small, large):
        assert 1 < row.bpsp < 12
        assert min(row.encode_s, row.decode_s) > 0
        assert min(row.encode_bytes, row.decode_bytes) > 1e8  # torch alone
    assert "| 0.1 |" in capsys.readouterr().out
    assert "| 0.1 |" in (tmp_path / "sizes.md").read_text()
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".png", ".svg"}


def test_a_photograph_that_does_not_come_back_is_an_error(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_images, "_in_a_process", call)
    monkeypatch.setattr(
        large_images.LearnedCodec, "decode", lambda self, data: torch.zeros(3, 4, 4, dtype=torch.uint8)
    )
    with pytest.raises(ValueError, match="do not come back"):
        large_images.measured(checkpoint, 0.01, 1)


def test_a_photograph_has_the_size_asked_for_and_no_seam(photographs: list[Tensor]) -> None:
    image = large_images.photograph(1.5, 3)
    assert image.shape == (3, 1000, 1500)
    original = photographs[-1]
    height, width = original.shape[1:]
    assert torch.equal(image[:, :height, :width], original)
    assert torch.equal(image[:, height : 2 * height, :width], original.flip(1))


@pytest.mark.parametrize(("arguments", "said"), [(["--megapixels", "0"], "above 0"), ([], "nowhere")])
def test_wrong_arguments_are_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        large_images.main([str(tmp_path / "nowhere"), *arguments])
    assert said in capsys.readouterr().err
