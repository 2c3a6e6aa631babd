"""Metrics that are measured if asked for: their values, where they are absent, what they need, and `metrics=[…]`.

LPIPS has tests of its own.
"""

import csv
import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_python
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torchvision.models import VGG16_Weights, get_model

from codec import further_metrics as measures
from codec.data.image_file import NamedImage
from codec.errors import ConfigError
from codec.further_metrics import METRICS, Dists, check_metrics, further_metrics
from codec.metrics import mean_of_rows

pytest_plugins = "weights_server"

BUILT_IN = ("psnr_y", "ciede2000")
OF_EXTRA = ("psnr_hvs_m", "ssimulacra2")
INSTALLED = [name for name in OF_EXTRA if find_spec(METRICS[name][1])]
RISE = {"psnr_y": True, "psnr_hvs_m": True, "ssimulacra2": True, "ciede2000": False}  # with the quality
AT_EQUAL = {"psnr_y": math.inf, "psnr_hvs_m": math.inf, "ssimulacra2": 100, "ciede2000": 0}

needs_extra = pytest.mark.skipif(len(INSTALLED) < len(OF_EXTRA), reason="the extra metrics is not installed")


def noisy(image: Tensor, sigma: float) -> Tensor:
    noise = sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def plain(*colour: int) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).reshape(-1, 1, 1).expand(-1, 16, 16).contiguous()


@pytest.mark.parametrize("name", [*BUILT_IN, *INSTALLED])
def test_equal_images_are_at_the_end_of_the_scale_and_worse_ones_farther(name, photograph):
    (metric,) = further_metrics([name]).values()
    values = [metric(image, photograph) for image in (photograph, noisy(photograph, 4), noisy(photograph, 30))]
    assert values[0] == AT_EQUAL[name]
    assert values == sorted(values, reverse=RISE[name])
    assert len(set(values)) == 3


@pytest.mark.parametrize("name", [*BUILT_IN, *INSTALLED])
def test_greyscale_is_seen_as_three_equal_channels(name, photograph):
    (metric,) = further_metrics([name]).values()
    grey, worse = photograph[:1], noisy(photograph, 20)[:1]
    expected = metric(worse.repeat(3, 1, 1), grey.repeat(3, 1, 1))
    assert metric(worse, grey) == pytest.approx(expected, abs=1e-3)


def test_psnr_y_is_the_psnr_of_bt601_luma(photograph):
    decoded = noisy(photograph, 12)
    luma = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in (i.double().numpy() for i in (photograph, decoded))]
    assert measures.psnr_y(decoded, photograph) == pytest.approx(
        peak_signal_noise_ratio(*luma, data_range=255), abs=1e-4
    )


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [((0, 0, 0), (255, 255, 255), 100.0), ((255, 0, 0), (0, 255, 0), 86.608), ((0,), (255,), 100.0)],
)
def test_ciede2000_of_known_colours(one, other, difference):
    assert measures.ciede2000(plain(*one), plain(*other)) == pytest.approx(difference, abs=1e-3)


@needs_extra
def test_psnr_hvs_m_sees_less_noise_where_there_is_texture():
    texture = noisy(plain(128, 128, 128).repeat(1, 4, 4), 40)
    flat = plain(128, 128, 128).repeat(1, 4, 4)
    noise = torch.randint(-6, 7, flat.shape, generator=torch.Generator().manual_seed(1))
    on_texture, on_flat = ((image + noise).clamp(0, 255).to(torch.uint8) for image in (texture, flat))
    assert measures.psnr_hvs_m(on_texture, texture) > measures.psnr_hvs_m(on_flat, flat) + 3


@needs_extra
def test_psnr_hvs_m_takes_any_size(photograph):
    for height, width in [(64, 64), (61, 35), (3, 8)]:
        image = photograph[:, :height, :width]
        assert 10 < measures.psnr_hvs_m(noisy(image, 12), image) < 60


@pytest.mark.parametrize("name", [name for name in ("psnr_y", *INSTALLED) if name.startswith("psnr")])
@pytest.mark.parametrize("colours", [((0, 0, 34), (11, 1, 0)), ((251, 28, 185), (254, 49, 69))])
def test_metrics_of_the_luma_are_infinite_where_other_colours_have_the_same(name, colours):
    (metric,) = further_metrics([name]).values()
    assert metric(*(plain(*colour) for colour in colours)) == math.inf


