"""Images, what runs make of them, and beside that the differences or JPEGs of the same size: a row an image.

python -m experiments.plots.pictures runs/conv_baseline runs/conv_enhanced --images photos --out docs/grid.png
python -m experiments.plots.pictures diffusion_wavelet --quality 20 --images photos --beside jpeg --out x.jpg
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track
from torch import Tensor

from codec.baselines import Jpeg
from codec.checkpoint import load_codec
from codec.data.image_file import ImageFileError, read_image
from codec.data.image_list import list_images, printable
from codec.errors import ArgumentError, CheckpointError
from codec.learned_codec import LearnedCodec
from codec.run_names import without_hash
from experiments.arguments import number
from experiments.plots.comparison import Panel, coded, difference, middle, nearest, save_comparison
from experiments.plots.figures import figure_file

BESIDE = {"difference": "difference × 4", "jpeg": "JPEG, nearest size"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line names."""
    summary, _, examples = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plots.pictures",
        description=summary,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="runs, checkpoints or names of pretrained models (diffusion_wavelet), a column each",
    )
    parser.add_argument("--images", required=True, type=Path, help="a folder of images, or one image")
    parser.add_argument("--names", help="of a folder's images only these, by the starts of their names: kodim03,…")
    parser.add_argument(
        "--beside",
        default="difference",
        metavar="A,B",
        help=f"of every run also {' or '.join(BESIDE)}, or both (default: difference)",
    )
    parser.add_argument(
        "--quality", type=number, metavar="N", help="what the runs write at, which then have to take a quality"
    )
    parser.add_argument("--crop", type=int, default=256, help="what is shown: the middle N×N pixels (default 256)")
    parser.add_argument("--out", required=True, type=figure_file, help="the picture; its suffix says the format")
    options = parser.parse_args(arguments)
    beside = options.beside.split(",")
    if not set(beside) <= BESIDE.keys():
        parser.error(f"--beside {options.beside}: allowed are {', '.join(BESIDE)}")
    if options.crop < 1:
        parser.error(f"--crop {options.crop}: allowed are integers from 1")

    paths = list_images(options.images) if options.images.is_dir() else [options.images]
    if options.names:
        paths = [path for path in paths if path.name.startswith(tuple(options.names.split(",")))]
    if not paths:
        parser.error(f"no images at {options.images} (--names {options.names})")
    try:
        codecs = [load_codec(run) for run in options.runs]
        for codec in codecs if options.quality is not None else ():
            codec.set_quality(options.quality)
        images = [read_image(path, channels=max(codec.image_channels for codec in codecs)) for path in paths]
        grid = [
            _row(codecs, path, image, beside, options.crop)
            for path, image in track(list(zip(paths, images, strict=True)), "coding", transient=True)
        ]
    except (ArgumentError, CheckpointError, ImageFileError) as error:
        parser.error(str(error))
    names = [without_hash(run.name).removesuffix(".safetensors").removesuffix(".ckpt") for run in options.runs]
    titles = [f"{name}:\n{BESIDE[kind]}" if len(names) > 1 else BESIDE[kind] for kind in beside for name in names]
    save_comparison(grid, ["original", *names, *titles], options.out)
    print(options.out)


def _row(codecs: list[LearnedCodec], path: Path, image: Tensor, beside: list[str], crop: int) -> list[Panel]:
    """The original, every codec's image, then for every kind of `beside` a panel for every codec."""
    decoded, others = [], {kind: [] for kind in beside}
    for codec in codecs:
        own = image if codec.image_channels == len(image) else read_image(path, channels=codec.image_channels)
        ours = coded(codec, own)
        decoded.append(Panel(middle(ours.image, crop), ours.caption))
        if "difference" in beside:
            others["difference"].append(Panel(middle(difference(ours.image, own), crop), ours.caption))
        if "jpeg" in beside:
            jpeg = coded(nearest([Jpeg(quality) for quality in Jpeg.qualities], own, ours.bytes), own)
            others["jpeg"].append(Panel(middle(jpeg.image, crop), jpeg.caption))
    return [
        Panel(middle(image, crop), printable(path.name)),
        *decoded,
        *(panel for kind in beside for panel in others[kind]),
    ]


if __name__ == "__main__":
    main()
