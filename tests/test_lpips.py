"""LPIPS: its value, where it is absent, what is said without its weights, and `evaluate.py lpips=…`.

The networks' ImageNet weights are not there: random ones lie where torch.hub would have put them.
"""

import csv
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, make_codec, run_python
from torch import Tensor, nn
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import SqueezeNet1_1_Weights, get_model
from weights_server import write_weights

from codec.baselines import Jpeg
from codec.data.image_file import NamedImage
from codec.further_metrics import LPIPS_NETWORKS, Lpips
from codec.measure import measure

pytest_plugins = "weights_server"

PUBLISHED = SqueezeNet1_1_Weights.IMAGENET1K_V1.value
EVALUATE = ROOT / "evaluate.py"


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return get_model("squeezenet1_1", weights=None).state_dict()


def put_weights(hub: Path, seed: int = 0) -> None:
    hub.mkdir(parents=True, exist_ok=True)
    torch.save(weights(seed), hub / PUBLISHED.url.rpartition("/")[2])


@pytest.fixture
def lpips(hub: Path) -> Lpips:
    put_weights(hub)
    return Lpips("squeeze")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that refuses connections."""
    with socket.socket() as closed:  # bound and never listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        yield closed.getsockname()[1]


def noisy(image: Tensor, sigma: float) -> Tensor:
    noise = sigma * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


# ---- the value


def test_it_is_torchmetrics_value_of_images_from_minus_one_to_one(lpips, photographs):
    for photograph in photographs:
        decoded = noisy(photograph, 20)
        x_hat, x = (image[None].float() / 127.5 - 1 for image in (decoded, photograph))
        expected = learned_perceptual_image_patch_similarity(x_hat, x, net_type="squeeze").item()
        assert expected > 1e-4
        assert lpips(decoded, photograph) == pytest.approx(expected, rel=1e-4)


def test_equal_images_are_at_zero_and_a_worse_one_is_farther(lpips, photograph):
    assert lpips(photograph, photograph) == 0
    assert 0 < lpips(noisy(photograph, 5), photograph) < lpips(noisy(photograph, 50), photograph)


def test_it_does_not_remember_the_images_before(lpips, photograph):
    alone = lpips(noisy(photograph, 5), photograph)
    lpips(noisy(photograph, 80), photograph)
    assert lpips(noisy(photograph, 5), photograph) == alone


def test_greyscale_is_seen_as_three_equal_channels(lpips, photograph):
    grey, worse = photograph[:1], noisy(photograph, 20)[:1]
    assert lpips(worse, grey) == lpips(worse.repeat(3, 1, 1), grey.repeat(3, 1, 1)) > 0


def test_it_is_measured_by_the_weights_in_the_file(hub, photograph):
    values = []
    for seed in (0, 1, 0):
        put_weights(hub, seed)
        values.append(Lpips("squeeze")(noisy(photograph, 20), photograph))
    assert values[0] == values[2] != values[1]


@pytest.mark.parametrize("network", LPIPS_NETWORKS)
def test_the_least_side_is_the_least_that_the_network_can_take(network):
    _, side = LPIPS_NETWORKS[network]
    net = _LPIPS(net=network, pnet_rand=True)
    for height, width in [(side, side), (side, 64), (64, side)]:
        assert bool(net(torch.zeros(1, 3, height, width), torch.ones(1, 3, height, width)).isfinite())
    for height, width in [(side - 1, 64), (64, side - 1)]:
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 3, height, width), torch.ones(1, 3, height, width))


def test_it_is_absent_where_a_side_is_too_small(lpips, photograph):
    decoded = noisy(photograph, 20)
    for height, width in [(16, 100), (100, 16), (1, 1)]:
        assert lpips(decoded[:, :height, :width], photograph[:, :height, :width]) is None
    assert lpips(decoded[:, :17, :17], photograph[:, :17, :17]) > 0


def test_the_random_state_is_left_alone(hub):
    put_weights(hub)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    Lpips("squeeze")
    assert torch.equal(torch.get_rng_state(), state)


# ---- in a codec's row


def test_a_row_has_it_where_it_is_set_and_the_image_is_large_enough(lpips, photograph):
    codec = Jpeg(50)
    assert "lpips" not in measure(codec, NamedImage("a", photograph)).row
    expected = lpips(codec.decode(codec.encode(photograph)), photograph)
    assert measure(codec, NamedImage("a", photograph), {"lpips": lpips}).row["lpips"] == expected > 0
    assert "lpips" not in measure(codec, NamedImage("a", photograph[:, :16]), {"lpips": lpips}).row


def test_it_is_no_part_of_a_codecs_weights_or_fingerprint(lpips, photograph):
    codec = make_codec("conv_baseline", overrides=("model.widths=[8,8]", "model.latent_channels=4"))
    before = set(codec.state_dict()), sum(1 for _ in codec.parameters()), codec.fingerprint()
    measure(codec, NamedImage("a", photograph[:, :64, :64]), {"lpips": lpips})
    assert (set(codec.state_dict()), sum(1 for _ in codec.parameters()), codec.fingerprint()) == before
    assert not isinstance(lpips, nn.Module)


# ---- its weights


def refusal() -> str:
    with pytest.raises(ValueError, match=r"^lpips=squeeze: squeezenet1_1's weights could not be fetched") as caught:
        Lpips("squeeze")
    text = str(caught.value)
    assert text.isprintable(), f"not one line: {text!r}"
    assert PUBLISHED.url in text
    assert text.endswith("or set lpips=null")
    return text


def test_the_weights_are_fetched_once(server, hub, monkeypatch):
    name = write_weights(server.folder, weights())
    monkeypatch.setattr(PUBLISHED, "url", f"{server.url}/{name}")
    Lpips("squeeze")
    Lpips("squeeze")
    assert server.asked_for == [f"/{name}"]
    assert [path.name for path in hub.iterdir()] == [name]


def test_weights_of_a_wrong_hash_are_refused_and_not_kept(server, hub, monkeypatch):
    name = write_weights(server.folder, weights(), digest="deadbeef")
    monkeypatch.setattr(PUBLISHED, "url", f"{server.url}/{name}")
    assert "deadbeef" in refusal()
    assert list(hub.iterdir()) == []


def test_without_network_one_line_says_what_to_do(hub, closed_port, monkeypatch):
    monkeypatch.setattr(PUBLISHED, "url", f"http://127.0.0.1:{closed_port}/squeezenet1_1-deadbeef.pth")
    text = refusal()
    assert "refused" in text
    assert "go online once" in text
    assert str(hub) in text


def test_a_damaged_file_in_the_cache_is_refused(hub):
    put_weights(hub)
    (file,) = hub.iterdir()
    file.write_bytes(file.read_bytes()[:10_000])
    refusal()


def test_weights_of_another_network_in_the_cache_are_refused(hub):
    put_weights(hub)
    (file,) = hub.iterdir()
    torch.save(get_model("resnet18", weights=None).state_dict(), file)
    refusal()


@pytest.mark.parametrize("network", ["foo", "", "Alex", 1])
def test_an_unknown_network_is_refused_with_those_there_are(network):
    with pytest.raises(ValueError, match=f"^lpips={network}: allowed are alex, vgg, squeeze$"):
        Lpips(network)


# ---- evaluate.py


def test_evaluate_writes_it_beside_the_other_measures(hub, tmp_path, photograph):
    put_weights(hub)
    arguments = ["model=jpeg", "model.quality=30", "data=samples", "data.limit=1", "data.num_workers=0"]
    done = run_python(EVALUATE, *arguments, "lpips=squeeze", cwd=tmp_path, TORCH_HOME=str(tmp_path / "torch"))
    (folder,) = (tmp_path / "runs").iterdir()
    results = json.loads((folder / "results.json").read_text())
    codec = Jpeg(30)
    expected = Lpips("squeeze")(codec.decode(codec.encode(photograph)), photograph)
    assert results["images"] == 1
    assert results["lpips"] == pytest.approx(expected, rel=1e-4)
    assert f"{results['lpips']:.4f}" in done.stdout
    (row,) = csv.DictReader((folder / "per_image.csv").read_text().splitlines())
    assert float(row["lpips"]) == results["lpips"]
    (metrics,) = folder.rglob("metrics.csv")
    (logged,) = csv.DictReader(metrics.read_text().splitlines())
    assert float(logged["test/lpips"]) == pytest.approx(results["lpips"], rel=1e-6)


def refused(tmp_path: Path, *overrides: str, **environment: str) -> str:
    """The one line on stderr, nothing having been measured."""
    done = run_python(EVALUATE, "model=jpeg", "data=samples", *overrides, cwd=tmp_path, check=False, **environment)
    assert done.returncode == 2
    assert not (tmp_path / "runs").exists()
    (line,) = done.stderr.splitlines()
    return line


def test_evaluate_refuses_an_unknown_network_in_one_line(tmp_path):
    assert refused(tmp_path, "lpips=foo") == "error: lpips=foo: allowed are alex, vgg, squeeze"


def test_evaluate_without_network_says_in_one_line_what_to_do(tmp_path, hub, closed_port):
    proxy = {"https_proxy": f"http://127.0.0.1:{closed_port}", "no_proxy": "", "NO_PROXY": ""}
    line = refused(tmp_path, "lpips=squeeze", TORCH_HOME=str(tmp_path / "torch"), **proxy)
    assert line.startswith(
        f"error: lpips=squeeze: squeezenet1_1's weights could not be fetched from {PUBLISHED.url} ("
    )
    assert line.endswith(f"go online once, put the file into {hub}, or set lpips=null")