@needs_extra
def test_psnr_hvs_m_is_100_where_all_of_the_difference_is_masked():
    board = torch.full((3, 8, 8), 20, dtype=torch.uint8)
    board[:, ::2, 1::2] = board[:, 1::2, ::2] = 235
    other = board.clone()
    other[:, 0, :2] += torch.tensor([1, -1]).byte()  # the mean, which nothing masks, stays
    assert measures.psnr_y(other, board) < 70
    assert measures.psnr_hvs_m(other, board) == 100


@needs_extra
@pytest.mark.filterwarnings("error")
def test_nothing_is_printed_by_the_library(photograph, capsys):
    measures.psnr_hvs_m(plain(9, 9, 9), plain(8, 8, 8))
    measures.psnr_hvs_m(noisy(photograph, 5), photograph)
    assert capsys.readouterr() == ("", "")


@needs_extra
def test_ssimulacra2_is_absent_where_a_side_is_too_small(photograph):
    for height, width, there in [(8, 8, True), (7, 64, False), (64, 7, False)]:
        image = photograph[:, :height, :width]
        assert (measures.ssimulacra2(noisy(image, 9), image) is not None) is there


def put_weights(hub: Path) -> None:
    """Random ones of the layers that are used; of the others a single zero takes the place."""
    torch.manual_seed(0)
    state = get_model("vgg16", weights=None).state_dict()
    hub.mkdir(parents=True)
    unused = {name: torch.zeros(()).expand(w.shape) for name, w in state.items() if name.startswith("classifier")}
    torch.save({**state, **unused}, hub / VGG16_Weights.DEFAULT.url.rpartition("/")[2])


def test_dists_is_zero_of_equal_images_and_grows(hub, photograph):
    put_weights(hub)
    dists = Dists()
    image = photograph[:, :64, :64]
    assert dists(image, image) == pytest.approx(0, abs=1e-5)
    assert 0 < dists(noisy(image, 5), image) < dists(noisy(image, 60), image)
    assert dists(noisy(image, 5)[:1, :1, :1], image[:1, :1, :1]) is not None


def test_dists_without_network_is_one_line(hub, monkeypatch):
    monkeypatch.setattr(VGG16_Weights.IMAGENET1K_V1.value, "url", "http://127.0.0.1:9/vgg16-deadbeef.pth")
    with pytest.raises(ConfigError, match=r"^metrics=dists: vgg16's weights could not be fetched.*or set metrics="):
        Dists()


# ---- by name


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["foo"], r"^metrics=foo: allowed are psnr_y, ciede2000, psnr_hvs_m, ssimulacra2, dists$"),
        (["psnr_y", "psnr_y"], r"^metrics=\['psnr_y', 'psnr_y'\]: name each once$"),
        ("dists", r"^metrics=dists: a list, as in metrics=\[dists\]$"),
        (None, r"^metrics=null: a list, as in metrics=\[dists\]$"),
    ],
)
def test_wrong_names_are_refused(names, line):
    with pytest.raises(ConfigError, match=line):
        check_metrics(names)


def test_a_metric_whose_package_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(METRICS, "psnr_hvs_m", (lambda: None, "no_such_package"))
    with pytest.raises(
        ConfigError, match=r"^metrics=psnr_hvs_m: it needs no_such_package: pip install '.*\[metrics\]'"
    ):
        further_metrics(["psnr_y", "psnr_hvs_m"])


def test_a_mean_is_over_what_is_finite():
    rows = [{"psnr": 30.0, "psnr_y": 31.0}, {"psnr": 40.0, "psnr_y": math.inf}]
    assert mean_of_rows(rows) == {"psnr": 35.0, "psnr_y": 31.0, "lossless": 0}


def test_evaluate_writes_them_beside_the_other_measures(tmp_path, photograph):
    from codec.baselines import Jpeg
    from codec.measure import measure

    arguments = ["model=jpeg", "model.quality=30", "data=samples", "data.limit=1", "data.num_workers=0"]
    done = run_python(ROOT / "evaluate.py", *arguments, "metrics=[ciede2000,psnr_y]", cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    results = json.loads((folder / "results.json").read_text())
    expected = measure(Jpeg(30), NamedImage("a", photograph), further_metrics(BUILT_IN)).row
    (row,) = csv.DictReader((folder / "per_image.csv").read_text().splitlines())
    for name in BUILT_IN:
        assert results[name] == float(row[name]) == pytest.approx(expected[name], rel=1e-6)
        assert name in done.stdout
