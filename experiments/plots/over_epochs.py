"""One image as a run decodes it after 5, 10, … epochs of training, beside the original.

  python train.py callbacks=every_5_epochs data=folder data.train.root=photos name=mine
  python -m experiments.plots.over_epochs runs/mine --image photo.png --out docs/over_epochs.png

Every panel is decoded from the file that the checkpoint of that epoch writes.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from codec.checkpoint import load_codec
from codec.data.image_file import ImageFileError, read_image
from codec.errors import CheckpointError
from experiments.plots.comparison import Panel, coded, middle, save_comparison
from experiments.plots.figures import figure_file
from experiments.run_folders import find_runs


def kept_checkpoints(run: str) -> dict[int, Path]:
    """`{epochs trained: checkpoint}` of a run's folder, by rising epochs. Raises ValueError where none are kept."""
    try:
        (folder,) = find_runs(run, "checkpoints/epoch_*.ckpt")
    except ValueError as error:
        raise ValueError(
            f"{run} keeps no checkpoints/epoch_*.ckpt: train with callbacks=every_5_epochs, and name one run"
        ) from error
    # Checkpoints are numbered from 0: epoch_004 has seen five.
    numbered = {int(re.sub(r"\D", "", path.stem)) + 1: path for path in folder.glob("checkpoints/epoch_*.ckpt")}
    return dict(sorted(numbered.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the picture that the command line names."""
    summary, _, more = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plots.over_epochs",
        description=summary,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="a run's folder; the hash may be left out")
    parser.add_argument("--image", required=True, type=Path, help="the image that is coded")
    parser.add_argument("--columns", type=int, default=6, metavar="N", help="panels in a row (default 6)")
    parser.add_argument("--crop", type=int, default=256, help="what is shown: the middle N×N pixels (default 256)")
    parser.add_argument("--out", required=True, type=figure_file, help="the picture; its suffix says the format")
    options = parser.parse_args(arguments)
    if min(options.columns, options.crop) < 1:
        parser.error("--columns and --crop take integers from 1")
    try:
        checkpoints = kept_checkpoints(options.run)
        panels = []
        for epochs, checkpoint in track(list(checkpoints.items()), "coding", transient=True):
            codec = load_codec(checkpoint)
            image = read_image(options.image, channels=codec.image_channels)
            if not panels:
                panels.append(Panel(middle(image, options.crop), f"original\n{options.image.name}"))
            shown = coded(codec, image)
            after = f"after {epochs} epoch{'s' * (epochs > 1)}"
            panels.append(Panel(middle(shown.image, options.crop), f"{after}\n{shown.caption}"))
    except (ValueError, CheckpointError, ImageFileError) as error:
        parser.error(str(error))
    rows = [panels[n : n + options.columns] for n in range(0, len(panels), options.columns)]
    save_comparison(rows, [], options.out)
    print(options.out)


if __name__ == "__main__":
    main()
