"""The demo shows what is there, trains, shows what it trained, and fails where that is worse than it should be."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import composed, popen_warm
from warm_python import Fork

from codec.data.image_file import read_image
from codec.pretrained import DEFAULT
from codec.training.results import read_results
from experiments import demo

# Two steps of the preset, and photographs' middle pixels alone.
TINY = [
    *("epochs=1", "data.crop_size=32", "data.batch_size=4", "data.crops_per_image=2", "data.limit=4"),
    *("data.eval_crop=48", "model.widths=[8,8]", "model.latent_channels=4", "~callbacks.progress"),
]

SUFFIXES = {"jpeg": ".jpg", "webp": ".webp"}


def run_shown(command: list[str], check: bool) -> Fork:
    with popen_warm(command, dict(os.environ)) as done:
        return done


def test_the_demo_trains_what_it_forecasts_and_fails_on_a_codec_that_is_worse_than_expected(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=run_shown))
    assert demo.main(TINY) == 1
    said = capfd.readouterr()
    out = said.out.splitlines()
    (forecast,) = [line for line in out if line.startswith("training: ")]
    assert forecast.startswith("training: 2 steps in ")
    assert " seconds on " in forecast
    assert out.index(forecast) > max(n for n, line in enumerate(out) if line.startswith(f"{DEFAULT} "))
    assert out.index(forecast) < min(n for n, line in enumerate(out) if line.startswith("conv_baseline "))
    (error,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert " after 2 of 2 steps, expected are " in error
    for part, codec in (("best", DEFAULT), ("trained", "conv_baseline")):
        for name in (codec, "jpeg", "webp"):
            folder = Path("demo", part, name)
            assert read_results(folder / "results.json")["images"] == 3
            assert {file.suffix for file in folder.glob("files/*")} == {SUFFIXES.get(name, ".qnt")}
            assert [read_image(file).shape for file in folder.glob("decoded/*")] == [(3, 48, 48)] * 3
        assert Path("demo", f"{part}.png").is_file()

    assert demo.main([*TINY, "expected.psnr=3", "expected.bpp=99"]) == 0  # of the same training, which is done
    said = capfd.readouterr()
    assert "training: " not in said.out
    assert "error" not in said.err


def test_a_codec_is_as_it_should_be_or_what_it_lacks_is_said() -> None:
    expected = composed("train", ["experiment=demo"]).expected
    good = {"psnr": expected.psnr, "bpp": expected.bpp}
    assert demo.shortfall(good, expected, 1800, 1800) is None
    for worse in ({**good, "psnr": 16.6}, {**good, "bpp": 3.0}):
        said = demo.shortfall(worse, expected, 30, 1800)
        assert f"{worse['psnr']:.2f} dB at {worse['bpp']:.3f} bpp after 30 of 1,800 steps" in said
