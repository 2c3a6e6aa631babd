"""What the package can do, then what training is: both on packaged photographs, beside JPEG and WebP of equal size.

  make demo                                                       the best lossy model, then one trained here
  python -m experiments.demo seed=1 name=again                    any overrides of train.py
  python -m experiments.demo --picture docs/demo.jpg --crop 280   the first picture alone: nothing is trained

The files, the decoded PNGs, results and pictures are left in `demo/`. The exit status is 1 where the codec that was
trained is worse than `expected` in conf/experiment/demo.yaml.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.progress import track

from codec.baselines import Jpeg, WebP
from codec.checkpoint import load_codec, load_pretrained
from codec.data.image_file import NamedImage
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.measure import Row, keep_files, measure, warm_up
from codec.metrics import mean_of_rows
from codec.pretrained import DEFAULT
from codec.training.config import Builder
from codec.training.faults import user_errors
from codec.training.paths import entry_command
from codec.training.precision import choose_precision
from codec.training.provenance import hardware
from codec.training.results import table, write_results
from codec.training.run_folder import RunFolder, choices
from experiments.bench.training_speed import training_speed
from experiments.compose import composed
from experiments.plots.comparison import Panel, caption, middle, nearest, save_comparison
from experiments.plots.figures import figure_file

FOLDER = Path("demo")
BEST_QUALITY = 45  # about 1 bpp
Rows = dict[str, list[Row]]


@user_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; returns the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m experiments.demo", description=__doc__, formatter_class=raw)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of train.py")
    parser.add_argument("--picture", type=figure_file, metavar="FILE", help="make only the best model's picture")
    parser.add_argument("--crop", type=int, metavar="N", help="pictures of the middle N×N pixels (default: whole)")
    options = parser.parse_intermixed_args(arguments)
    overrides = ["experiment=demo", f"runs={FOLDER}", "test=false", "logger=csv", *options.overrides]
    with composed("train", overrides) as config:
        run, (name,) = RunFolder.of(config), choices("model")
    with Builder(config) as build:
        data, own = build.part("data"), build.codec("model")
    data.prepare_data()
    images = list(data.test_dataloader())
    steps = config.epochs * len(data.train_dataloader())

    best = load_pretrained(DEFAULT, BEST_QUALITY)
    picture = options.picture or FOLDER / "best.png"
    rows = compare(DEFAULT, best, images, FOLDER / "best", picture, options.crop)
    print(f"the best lossy model of the package, at quality {BEST_QUALITY}, beside JPEG and WebP of equal size,")
    print(f"{report(rows)}\n\npicture, files, PNGs       {picture}  {FOLDER}/best/\n")
    if options.picture is not None:
        return 0

    left = steps - steps_done(run)
    if left > 0 and not run.came_to_its_end(test=False):
        print(f"{forecast(own, config, left)}\n", flush=True)
    trained = subprocess.run([sys.executable, *entry_command("train"), *overrides], check=False)
    if trained.returncode:
        return trained.returncode  # train.py has said why
    picture = FOLDER / "trained.png"
    rows = compare(name, load_codec(run.path), images, FOLDER / "trained", picture, options.crop)
    done = steps_done(run)
    print(
        f"\nwhat was trained here, {done:,} of {steps:,} steps, beside JPEG and WebP of equal size,\n{report(rows)}"
    )
    print(f"\npicture, files, PNGs       {picture}  {FOLDER}/trained/")
    print(f"trained codec              {run.path}")
    print(f"\ntry it on a photo:         .venv/bin/codec compress photo.jpg photo.qnt --checkpoint {run.path}")
    worse = shortfall(mean_of_rows(rows[name]), config.expected, done, steps)
    if worse is not None:
        print(f"\nerror: {worse}", file=sys.stderr)
    return int(worse is not None)


def compare(
    name: str, codec: ImageCodec, images: Sequence[NamedImage], folder: Path, picture: Path, crop: int | None
) -> Rows:
    """Measures `codec`, and JPEG and WebP at the quality that comes nearest to its size, on every image.

    Files, decoded PNGs and results go to a folder below `folder` for each; `picture` shows the originals and all
    that was decoded, the middle `crop` pixels of each side. Returns the rows of `codec.measure` by name.
    """
    warm_up(codec, _shown(images[0].image, 32))
    rows: Rows = {name: [], "JPEG": [], "WebP": []}
    panels = []
    for item in track(images, "coding", transient=True):
        panels.append([Panel(_shown(item.image, crop), f"{item.name}, 24 bpp")])
        for label in rows:
            if label == name:
                coder = codec
            else:
                standard = Jpeg if label == "JPEG" else WebP
                choice = [standard(quality) for quality in standard.qualities]
                coder = nearest(choice, item.image, rows[name][-1]["bytes"])
            measured = measure(coder, item)
            keep_files(folder / label.lower(), measured, coder.suffix)
            rows[label].append(measured.row)
            panels[-1].append(Panel(_shown(measured.decoded, crop), caption(measured.row)))
    save_comparison(panels, ["original", name, "JPEG, nearest size", "WebP, nearest size"], picture)
    for label, of_codec in rows.items():
        write_results(folder / label.lower(), of_codec, {"codec": label})
    return rows


def report(rows: Rows) -> str:
    """What was measured, as a table with its head line."""
    names = ", ".join(str(row["name"]) for row in next(iter(rows.values())))
    means = table({name: mean_of_rows(of_codec) for name, of_codec in rows.items()})
    return f"means over {names}, none of which was trained on:\n\n{means}"


def forecast(codec: LearnedCodec, config: DictConfig, steps: int) -> str:
    """How long so many steps will take here, by a few of them."""
    precision = choose_precision(config.trainer.precision, config.trainer.accelerator)
    speed = training_speed(codec, config, precision.name, config.strategy.channels_last, seconds=3)
    minutes = steps / speed["steps_per_s"] / 60
    about = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{60 * minutes:.0f} seconds"
    return f"training: {steps:,} steps in {precision.name}, about {about} on {hardware(codec.device)}"


def steps_done(run: RunFolder) -> int:
    """After how many steps the training was, when it was last saved."""
    file = run.checkpoint_to_resume()
    return 0 if file is None else torch.load(file, map_location="cpu", weights_only=True)["global_step"]


def shortfall(means: dict[str, float], expected: DictConfig, done: int, planned: int) -> str | None:
    """One line that says what a codec of these means has and should have; None where it is as good as that."""
    if means["psnr"] >= expected.psnr and means["bpp"] <= expected.bpp:
        return None
    return (
        f"the codec trained here is worse than it should be: {means['psnr']:.2f} dB at {means['bpp']:.3f} bpp "
        f"after {done:,} of {planned:,} steps, expected are {expected.psnr:g} dB or more at {expected.bpp:g} bpp "
        "or less"
    )


def _shown(image: torch.Tensor, crop: int | None) -> torch.Tensor:
    return image if crop is None else middle(image, crop)


if __name__ == "__main__":
    sys.exit(main())
