"""Weights from elsewhere: what is taken, what is refused and in which words, and when they are asked for."""

import socket
from pathlib import Path

import pytest
import torch
from conftest import make_codec
from torch import Tensor, nn
from torchvision.models import get_model
from weights_server import Executes, write_weights

from codec.checkpoint import load_codec, save_weights
from codec.networks.pretrained import load_pretrained

pytest_plugins = "weights_server"


def layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 1))


def published(seed: int = 0) -> dict[str, Tensor]:
    """A state of `layers` below `features.`, and a classifier that is not wanted."""
    torch.manual_seed(seed)
    state = {f"features.{name}": torch.rand_like(value.float()) for name, value in layers().state_dict().items()}
    state["features.1.num_batches_tracked"] = torch.tensor(7)
    return {**state, "classifier.weight": torch.ones(3)}


def load(url: str) -> nn.Module:
    module = layers()
    load_pretrained(module, url, "features.", "Net-9", "net.pretrained=false")
    return module


def refusal(url: str) -> str:
    """The one line that refuses the weights at `url`; nothing of them has come into the module."""
    module = layers()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"^pretrained=true: Net-9's weights could not be fetched") as caught:
        load_pretrained(module, url, "features.", "Net-9", "net.pretrained=false")
    text = str(caught.value)
    assert "\n" not in text
    assert url in text
    assert "go online once" in text
    assert f"{torch.hub.get_dir()}/checkpoints" in text
    assert text.endswith("or set net.pretrained=false")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    return text


def test_the_weights_below_the_prefix_are_taken_and_others_left(server, hub):
    state = published()
    loaded = load(f"{server.url}/{write_weights(server.folder, state)}").state_dict()
    assert len(loaded) == len(state) - 1
    for name, value in loaded.items():
        assert torch.equal(value, state[f"features.{name}"])


def test_a_file_is_fetched_once_and_kept_under_its_name(server, hub):
    name = write_weights(server.folder, published())
    load(f"{server.url}/{name}")
    assert [path.name for path in hub.iterdir()] == [name]
    (server.folder / name).unlink()
    load(f"{server.url}/{name}")
    assert server.asked_for == [f"/{name}"]


def test_weights_from_before_batch_norm_counted_batches_are_taken(server, hub):
    """As are torchvision's for ResNets: trained in 2016, they have no `num_batches_tracked`."""
    state = {name: value for name, value in published().items() if "num_batches" not in name}
    loaded = load(f"{server.url}/{write_weights(server.folder, state)}").state_dict()
    assert torch.equal(loaded["1.running_var"], state["features.1.running_var"])


def test_a_wrong_hash_is_refused_and_the_file_not_kept(server, hub):
    url = f"{server.url}/{write_weights(server.folder, published(), digest='deadbeef')}"
    assert "hash" in refusal(url)
    assert list(hub.iterdir()) == []


def test_a_truncated_file_is_refused_and_not_kept(server, hub):
    name = write_weights(server.folder, published())
    (server.folder / name).write_bytes((server.folder / name).read_bytes()[:-100])
    assert "hash" in refusal(f"{server.url}/{name}")
    assert list(hub.iterdir()) == []


def test_a_file_that_was_truncated_in_the_cache_is_refused(server, hub):
    name = write_weights(hub, published())
    (hub / name).write_bytes((hub / name).read_bytes()[:-100])
    refusal(f"{server.url}/{name}")


def test_a_missing_file_is_refused(server, hub):
    assert "404" in refusal(f"{server.url}/weights-deadbeef.pth")


def test_no_server_at_all_is_refused(hub):
    with socket.socket() as closed:  # bound and never listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        assert "refused" in refusal(f"http://127.0.0.1:{closed.getsockname()[1]}/weights-deadbeef.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights-v2.pth", "weights-deadbee.pth", "deadbeef/weights.pth"])
def test_a_name_without_a_hash_is_refused_and_not_asked_for(name, server, hub):
    path = server.folder / name
    path.parent.mkdir(exist_ok=True)
    torch.save(published(), path)
    assert "hash" in refusal(f"{server.url}/{name}")
    assert server.asked_for == []


def test_a_pickle_with_code_is_refused_and_not_executed_though_its_hash_is_right(server, hub, tmp_path: Path):
    witness = tmp_path / "executed"
    refusal(f"{server.url}/{write_weights(server.folder, {'features.0.weight': Executes(witness)})}")
    assert not witness.exists()


def test_the_refusal_of_a_pickle_with_code_does_not_tell_how_to_run_it(server, hub, tmp_path: Path):
    text = refusal(f"{server.url}/{write_weights(server.folder, Executes(tmp_path / 'executed'))}")
    assert text.isprintable()
    assert "can still be loaded" not in text


def test_other_layers_names_are_refused(server, hub):
    state = {name.replace("features", "trunk"): value for name, value in published().items()}
    refusal(f"{server.url}/{write_weights(server.folder, state)}")


# ---- the encoder of quantized_autoencoder

SMALL = ("model.encoder=resnet18", "model.latent_channels=8", "model.widths=[4,4,4,4,4]")


def small_codec(*overrides: str):
    return make_codec("quantized_autoencoder", overrides=(*SMALL, *overrides))


def resnet18() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return get_model("resnet18", weights=None).state_dict()


def test_the_encoder_takes_the_weights_when_training_begins_and_not_before(server, hub):
    state = resnet18()
    name = write_weights(server.folder, state)
    codec = small_codec(f"model.pretrained_url={server.url}/{name}")
    assert server.asked_for == []
    before = {name: value.clone() for name, value in codec.state_dict().items()}
    codec.load_starting_weights()
    assert server.asked_for == [f"/{name}"]
    after = codec.state_dict()
    for key, value in after.items():
        wanted = state[key.removeprefix("encoder.")] if key.startswith("encoder.") else before[key]
        assert torch.equal(value, wanted), key
    assert not torch.equal(after["encoder.conv1.weight"], before["encoder.conv1.weight"])


def test_a_checkpoint_is_loaded_without_asking_for_them(server, hub, tmp_path: Path):
    codec = small_codec(f"model.pretrained_url={server.url}/{write_weights(server.folder, resnet18())}")
    weights = codec.encoder.conv1.weight.clone()
    save_weights(codec, tmp_path / "codec.safetensors")
    checkpoint = {"model_config": codec.model_config, "state_dict": codec.state_dict()}
    torch.save(checkpoint, tmp_path / "codec.ckpt")
    for file in ("codec.safetensors", "codec.ckpt"):
        assert torch.equal(load_codec(tmp_path / file).encoder.conv1.weight, weights)
    assert server.asked_for == []
    assert not hub.exists()


def test_without_pretrained_nothing_is_asked_for(server, hub):
    codec = small_codec("model.pretrained=false", f"model.pretrained_url={server.url}/weights-deadbeef.pth")
    weights = codec.encoder.conv1.weight.clone()
    codec.load_starting_weights()
    assert torch.equal(codec.encoder.conv1.weight, weights)
    assert server.asked_for == []


def test_weights_of_another_resnet_are_refused_with_what_to_set(server, hub):
    torch.manual_seed(0)
    url = f"{server.url}/{write_weights(server.folder, get_model('resnet34', weights=None).state_dict())}"
    codec = make_codec(
        "quantized_autoencoder", overrides=(*SMALL, "model.encoder=resnet50", f"model.pretrained_url={url}")
    )
    with pytest.raises(ValueError, match=r"^pretrained=true: resnet50's weights .* set model\.pretrained=false$"):
        codec.load_starting_weights()
