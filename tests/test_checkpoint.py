"""Checkpoints: ours load and decode; a stranger's is refused in one line, and nothing in it is executed."""

import collections
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from codec.checkpoint import CheckpointError, build_codec, find_checkpoint, load_codec, save_weights, start_from
from codec.entropy import EntropyBottleneck
from codec.learned_codec import LearnedCodec
from codec.schemes.conv_autoencoder import ConvBaseline


def config(**changes: Any) -> dict[str, Any]:
    prior = {"_target_": "codec.entropy.FactorizedPrior", "_partial_": True, "filters": [3]}
    bottleneck = {
        "_target_": "codec.entropy.EntropyBottleneck",
        "_partial_": True,
        "bits": 4,
        "noise": "uniform",
        "prior": prior,
    }
    return {
        "_target_": "codec.schemes.conv_autoencoder.ConvBaseline",
        "image_channels": 3,
        "widths": [8, 8],
        "latent_channels": 4,
        "bottleneck": bottleneck,
        **changes,
    }


@pytest.fixture(scope="module")
def codec() -> LearnedCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_codec(config()).eval()


@pytest.fixture(scope="module")
def image() -> Tensor:
    numbers = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 21, 18), generator=numbers, dtype=torch.uint8)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.ckpt"


def save(codec: LearnedCodec, path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_config": codec.model_config, "state_dict": codec.state_dict(), **changes}, path)
    return path


def refusal(path: Path) -> str:
    """Why the checkpoint is refused; a different exception, or none, fails the test."""
    with pytest.raises(CheckpointError) as caught:
        load_codec(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def gives_a_reason(text: str) -> bool:
    """Not broken off where a library's many lines begin, and nothing that a terminal would obey."""
    return text.isprintable() and not text.rstrip().endswith((":", "."))


# ---- ours


def test_a_config_becomes_its_codec(codec):
    assert type(codec) is ConvBaseline
    assert codec.model_config == config()
    assert codec.stride == 4
    assert codec.bottleneck.channels == 4
    assert codec.bottleneck.scale == 2**4


def test_a_loaded_codec_decodes_the_files_of_the_original_and_writes_the_same(codec, image, path):
    loaded = load_codec(save(codec, path))
    assert not loaded.training
    file = codec.encode(image)
    assert torch.equal(loaded.decode(file), codec.decode(file))
    assert loaded.encode(image) == file
    assert loaded.decode(file).shape == image.shape
    assert loaded.model_config == codec.model_config


def test_a_loaded_codec_can_be_saved_and_loaded_again(codec, image, path):
    again = load_codec(save(load_codec(save(codec, path)), path))
    assert again.encode(image) == codec.encode(image)


def test_a_loaded_codec_reads_the_tables_of_the_checkpoint(codec, image, path):
    """Other floats than the prior's, as another machine would have made: they are read, not recomputed."""
    state = codec.state_dict()
    tables = state["bottleneck.tables"].clone()
    tables[:, 1] -= (tables[:, 1] > 1).int()
    assert not torch.equal(tables, state["bottleneck.tables"])
    state["bottleneck.tables"] = tables
    loaded = load_codec(save(codec, path, state_dict=state))
    loaded.decode(loaded.encode(image))
    assert torch.equal(loaded.bottleneck.tables, tables)
    assert loaded.fingerprint() != codec.fingerprint()


def test_a_codec_loaded_under_inference_mode_works(codec, image, path):
    save(codec, path)
    with torch.inference_mode():
        loaded = load_codec(path)
        assert loaded.encode(image) == codec.encode(image)
    assert loaded.encode(image) == codec.encode(image)


# ---- a run's folder


def test_of_a_runs_folder_the_best_checkpoint_comes_before_the_last(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    last, best = run / "checkpoints/last.ckpt", run / "checkpoints/best.ckpt"
    last.touch()
    assert find_checkpoint(run) == last
    best.touch()
    assert find_checkpoint(run) == best
    assert find_checkpoint(str(last)) == last


def test_a_runs_folder_loads_its_best_codec(codec, image, tmp_path):
    other = build_codec(config())
    save(other, tmp_path / "checkpoints/last.ckpt")
    save(codec, tmp_path / "checkpoints/best.ckpt")
    assert load_codec(tmp_path).encode(image) == codec.encode(image)


@pytest.mark.parametrize("name", ["missing", "missing.ckpt", "."])
def test_where_there_is_no_checkpoint_it_says_what_to_give(tmp_path, name):
    assert "give a .ckpt file or a run's folder" in refusal(tmp_path / name)


# ---- a stranger's config


FORBIDDEN = [
    "os.system",
    "builtins.eval",
    "torch.hub.load",
    "codec.cli.main",
    "codec.checkpoint.torch.load",
    "codec.checkpoint.load_codec",
    "codec.checkpoint.CheckpointError",
    "codec.checkpoint.Path",
    "codec.checkpoint.nn.Identity",
    "codec.nowhere.Nothing",
    "codec.",
    "codec",
    "codecs.open",
    "codec.x\ny",
    "",
    3,
    None,
    ["os.system"],
]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_a_target_that_is_no_module_of_ours_is_refused_by_name(codec, path, target):
    with pytest.raises(CheckpointError, match="_target_") as caught:
        build_codec(config(_target_=target))
    assert "\n" not in str(caught.value)
    assert "_target_" in refusal(save(codec, path, model_config=config(_target_=target)))


def touching(witness: Path) -> dict[str, Any]:
    """A config node that makes a file when it is instantiated, by a name that Hydra itself does not block."""
    return {
        "_target_": "pathlib.Path.touch",
        "_args_": [{"_target_": "pathlib.Path", "_args_": [str(witness)]}],
    }


def test_the_payload_of_the_tests_below_works(tmp_path):
    from hydra.utils import instantiate

    instantiate(touching(tmp_path / "witness"))
    assert (tmp_path / "witness").exists()


NESTINGS = {
    "value": lambda node, _: config(widths=node),
    "list": lambda node, _: config(widths=[8, node]),
    "list of lists": lambda node, _: config(widths=[[8], [[node]]]),
    "dict": lambda node, _: config(widths={"a": {"b": node}}),
    "bottleneck": lambda node, _: config(bottleneck={**config()["bottleneck"], "prior": node}),
    "ordered dict": lambda node, _: config(widths=collections.OrderedDict(node)),
    "unknown argument": lambda node, _: config(surplus=node),
    "positional": lambda node, _: config(_args_=[node]),
    "tuple": lambda node, _: config(widths=(8, node)),
    "tuple in a list": lambda node, _: config(widths=[(node,)]),
    "interpolated name": lambda node, _: config(widths={**node, "_target_": "${name}"}, name=node["_target_"]),
    "oc.create": lambda _, witness: config(
        widths="${oc.create:{_target_: pathlib.Path.touch, _args_: [{_target_: pathlib.Path, _args_: ['"
        + str(witness)
        + "']}]}}"
    ),
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_a_foreign_target_is_found_and_not_called_wherever_it_hides(codec, path, tmp_path, nesting):
    witness = tmp_path / "executed"
    save(codec, path, model_config=NESTINGS[nesting](touching(witness), witness))
    refusal(path)
    assert not witness.exists()


def test_a_config_reads_nothing_from_the_environment(codec, path, monkeypatch):
    monkeypatch.setenv("QUINTET_TEST_SECRET", "4")
    refusal(save(codec, path, model_config=config(latent_channels="${oc.decode:${oc.env:QUINTET_TEST_SECRET}}")))


@pytest.mark.parametrize(
    ("foreign", "state"),
    [
        ({"_target_": "codec.entropy.FactorizedPrior", "channels": 2, "levels": 17}, "prior"),
        ({**config(), "_partial_": True}, "none"),
        ({}, "none"),
    ],
)
def test_a_config_of_something_that_is_no_codec_is_refused(codec, path, foreign, state):
    prior = EntropyBottleneck(2, 4, prior=build_codec(config()["bottleneck"]["prior"])).prior
    state = prior.state_dict() if state == "prior" else {}
    refusal(save(codec, path, model_config=foreign, state_dict=state))


@pytest.mark.parametrize(
    "changes", [{"latent_channels": -4}, {"latent_channels": "many"}, {"widths": []}, {"width": [8, 8]}]
)
def test_a_config_its_class_refuses_is_refused_with_the_classes_reason(codec, path, changes):
    text = refusal(save(codec, path, model_config=config(**changes)))
    assert gives_a_reason(text), text


# ---- a stranger's file


class Executes:
    """Unpickled without care, this makes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
@pytest.mark.parametrize("where", ["whole", "state_dict", "model_config", "hyper_parameters"])
def test_a_pickle_that_executes_code_is_refused_and_not_executed(codec, path, tmp_path, where, write):
    witness = tmp_path / "executed"
    evil = Executes(witness)
    checkpoint = evil if where == "whole" else {"model_config": config(), "state_dict": {}, where: evil}
    if write == "torch":
        torch.save(checkpoint, path)
    else:
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    refusal(path)
    assert not witness.exists()
    torch.load(save(codec, path, x=evil), weights_only=False)
    assert witness.exists(), "the payload is harmless: this test proves nothing"


def test_a_cut_checkpoint_is_refused(codec, path):
    whole = save(codec, path).read_bytes()
    for length in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.parametrize(
    "text",
    ["", "hello\n", "take me\n", "a list of weights\n", "epoch,loss\n0,1\n", "(a)\n", "u", "<html></html>", "}s."],
)
def test_a_text_file_is_no_checkpoint(path, text):
    path.write_text(text)
    assert "not a checkpoint" in refusal(path)


@pytest.mark.parametrize("start", [b"\x80\x02", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n", b""])
def test_random_bytes_raise_nothing_but_checkpoint_errors(path, start):
    numbers = torch.Generator().manual_seed(0)
    for length in range(80):
        noise = bytes(torch.randint(0, 256, (length,), generator=numbers).tolist())
        path.write_bytes(start + noise)
        refusal(path)


def test_a_checkpoint_with_a_damaged_pickle_raises_nothing_but_checkpoint_errors(codec, path):
    whole = save(codec, path).read_bytes()
    pickled = whole.index(b"data.pkl")
    numbers = torch.Generator().manual_seed(0)
    for _ in range(150):
        damaged = bytearray(whole)
        at = pickled + int(torch.randint(0, 1500, (), generator=numbers))
        damaged[at] = int(torch.randint(0, 256, (), generator=numbers))
        path.write_bytes(damaged)
        try:
            assert isinstance(load_codec(path), LearnedCodec)
        except CheckpointError as error:  # a change in a weight or in padding leaves a checkpoint
            if "\n" in str(error):
                pytest.fail(f"more than one line: {error}")


@pytest.mark.parametrize("content", [[1, 2], 3, {}, {"state_dict": {}}, {"model_config": "ConvBaseline"}])
def test_a_checkpoint_of_another_program_is_called_so(path, content):
    torch.save(content, path)
    assert "train.py" in refusal(path)


def test_a_checkpoint_without_weights_says_so(codec, path):
    torch.save({"model_config": config()}, path)
    assert "state_dict" in refusal(path)


@pytest.mark.parametrize("state", [None, 3, [], "weights", {"bottleneck.tables": 3}])
def test_weights_that_are_no_tensors_are_refused(codec, path, state):
    refusal(save(codec, path, state_dict=state))


def test_weights_of_other_shapes_are_named(codec, path):
    text = refusal(save(codec, path, model_config=config(latent_channels=5)))
    assert gives_a_reason(text), text
    assert re.search(r"g_a|g_s|bottleneck\.", text), f"names no weight: {text}"


def test_a_missing_and_a_surplus_weight_are_named(codec, path):
    state = codec.state_dict()
    state["surplus.weight"] = torch.zeros(1)
    assert "surplus.weight" in refusal(save(codec, path, state_dict=state))
    state = codec.state_dict()
    del state["bottleneck.tables"]
    assert "bottleneck.tables" in refusal(save(codec, path, state_dict=state))


def test_a_pickle_with_code_is_refused_without_advice_to_run_it_and_without_terminal_codes(codec, path, tmp_path):
    text = refusal(save(codec, path, surplus=Executes(tmp_path / "executed")))
    assert text.isprintable(), repr(text)
    assert "can still be loaded" not in text


@pytest.mark.parametrize("fault", ["zeros", "falling", "too long"])
def test_tables_that_are_no_cdfs_are_refused(codec, path, fault):
    """The coder trusts them: with these, what it decodes is not what it encoded."""
    state = codec.state_dict()
    tables = state["bottleneck.tables"].clone()
    changed = {"zeros": torch.zeros_like(tables), "falling": tables.flip(-1), "too long": tables * 2}
    state["bottleneck.tables"] = changed[fault]
    refusal(save(codec, path, state_dict=state))


# ---- safetensors


def save_tensors(codec: LearnedCodec, path: Path) -> Path:
    path = path.with_suffix(".safetensors")
    save_weights(codec, path)
    return path


def test_saved_weights_decode_the_files_of_the_original_with_its_tables(codec, image, path):
    state = codec.state_dict()
    tables = state["bottleneck.tables"].clone()
    tables[:, 1] -= (tables[:, 1] > 1).int()
    trained = load_codec(save(codec, path, state_dict={**state, "bottleneck.tables": tables}))
    loaded = load_codec(save_tensors(trained, path))
    file = trained.encode(image)
    assert torch.equal(loaded.decode(file), trained.decode(file))
    assert torch.equal(loaded.bottleneck.tables, tables)
    assert loaded.model_config == codec.model_config


def test_a_cut_safetensors_file_is_refused(codec, path):
    path = save_tensors(codec, path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 60), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refusal(path)


def test_a_safetensors_file_that_is_none_is_refused(path):
    path = path.with_suffix(".safetensors")
    for content in (b"", b"hello\n", b"\xff" * 100, bytes(100)):
        path.write_bytes(content)
        refusal(path)


@pytest.mark.parametrize(
    "metadata", [None, {}, {"model_config": "{"}, {"model_config": "3"}, {"model_config": "null"}]
)
def test_a_safetensors_file_of_another_program_is_refused(path, metadata):
    path = path.with_suffix(".safetensors")
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    refusal(path)


@pytest.mark.parametrize("nesting", [name for name in NESTINGS if "tuple" not in name])
def test_a_foreign_target_in_a_safetensors_file_is_not_called(codec, path, tmp_path, nesting):
    path, witness = path.with_suffix(".safetensors"), tmp_path / "executed"
    evil = NESTINGS[nesting](touching(witness), witness)
    save_file(codec.state_dict(), path, metadata={"model_config": json.dumps(evil)})
    refusal(path)
    assert not witness.exists()


def other(seed: int, **changes: Any) -> LearnedCodec:
    torch.manual_seed(seed)
    return build_codec(config(**changes)).eval()


def test_training_can_start_from_another_run_s_weights(codec: LearnedCodec, path: Path, image: Tensor) -> None:
    save(codec, path)
    started = other(1)
    line = start_from(started, path)
    parameters = dict(codec.named_parameters())
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in started.named_parameters())
    assert str(path) in line
    assert torch.equal(started.decode(started.encode(image)), codec.decode(codec.encode(image)))


def test_starting_from_a_run_of_other_bits_makes_tables_anew(
    codec: LearnedCodec, path: Path, image: Tensor
) -> None:
    save(codec, path)
    finer = {**config()["bottleneck"], "bits": 6}
    started = other(1, bottleneck=finer)
    start_from(started, path)
    assert started.bottleneck.current_tables().shape == (4, 66)
    assert bool((started.bottleneck.current_tables()[:, -1] == 65536).all())
    assert started.decode(started.encode(image)).shape == image.shape


def test_a_transform_s_steps_stay_those_of_its_own_bits(path: Path) -> None:
    def diffusion(bits: int) -> LearnedCodec:
        bottleneck = {**config()["bottleneck"], "bits": bits}
        target = "codec.schemes.diffusion.DiffusionAutoencoder"
        return build_codec({"_target_": target, "bottleneck": bottleneck, "shortcut": "dct", "skips": "none"})

    save(diffusion(6), path)
    started, fresh = diffusion(2), diffusion(2)
    line = start_from(started, path)
    taken, total = map(int, re.search(r"(\d+) of (\d+) weights fit", line).groups())
    assert taken == total
    assert torch.equal(started.shortcut.scale, fresh.shortcut.scale)


def test_starting_takes_what_fits_and_says_how_much(codec: LearnedCodec, path: Path) -> None:
    save(codec, path)
    started = other(1, latent_channels=6)
    kept = started.g_a[-1].weight.clone()
    line = start_from(started, path)
    taken, total = map(int, re.search(r"(\d+) of (\d+) weights fit", line).groups())
    assert 0 < taken < total
    assert torch.equal(started.g_a[0][0].weight, codec.g_a[0][0].weight)
    assert torch.equal(started.g_a[-1].weight, kept)


def test_starting_from_another_model_is_refused(codec: LearnedCodec, path: Path) -> None:
    save(codec, path)
    diffusion = {
        "_target_": "codec.schemes.diffusion.DiffusionAutoencoder",
        "bottleneck": {
            **config()["bottleneck"],
            "prior": {**config()["bottleneck"]["prior"], "filters": [2]},
        },
    }
    with pytest.raises(CheckpointError, match="shares no weights"):
        start_from(build_codec(diffusion), path)
