"""The two commands that make figures of finished runs: what they draw, and what they say to wrong arguments."""

from pathlib import Path

import pytest
from conftest import ROOT, make_codec, run_python
from PIL import Image
from torch import Tensor

from codec.checkpoint import save_weights
from codec.data.image_file import write_image
from codec.results import write_results

ENVIRONMENT = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for n in range(3):
        row = {"name": "a", "bytes": 10, "bpp": 0.5 + n, "mse": 0.001, "psnr": 30.0 + n, "ssim": 0.8 + n / 20}
        write_results(tmp_path / f"runs/jpeg_q{n}", [row], {"codec": f"q{n}"})
    return tmp_path


def test_curves_are_drawn_of_result_folders(results: Path) -> None:
    curves = ("-m", "experiments.curves", "JPEG=runs/jpeg_q*", "two=runs/jpeg_q0,runs/jpeg_q2", "--label", "codec")
    run_python(*curves, "--out", "docs/curves.svg", cwd=results, **ENVIRONMENT)
    svg = (results / "docs/curves.svg").read_text()
    assert svg.count('id="line2d_') > 5
    for axis in (1, 2, 3):
        assert f'id="axes_{axis}"' in svg


def test_a_curve_without_results_is_one_line(results: Path) -> None:
    done = run_python(
        "-m", "experiments.curves", "none=runs/x*", "--out", "x.png", cwd=results, check=False, **ENVIRONMENT
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("no results.json in runs/x*; give NAME=runs/a,runs/b")
    assert not (results / "x.png").exists()


def test_pictures_set_a_codec_beside_jpeg(tmp_path: Path, photograph: Tensor) -> None:
    codec = make_codec("conv_baseline", overrides=("model.widths=[4,4]", "model.latent_channels=2"))
    save_weights(codec, tmp_path / "tiny.safetensors")
    (tmp_path / "images").mkdir()
    for name in ("a1", "b2"):
        write_image(tmp_path / f"images/{name}.png", photograph[:, :180, :200].contiguous())
    pictures = ("-m", "experiments.pictures", "tiny.safetensors", "--images", "images")
    run_python(*pictures, "--names", "a,c", "--crop", "128", "--out", "p.png", cwd=tmp_path, **ENVIRONMENT)
    width, height = Image.open(tmp_path / "p.png").size
    assert width > 3 * 128 > height > 128
    done = run_python(*pictures, "--names", "z", "--out", "q.png", cwd=tmp_path, check=False, **ENVIRONMENT)
    assert done.returncode == 2
    assert "no images at images (--names z)" in done.stderr
