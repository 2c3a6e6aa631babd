"""How a finished run was trained, in words that name no path of the machine it was trained on."""

import inspect
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from codec.errors import CheckpointError
from codec.learned_codec import LearnedCodec
from codec.training.results import read_results

SOURCES = {
    "Bsd300Source": "BSDS300's 200 training images (for non-commercial research and education)",
    "RaiseSource": "RAISE (for non-commercial research and education)",
    "SamplesSource": "the 11 training photographs packaged with scikit-image",
}

# Where a run was put and watched: no part of how it was trained.
ELSEWHERE = ("runs", "folder", "logger", "resume", "test")
NOT_IN_COMMANDS = re.compile(r"(runs|folder|logger|callbacks\.progress|callbacks\.panel)[.=]")


def training(checkpoint: Path, photographs: str | None = None, trained: str | None = None) -> dict[str, Any]:
    """What `Weights.training` holds, of a finished run's checkpoint.

    `photographs` says what the images of a folder of its own were, `trained` how long and on what it trained if the
    run has not recorded that. Raises CheckpointError where one of them is needed, or the run is not finished.
    """
    folder = checkpoint.resolve().parents[1]
    if not (folder / "results.json").is_file():
        raise CheckpointError(f"{checkpoint} is not of a finished run: {folder} has no results.json")
    results = read_results(folder / "results.json")
    if trained is None and "train_minutes" not in results:
        raise CheckpointError(f"{folder.name} has not recorded its time: say it, --trained '20 minutes on 1 core'")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    commands = (folder / "provenance/commands.txt").read_text(encoding="utf-8").splitlines()
    return {
        "data": _described(OmegaConf.load(folder / "config.yaml").data, photographs),
        "run": folder.name,
        "command": _plain_command(commands[-1]),
        "minutes": results.get("train_minutes"),
        "hardware": results["hardware"],
        "time": trained or f"{results['train_minutes']:.0f} minutes on {results['hardware']}",
        **{key: results[key] for key in ("precision", "stopped") if key in results},
        "commit": results.get("commit", "unknown"),
        "epochs": results["epochs"],
        "epoch": saved["epoch"] + 1,  # Lightning counts from 0
        "steps": saved["global_step"],
    }


def plain_config(checkpoint: Path) -> DictConfig:
    """The resolved config of a run, less where it was put."""
    config = OmegaConf.to_container(OmegaConf.load(checkpoint.resolve().parents[1] / "config.yaml"))
    return OmegaConf.create(_without_local_paths({k: v for k, v in config.items() if k not in ELSEWHERE}))


def description_and_source(codec: LearnedCodec) -> tuple[str, str]:
    """What a codec is, in a line, and where it comes from: the first two paragraphs of its scheme's module.

    Where a module has several codecs, the first line of its own class says what it is. Of one paragraph, the source
    is empty.
    """
    module = sys.modules[type(codec).__module__]
    first, source, *_ = [*(inspect.getdoc(module) or type(codec).__name__).split("\n\n"), ""]
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    one_of_several = sum(issubclass(c, LearnedCodec) for c in classes) > 1
    about = (
        inspect.getdoc(type(codec)).partition("\n")[0] if one_of_several else (first.partition(": ")[2] or first)
    )
    return about, " ".join(source.split())


def _described(data: DictConfig, photographs: str | None) -> str:
    texts = [" and ".join(dict.fromkeys(_sources(data.train, photographs)))]
    if data.val is None:
        texts.append(f"{100 * data.val_fraction:.0f} % of them to validate on")
    if data.resize is not None:
        sides = [data.resize] if isinstance(data.resize, int) else data.resize
        texts.append(f"resized to {'×'.join(map(str, sides))}")
    if data.channels == 1:
        texts.append("in grey")
    texts.append("whole images" if data.crop_size is None else f"crops of {data.crop_size}×{data.crop_size}")
    return ", ".join(texts)


def _sources(source: DictConfig, photographs: str | None) -> list[str]:
    kind = source._target_.rpartition(".")[2]
    if kind == "SeveralSources":
        return [text for part in source.sources.values() for text in _sources(part, photographs)]
    text = SOURCES.get(kind, photographs)
    if text is None:
        raise CheckpointError(f"it was trained on a {kind}: say what was in it, and its terms, with --photographs")
    return [text]


def _plain_command(command: str) -> str:
    words = [word for word in shlex.split(command) if not NOT_IN_COMMANDS.match(word)]
    return shlex.join(_without_local_paths(words))


def _without_local_paths(node: Any) -> Any:
    """Absolute paths below $QUINTET_DATA as below `data`, its default; of others, the last part."""
    if isinstance(node, dict):
        return {key: _without_local_paths(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_local_paths(value) for value in node]
    if not isinstance(node, str):
        return node
    key, equals, value = node.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return node
    root = Path(os.environ.get("QUINTET_DATA", "data")).resolve()
    return f"{key}{equals}{Path('data') / path.relative_to(root) if path.is_relative_to(root) else path.name}"
