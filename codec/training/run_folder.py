"""Run folders: where a run lives follows from what was asked for, and the folder tells how it was made."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from codec.checkpoint_files import find_checkpoint
from codec.errors import CheckpointError, ConfigError
from codec.pretrained import choose
from codec.training.provenance import write_provenance
from codec.training.results import read_results
from codec.training.run_state import RunState, lock

# Neither where a run is put nor how it is watched changes what it computes.
_NOT_IDENTITY = ("runs", "folder", "resume", "more_epochs", "test", "logger", "job_type", "save_files", "expected")
# A folder from before they were there is still found.
_NOT_IDENTITY_UNLESS_SET = ("metrics", "target_bpp")
_NOT_IDENTITY_BELOW = {
    "data": ("num_workers", "cache", "codings_folder"),
    "callbacks": ("progress", "panel", "timer"),
    "trainer": ("default_root_dir", "log_every_n_steps", "profiler"),
}


class RunFolder:
    """`<runs>/<name>-<hash of the resolved config>`, with

    config.yaml        the resolved config          checkpoints/       best.ckpt, last.ckpt
    provenance/        command, commit, diff, packages, precision    metrics/     the curves as CSV
    results.json       written last: the run is done      per_image.csv  before that, per_image.jsonl
    finished/          weights that had come to their end before a longer or a new training
    state.json         running, done, failed or cut off
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, config: DictConfig) -> "RunFolder":
        """The folder that `config` asks for; its name is `config.name` or made of the chosen options."""
        elsewhere = OmegaConf.merge(config, {"folder": None})  # or other parts of the config would repeat it
        plain = OmegaConf.to_container(elsewhere, resolve=True, throw_on_missing=False)
        name = str(plain["name"] or "") or "_".join(choices("model", "data", "quantization", "loss"))
        if not re.fullmatch(r"[\w.,=+-]+", name):
            raise ConfigError("name", name, "allowed are letters, digits and any of . , = + - _")
        identity = {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}
        identity = {k: v for k, v in identity.items() if v or k not in _NOT_IDENTITY_UNLESS_SET}
        for group, keys in _NOT_IDENTITY_BELOW.items():
            if isinstance(identity.get(group), dict):
                identity[group] = {k: v for k, v in identity[group].items() if k not in keys}
        identity = _without_places(identity)
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        return cls(Path(plain["runs"]) / f"{name}-{digest[:8]}")

    @property
    def results(self) -> dict[str, Any] | None:
        """What results.json holds, once the run is done."""
        file = self.path / "results.json"
        return read_results(file) if file.is_file() else None

    def is_done(self, config: DictConfig) -> bool:
        """Whether all that `config` asks for is there; with `resume: false` it never is.

        An evaluation is not, if it was made of other weights or W&B was not told of it as `config` asks.
        """
        if not config.resume:
            return False
        if _is_evaluation(config):
            return self._is_measured(config)
        return self.came_to_its_end(config.test) and self._more_epochs_done >= config.more_epochs

    def came_to_its_end(self, test: bool) -> bool:
        """Whether results.json is there, which is written last, or, without a `test`, the state is done."""
        if (self.path / "results.json").is_file():
            return True
        state = None if test else RunState.read(self.path)
        return state is not None and state.state == "done"

    @property
    def more_epochs_begun(self) -> int:
        """How many the last start was to train besides those that the folder is named for."""
        file = self.path / "config.yaml"
        return OmegaConf.load(file).get("more_epochs", 0) if file.is_file() else 0

    @property
    def _more_epochs_done(self) -> int:
        """The same of what came to its end: its results stay until those of a longer training are there."""
        return self.more_epochs_begun if self.results is None else self.results.get("more_epochs", 0)

    def _is_measured(self, config: DictConfig) -> bool:
        file = self.path / "results.json"
        if not self.came_to_its_end(test=True) or (config.save_files and not (self.path / "files").is_dir()):
            return False
        asked = OmegaConf.merge(config, {"folder": str(self.path)})
        told = OmegaConf.load(self.path / "config.yaml")
        if OmegaConf.select(asked, "logger.wandb") not in (None, OmegaConf.select(told, "logger.wandb")):
            return False
        if config.pretrained is not None:  # by its fingerprint: installing a package dates its files anew
            return self.results.get("weights") == choose(config.pretrained, config.quality).fingerprint
        return config.run is None or find_checkpoint(config.run).stat().st_mtime <= file.stat().st_mtime

    @property
    def val_loss(self) -> float | None:
        """The lowest `val/loss` of a finished training; None of an evaluation. Raises CheckpointError."""
        return self.val_loss_of_checkpoint() if self.results is None else self.results.get("val_loss")

    def val_loss_of_checkpoint(self) -> float | None:
        """The `val/loss` of the best checkpoint, which is there before the results. Raises CheckpointError."""
        import torch

        file = find_checkpoint(self.path)
        try:
            return torch.load(file, map_location="cpu", weights_only=True)["val_loss"]
        except Exception as error:  # torch's unpickler fails on damaged bytes in any way there is
            raise CheckpointError(f"{file.absolute()} is not a checkpoint of train.py: {error}") from error

    def checkpoint_to_resume(self) -> Path | None:
        """The checkpoint that training goes on from, see `codec.training.checkpoint_io.checkpoint_to_resume`."""
        from codec.training.checkpoint_io import checkpoint_to_resume

        return checkpoint_to_resume(self.path / "checkpoints")

    def begin(self, config: DictConfig, precision: str | None = None) -> Path | None:
        """Writes the resolved config and where it came from; an earlier start's provenance is kept.

        Where a finished training is to go on or to begin anew, gives back a copy of its weights, for the files that
        they wrote.

        With `resume: false` in the config, earlier results and checkpoints are deleted first; the results of an
        evaluation always, since config.yaml tells how they were made. Until this process ends no other can begin
        here: raises ConfigError if one is at work.
        `precision` says in which a training computes here, and why: a config may leave that to the machine.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.path)
        kept = self._finished_weights(config)
        if not config.resume:
            from codec.training.measured_rows import forget_rows

            shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
            forget_rows(self.path)
        if _is_evaluation(config) or not config.resume:
            (self.path / "results.json").unlink(missing_ok=True)
        for part in (*self.path.glob(".*.part"), *self.path.glob("checkpoints/.*.part")):
            part.unlink(missing_ok=True)  # of a process that was killed while it wrote
        OmegaConf.save(config, self.path / "config.yaml", resolve=True)
        write_provenance(self.path / "provenance", precision)
        return kept

    def _finished_weights(self, config: DictConfig) -> Path | None:
        state = RunState.read(self.path)
        replaced = not config.resume or config.get("more_epochs", 0) > self.more_epochs_begun
        if _is_evaluation(config) or state is None or state.state != "done" or not replaced:
            return None
        from codec.checkpoint import load_codec, save_weights

        try:
            codec = load_codec(self.path)
        except CheckpointError:  # of a former network, or none
            return None
        kept = self.path / "finished" / f"{codec.fingerprint().hex()}.safetensors"
        kept.parent.mkdir(exist_ok=True)
        save_weights(codec, kept)
        return kept


def folder_of(config: DictConfig) -> RunFolder:
    """The folder of a training or an evaluation. Raises ConfigError, and what `config` cannot be resolved for."""
    return evaluation_folder(config) if _is_evaluation(config) else RunFolder.of(config)


def evaluation_folder(config: DictConfig) -> RunFolder:
    """Where evaluate.py leaves its results; fills in the data and the name that `config` leaves open.

    Raises ConfigError where not exactly one trained or standard codec and its images are named.
    """
    named = [key for key in ("run", "model", "pretrained") if config.get(key) is not None]
    if len(named) != 1:
        given = f"{' and '.join(named)} are" if named else "neither run nor model nor pretrained is"
        raise ConfigError(
            f"{given} named: name one of them, run=runs/NAME, pretrained=NAME, or model=jpeg and the like"
        )
    if named == ["model"] and not config.model._target_.startswith("codec.baselines."):
        raise ConfigError("model", "a learned codec is measured once it is trained: name its run, run=runs/NAME")
    if config.pretrained is not None:
        try:  # now, or a wrong name would be told only after what follows from it
            choose(config.pretrained, config.quality)
        except CheckpointError as error:
            if config.quality is not None:
                raise  # it says which of the two is wrong
            raise error.below("pretrained") from error
    with open_dict(config):
        config.data = _data_of_evaluation(config)
        config.name = config.name or _name_of_evaluation(config)
    return RunFolder.of(config)


def _name_of_evaluation(config: DictConfig) -> str:
    """What is measured, at which rate where that is one of several, and on what."""
    model, quality, ratio = config.get("model"), config.quality, None
    if model is not None:
        measured = "_".join(choices("model")) or model._target_.rpartition(".")[2]
        # A lossless codec's quality is how hard it tries.
        quality, ratio = (None, None) if model.get("lossless") else (model.get("quality"), model.get("ratio"))
    elif config.run is not None:
        run = Path(config.run)
        measured = run.stem if run.suffix in (".ckpt", ".safetensors") else run.name
    else:
        measured = config.pretrained
    rates = {"q": quality, "ratio": ratio} if config.target_bpp is None else {"bpp": config.target_bpp}
    # What is no number is refused by who checks it.
    at = "".join(f"-{kind}{rate}" for kind, rate in rates.items() if type(rate) in (int, float))
    return f"{measured}{at}_on_{'_'.join(choices('data')) or 'its_own_test_images'}"


def choices(*groups: str) -> list[str]:
    """The options chosen for these config groups, without those that are null; none outside a Hydra job."""
    if not HydraConfig.initialized():
        return []
    chosen = HydraConfig.get().runtime.choices
    return [str(chosen[group]) for group in groups if chosen.get(group)]


def _is_evaluation(config: DictConfig) -> bool:
    return "pretrained" in config


def _data_of_evaluation(config: DictConfig) -> DictConfig:
    """The data asked for, or that of the run with what was asked for on top; without images to train on."""
    data = config.get("data") or OmegaConf.create()
    if "_target_" not in data and config.run is not None:
        file = find_checkpoint(config.run).resolve().parents[1] / "config.yaml"
        if file.is_file():
            asked = {key: value for key, value in data.items() if (key, value) != ("limit", None)}
            data = OmegaConf.merge(OmegaConf.load(file).data, asked)
    if "_target_" not in data:
        raise ConfigError("data", None, "name the images to measure on, e.g. data=kodak")
    OmegaConf.set_struct(data, False)
    return OmegaConf.create({**OmegaConf.to_container(data, resolve=True), "train": None, "val": None})


def _without_places(node: Any) -> Any:
    """The config without where a data set lies that can be downloaded: it is the same everywhere."""
    if isinstance(node, list):
        return [_without_places(value) for value in node]
    if not isinstance(node, dict):
        return node
    left_out = ("root", "download") if "download" in node else ()
    return {key: _without_places(value) for key, value in node.items() if key not in left_out}
