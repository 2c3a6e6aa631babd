"""The trained models that come with the package: what there is; `codec.checkpoint.load_pretrained` loads one.

Beside this file there are, for a model NAME, or for each rate N of a model that has several, NAME-qN:

    .safetensors   parameters in half precision, coding tables, model config (see codec.checkpoint)
    .json          what is known of them: the fields of `Weights`
    .yaml          the resolved config of their training
    NAME.md        the model card, made of the .json of all its rates

`python -m experiments.release.export` writes them. Nothing here needs torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.bitstream import QUALITY_UNIT
from codec.checks import check_number
from codec.errors import ArgumentError, CheckpointError, did_you_mean

FOLDER = Path(__file__).parent

# What files are written with if no model is named: colours, lossy, any photograph.
DEFAULT = "diffusion_wavelet"

Point = dict[str, Any]


@dataclass(frozen=True)
class Weights:
    """One file of weights, as its .json describes it.

    `quality` counts the rates of a model that has one file for each, 1 for the smallest files; else None.
    `accepts`: the lowest and highest quality that these weights can write at, and `own_quality` the one that they
    do where none is named, if there is a choice; else None.
    `sha256` and `size`, in bytes, are of the .safetensors; `fingerprint`, in hex, is in the header of every file
    that these weights write. `parameters` are counted one by one; `encode_macs` and `decode_macs` are multiply-adds
    a pixel of an image of 768×512 at `own_quality`: `experiments.release.complexity` says what counts.

    `training` holds the texts `data`, `run` (the folder's name), `command`, `time`, `hardware`, `commit` and the
    numbers `epochs`, of the whole training, `epoch` and `steps`, after which these weights, its best, were taken,
    and `minutes`, None if not recorded; where they are known, the texts `precision` and `stopped`: that time, not
    the last step, ended it.
    `measured` is `{data set: points}`, one point for each quality measured: `images`, means as in results.json (a
    lossless `psnr` is "inf"), `encode_ms_per_megapixel`, `decode_ms_per_megapixel`, `hardware`. `per_image` is
    `{"samples": {image: {"bytes", "psnr"}}}` at the weights' own quality, and the same of the images' middle
    192×192 pixels, "samples_192".
    """

    name: str
    quality: int | None
    accepts: list[int] | None
    own_quality: float | None
    scheme: str
    description: str
    source: str
    image_channels: int
    lossless: bool
    fingerprint: str
    sha256: str
    size: int
    parameters: int
    encode_macs: int
    decode_macs: int
    training: dict[str, Any]
    measured: dict[str, list[Point]]
    per_image: dict[str, dict[str, dict[str, float | str]]]

    @property
    def stem(self) -> str:
        return stem(self.name, self.quality)

    @property
    def step(self) -> float:
        """How far apart the qualities are that these weights accept."""
        return 1 if self.scheme == "comcnn_reccnn" else 1 / QUALITY_UNIT

    def quality_in(self, section: bytes) -> float | None:
        """What a file with this first section was written at; None: these weights have one rate."""
        if not self.accepts:
            return self.quality
        (first,) = section[:1] or (0,)  # an empty one is refused as it is decoded
        return first * self.step

    @property
    def levels_alone(self) -> bool:
        """Whether files hold levels of a latent alone: effort can choose them, and where some miss others show."""
        return self.scheme not in ("comcnn_reccnn", "lossless_unet")

    @property
    def quality_is_ratio(self) -> bool:
        """Whether a quality is a compression ratio, as JPEG 2000's is: a larger one makes a smaller file."""
        if not self.accepts:
            return False
        points = sorted(next(iter(self.measured.values())), key=lambda point: point["quality"])
        return points[-1]["bpp"] < points[0]["bpp"]

    @property
    def label(self) -> str:
        """The name and, of a model with several rates, which one: "two_rates, quality 2"."""
        return self.name if self.quality is None else f"{self.name}, quality {self.quality}"

    @property
    def path(self) -> Path:
        """The .safetensors file."""
        return FOLDER / f"{self.stem}.safetensors"


@dataclass(frozen=True, repr=False)
class PretrainedModel:
    """A model by its name: `weights` of each of its rates, from small to large files."""

    name: str
    weights: tuple[Weights, ...]

    @property
    def ends(self) -> tuple[int, int] | None:
        """The lowest and the highest quality that can be asked for; None where there is no choice."""
        first, last = self.weights[0], self.weights[-1]
        if first.accepts:
            return tuple(first.accepts)
        return None if first.quality is None else (first.quality, last.quality)

    def at(self, quality: float | None = None) -> Weights:
        """The weights for a quality; None: the middle one's.

        Raises CheckpointError if there are none, ArgumentError if it lies between two that a file can hold.
        """
        if quality is None:
            return self.weights[(len(self.weights) - 1) // 2]
        if self.ends is None:
            raise CheckpointError(f"quality {quality}: the model {self.name} has one quality only, name none")
        check_number("quality", quality)
        lowest, highest = self.ends
        for weights in self.weights:
            if weights.accepts and lowest <= quality <= highest:
                if quality % weights.step:
                    allowed = f"allowed are {lowest} to {highest} in steps of {weights.step:g}"
                    if weights.step == 1:
                        allowed = f"allowed are the integers {lowest} to {highest}"
                    raise ArgumentError("quality", quality, allowed)
                return weights
            if quality == weights.quality:
                return weights
        raise CheckpointError(f"quality {quality}: the model {self.name} has {lowest} to {highest}")

    def __repr__(self) -> str:
        first = self.weights[0]
        about = ["lossless" if first.lossless else "lossy", "grey" if first.image_channels == 1 else "colour"]
        about += ["quality {}–{}".format(*self.ends)] if self.ends else []
        return f"<PretrainedModel {self.name}: {', '.join(about)}>"


def stem(name: str, quality: int | None) -> str:
    """What the files of a model, or of one of its rates, are called."""
    return name if quality is None else f"{name}-q{quality}"


def pretrained_models() -> list[PretrainedModel]:
    """All models that there are: the default one first, the others by name."""
    by_name: dict[str, list[Weights]] = {}
    for file in FOLDER.glob("*.json"):
        weights = Weights(**json.loads(file.read_text(encoding="utf-8")))
        by_name.setdefault(weights.name, []).append(weights)
    names = sorted(by_name, key=lambda name: (name != DEFAULT, name))
    return [PretrainedModel(name, tuple(sorted(by_name[name], key=lambda w: w.quality or 0))) for name in names]


def choose(name: str | None = None, quality: float | None = None) -> Weights:
    """The weights of the model called `name`, None being the default one, for `quality`, None being its own.

    Raises CheckpointError that says what there is, ArgumentError for a quality that no file can hold.
    """
    models = {model.name: model for model in pretrained_models()}
    if not models:
        raise CheckpointError("this installation has no pretrained models: name a checkpoint")
    if name is not None and name not in models:
        raise CheckpointError(
            f"no pretrained model is called {name}: there are {', '.join(models)}{did_you_mean(name, models)}"
        )
    return models[name or next(iter(models))].at(quality)


def called(name: str) -> Weights | None:
    """The pretrained weights of this name, "two_rates-q2", or a model's own choice, "two_rates", if any."""
    for model in pretrained_models():
        names = {model.name: model.at(), **{weights.stem: weights for weights in model.weights}}
        if name in names:
            return names[name]
    return None


def written_by(fingerprint: bytes) -> Weights | None:
    """The pretrained weights that a file with this fingerprint in its header was written with, if any."""
    found = (weights for model in pretrained_models() for weights in model.weights)
    return next((weights for weights in found if weights.fingerprint == fingerprint.hex()), None)
