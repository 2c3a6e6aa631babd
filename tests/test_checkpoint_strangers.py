"""A stranger's checkpoint is refused in one line, and nothing in it is executed."""

import collections
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import TABLES, config, made, refusal, save, save_tensors
from safetensors.torch import save_file
from weights_server import Executes

from codec.checkpoint import CheckpointError, build_codec, load_codec
from codec.entropy import EntropyBottleneck
from codec.learned_codec import LearnedCodec


@pytest.fixture(scope="module")
def codec() -> LearnedCodec:
    return made()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.ckpt"


def gives_a_reason(text: str) -> bool:
    """Not broken off where a library's many lines begin, and nothing that a terminal would obey."""
    return text.isprintable() and not text.rstrip().endswith((":", "."))


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


def test_a_module_that_is_no_model_s_is_not_even_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "codec.cli.__main__", raising=False)
    target = "codec.cli.__main__.X"  # whose import runs the command
    assert "only codecs and neural modules" in refusal(save(made(), path, model_config=config(_target_=target)))
    assert "codec.cli.__main__" not in sys.modules


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
        ({"_target_": "codec.entropy.FactorizedPrior", "channels": [2], "reach": 8}, "prior"),
        ({**config(), "_partial_": True}, "none"),
        ({}, "none"),
    ],
)
def test_a_config_of_something_that_is_no_codec_is_refused(codec, path, foreign, state):
    prior = EntropyBottleneck([2], 4, prior=build_codec(config()["bottleneck"]["prior"])).prior
    state = prior.state_dict() if state == "prior" else {}
    refusal(save(codec, path, model_config=foreign, state_dict=state))


@pytest.mark.parametrize(
    "changes", [{"latent_channels": -4}, {"latent_channels": "many"}, {"widths": []}, {"width": [8, 8]}]
)
def test_a_config_its_class_refuses_is_refused_with_the_classes_reason(codec, path, changes):
    text = refusal(save(codec, path, model_config=config(**changes)))
    assert gives_a_reason(text), text


# ---- a stranger's file


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


@pytest.mark.parametrize("state", [None, 3, [], "weights", {TABLES: 3}])
def test_weights_that_are_no_tensors_are_refused(codec, path, state):
    refusal(save(codec, path, state_dict=state))


def test_weights_of_other_shapes_are_named(codec, path):
    text = refusal(save(codec, path, model_config=config(latent_channels=5)))
    assert gives_a_reason(text), text
    assert re.search(r"encoder|decoder|bottleneck\.", text), f"names no weight: {text}"


def test_a_missing_and_a_surplus_weight_are_named(codec, path):
    state = codec.state_dict()
    state["surplus.weight"] = torch.zeros(1)
    assert "surplus.weight" in refusal(save(codec, path, state_dict=state))
    state = codec.state_dict()
    del state[TABLES]
    assert TABLES in refusal(save(codec, path, state_dict=state))


def test_a_pickle_with_code_is_refused_without_advice_to_run_it_and_without_terminal_codes(codec, path, tmp_path):
    text = refusal(save(codec, path, surplus=Executes(tmp_path / "executed")))
    assert text.isprintable(), repr(text)
    assert "can still be loaded" not in text


@pytest.mark.parametrize("fault", ["zeros", "falling", "too long"])
def test_tables_that_are_no_cdfs_are_refused(codec, path, fault):
    """The coder trusts them: with these, what it decodes is not what it encoded."""
    state = codec.state_dict()
    tables = state[TABLES].clone()
    changed = {"zeros": torch.zeros_like(tables), "falling": tables.flip(-1), "too long": tables * 2}
    state[TABLES] = changed[fault]
    refusal(save(codec, path, state_dict=state))


def test_all_that_a_conditional_prior_decodes_with_is_checked(path: Path) -> None:
    prior = {"_target_": "codec.entropy.priors.channel_context.ChannelContextPrior", "_partial_": True}
    options = {"features": 4, "slices": 2, "hyper": True}
    codec = build_codec(config(bottleneck={**config()["bottleneck"], "prior": {**prior, **options}}))
    state = codec.state_dict()
    assert isinstance(load_codec(save(codec, path)), LearnedCodec)
    tables = [name for name in state if name.endswith(".tables")]
    assert len(tables) == 2
    exact = [
        f"bottleneck.prior.{name}"
        for name, _ in codec.bottleneck.prior.named_parameters()
        if name.startswith("networks.") or ".expand." in name or ".ups." in name
    ]
    assert len(exact) > 20
    forged = [(name, torch.zeros_like(state[name]), "not cumulative counts") for name in tables]
    forged += [(f"{name}_of", state[f"{name}_of"] + 1, "not made from its prior") for name in tables]
    forged += [(name, torch.full_like(state[name], 1e30), "not usable") for name in exact]
    forged += [("bottleneck.prior.tables.shifts", torch.zeros(512, dtype=torch.int64), "shifts")]
    for name, tensor, reason in forged:
        assert re.search(reason, refusal(save(codec, path, state_dict={**state, name: tensor}))), name


# ---- a stranger's safetensors


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


def test_of_own_modules_only_those_named_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (
        ("mine/__init__.py", "from torch.nn import Identity\nfrom mine.parts import Part"),
        ("mine/parts.py", "from torch import nn\nclass Part(nn.Identity): pass"),
        ("mine/other.py", "raise SystemExit('imported')"),
        ("broken.py", "1 / 0"),
        ("needs.py", "import not_installed"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("QUINTET_MODULES", "mine, broken,needs,nowhere")
    assert type(build_codec({"_target_": "mine.Part"})).__name__ == "Part"
    for target, fault in (
        ("mine.other.Thing", "only codecs and neural modules"),
        ("mine.Identity", "only codecs and neural modules"),
        ("mine.Nothing", "importing it fails: AttributeError: module 'mine' has no attribute 'Nothing'"),
        ("broken.Thing", "importing it fails: ZeroDivisionError: division by zero$"),
        ("needs.Thing", "No module named 'not_installed'$"),
        ("nowhere.Thing", "No module named 'nowhere': PYTHONPATH names"),
    ):
        with pytest.raises(CheckpointError, match=fault):
            build_codec({"_target_": target})
