"""Puts a finished run's weights into the package, in half precision, with what they reach.

  python -m experiments.release.export runs/conv_enhanced_bsd300 --name conv_enhanced --data kodak bsd300
  python -m experiments.release.export runs/finer --name two_rates --quality 2 --data kodak bsd300
  python -m experiments.release.export runs/diffusion_wavelet --name diffusion_wavelet --qualities 10 30 50 70

The second is the second rate of a model, counted from small to large files; the third takes a quality for every
file it writes, and is measured at four. What is measured is the weights that are saved, on the CPU. Files that an
earlier export of the same name has written can then no longer be decoded.
"""

import argparse
import json
import math
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from codec import pretrained
from codec.checkpoint import load_codec, round_to_half, save_weights
from codec.checkpoint_files import find_checkpoint
from codec.data.download import file_sha256
from codec.data.image_file import write_image
from codec.data.module import ImageDataModule
from codec.errors import CheckpointError
from codec.learned_codec import LearnedCodec
from codec.measure import Row, evaluate
from codec.metrics import mean_of_rows
from codec.pretrained import Point, Weights
from codec.training.faults import user_errors
from codec.training.paths import checkout
from codec.training.provenance import hardware
from experiments.arguments import number
from experiments.compose import composed
from experiments.release.complexity import as_large_as_kodak, complexity
from experiments.release.model_card import card
from experiments.release.provenance import description_and_source, plain_config, training

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden/pretrained"

MAX_BYTES = 8_000_000
MAX_TOTAL_BYTES = 40_000_000

# Sides of the middle squares of photographs that tests repeat figures on, and that the golden file is of.
CROP = 192
GOLDEN_CROP = 64

MEANS = ("bpp", "bpsp", "psnr", "ssim", "ms_ssim")


def export(
    run: str | Path,
    name: str,
    quality: int | None = None,
    data: Sequence[str] = ("kodak",),
    qualities: Sequence[float] = (),
    golden: Path = GOLDEN,
    **said: str | None,
) -> Weights:
    """Writes all files of a model's weights, which `codec.pretrained` describes, and a golden file into `golden`.

    `data`: options of conf/data, the first being the one that lists show; `qualities`: those measured of a codec
    that takes one. `said` is what the run does not know: `about`, and what `provenance.training` takes.
    Raises CheckpointError, before anything is measured, where weights are too large or something is missing.
    """
    check_name(name, quality)
    codec = load_codec(run)
    accepts = accepted(codec, qualities)
    if accepts and quality is not None:
        raise CheckpointError(
            f"--quality {quality}: this codec takes qualities itself, {accepts[0]} to {accepts[1]}: leave it out"
        )
    description, source = description_and_source(codec)
    about = said.pop("about", None) or description
    trained = training(find_checkpoint(run), **said)

    try:
        round_to_half(codec)
    except ValueError as error:
        raise CheckpointError(f"{run}: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_weights(codec, file, half=True)
        check_size(pretrained.stem(name, quality), file.stat().st_size)
        codec = load_codec(file)
        weights = Weights(
            name=name,
            quality=quality,
            accepts=accepts,
            own_quality=codec.quality,
            scheme=codec.model_config["_target_"].split(".")[-2],
            description=about,
            source=source,
            image_channels=codec.image_channels,
            lossless=codec.lossless,
            sha256=file_sha256(file),
            size=file.stat().st_size,
            training=trained,
            **figures(codec, data, qualities),
        )
        weights.path.write_bytes(file.read_bytes())
    OmegaConf.save(plain_config(find_checkpoint(run)), weights.path.with_suffix(".yaml"))
    write_description(codec, weights, golden)
    return weights


def figures(codec: LearnedCodec, data: Sequence[str], qualities: Sequence[float]) -> dict[str, Any]:
    """What `Weights` holds of a codec that is found by trying it: see `export` for `data` and `qualities`."""
    own = codec.quality
    measured = {
        option: [measured_point(codec, module, asked) for asked in qualities or [own]]
        for option, module in [(option, images_of(option, codec.image_channels)) for option in data]
    }
    set_quality(codec, own)
    per_image = {}
    for option, crop in {"samples": None, f"samples_{CROP}": CROP}.items():
        rows = rows_of(codec, images_of("samples", codec.image_channels, crop))
        per_image[option] = {row["name"]: {"bytes": row["bytes"], "psnr": _plain(row["psnr"])} for row in rows}
    return {
        "fingerprint": codec.fingerprint().hex(),
        **complexity(codec, as_large_as_kodak(first_sample(codec)))._asdict(),
        "measured": measured,
        "per_image": per_image,
    }


def write_description(codec: LearnedCodec, weights: Weights, golden: Path) -> None:
    """All that lies beside the weights, but for their config, and a golden file into `golden`."""
    write_golden(codec, weights, golden)
    text = json.dumps(asdict(weights), indent=1, ensure_ascii=False)
    weights.path.with_suffix(".json").write_text(f"{text}\n", encoding="utf-8")
    (model,) = (model for model in pretrained.pretrained_models() if model.name == weights.name)
    (pretrained.FOLDER / f"{weights.name}.md").write_text(card(model), encoding="utf-8")


def check_name(name: str, quality: int | None) -> None:
    """Raises CheckpointError unless a model, or one more rate of it, may be called so."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise CheckpointError(f"--name {name}: allowed are small letters, digits and _, a letter first")
    if quality is not None and quality < 1:
        raise CheckpointError(f"--quality {quality}: rates are counted from 1, the smallest files")
    for model in pretrained.pretrained_models():
        if model.name == name and (model.weights[0].quality is None) != (quality is None):
            there = ", ".join(weights.stem for weights in model.weights)
            raise CheckpointError(f"--name {name}: there is {there}, a model has either one rate or numbered ones")


def check_size(stem: str, size: int) -> None:
    """Raises CheckpointError where weights of `size` bytes are too large, or too many with those that are there."""
    others = [file.stat().st_size for file in pretrained.FOLDER.glob("*.safetensors") if file.stem != stem]
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{stem}: {size / 1e6:.1f} MB in half precision, at most {MAX_BYTES / 1e6:.0f} are allowed"
        )
    if size + sum(others) > MAX_TOTAL_BYTES:
        raise CheckpointError(
            f"{stem}: {size / 1e6:.1f} MB and the {sum(others) / 1e6:.1f} MB of the others are more than the "
            f"{MAX_TOTAL_BYTES / 1e6:.0f} MB allowed in all"
        )


def accepted(codec: LearnedCodec, qualities: Sequence[float]) -> list[int] | None:
    """The lowest and highest quality a codec can write at, None of one that has one only.

    Raises CheckpointError where one of `qualities` is not among them.
    """
    grid = sorted(codec.quality_grid or ())
    for quality in qualities:
        if quality not in grid:
            allowed = "none, this codec has one only"
            if grid:
                allowed = f"{grid[0]:g} to {grid[-1]:g} in steps of {grid[1] - grid[0]:g}"
            raise CheckpointError(f"--qualities {quality:g}: allowed are {allowed}")
    return [int(grid[0]), int(grid[-1])] if grid else None


def images_of(option: str, channels: int, crop: int | None = None) -> ImageDataModule:
    """The test images of an option of conf/data, ready; whole, or their middle squares of side `crop`."""
    with composed("evaluate", [f"data={option}", f"data.channels={channels}"]) as config:
        data = OmegaConf.to_container(config.data, resolve=True)
    module = instantiate({**data, "train": None, "val": None, "eval_crop": crop}, _convert_="all")
    module.prepare_data()
    module.setup("test")
    return module


def set_quality(codec: LearnedCodec, quality: float | None) -> None:
    if quality is not None:
        codec.set_quality(quality)


def rows_of(codec: LearnedCodec, images: ImageDataModule) -> list[Row]:
    """The figures of all test images."""
    return [measured.row for measured in evaluate(codec, images.test_dataloader())]


def measured_point(codec: LearnedCodec, images: ImageDataModule, quality: float | None) -> Point:
    """What a codec reaches at a quality, None being the only one it has, as `Weights.measured` keeps it."""
    set_quality(codec, quality)
    at = "" if quality is None else f" at quality {quality:g}"
    print(f"measuring on {len(images.test_set)} images{at}", flush=True)
    rows = rows_of(codec, images)
    means = mean_of_rows(rows)
    megapixels = sum(8 * row["bytes"] / row["bpp"] for row in rows) / 1e6
    return {
        **({} if quality is None else {"quality": quality}),
        "images": len(rows),
        **{key: _plain(means[key]) for key in MEANS if key in means},
        "encode_ms_per_megapixel": round(sum(row["encode_ms"] for row in rows) / megapixels),
        "decode_ms_per_megapixel": round(sum(row["decode_ms"] for row in rows) / megapixels),
        "hardware": hardware(codec.device),
    }


def first_sample(codec: LearnedCodec, crop: int | None = None) -> Tensor:
    """The first test image of the samples, uint8 `[C, H, W]`, or its middle square of side `crop`."""
    return next(iter(images_of("samples", codec.image_channels, crop).test_dataloader())).image


def write_golden(codec: LearnedCodec, weights: Weights, folder: Path) -> None:
    """A file that these weights wrote, and as PNG what it decodes to: both must stay."""
    data = codec.encode(first_sample(codec, GOLDEN_CROP))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{weights.stem}.qnt").write_bytes(data)
    write_image(folder / f"{weights.stem}.png", codec.decode(data))


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports what the command line names."""
    summary, examples, more = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.release.export",
        description=summary,
        epilog=f"{examples}\n\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a finished run's folder; its hash may be left out")
    parser.add_argument("--name", required=True, help="what the model will be called")
    parser.add_argument(
        "--quality", type=int, metavar="N", help="which of its rates this is: 1, the smallest files, …"
    )
    parser.add_argument(
        "--data", nargs="+", default=["kodak"], metavar="OPTION", help="what to measure on (default: kodak)"
    )
    parser.add_argument(
        "--qualities",
        nargs="+",
        type=number,
        default=[],
        metavar="N",
        help="what to measure a codec at that takes one",
    )
    parser.add_argument(
        "--about", metavar="TEXT", help="what the model is, in a line (default: what its scheme is)"
    )
    parser.add_argument(
        "--photographs", metavar="TEXT", help="what the images of data.train.root were, and their terms"
    )
    parser.add_argument("--trained", metavar="TEXT", help="time and hardware, of a run that has not recorded them")
    options = vars(parser.parse_args(arguments))
    if checkout() is None:
        parser.error("weights are added to the package in a checkout: this one is installed")
    with user_errors():
        weights = export(**options)
        print(f"{weights.path}: {weights.size:,} bytes; commit it with its .json, .yaml, .md and golden file")


def _plain(value: float) -> float | str:
    """For JSON, which has no infinity: as results.json has it."""
    return "inf" if math.isinf(value) else float(f"{value:.6g}")


if __name__ == "__main__":
    main()
