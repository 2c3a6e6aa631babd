"""`python -m experiments.pictures RUN … --out docs/picture.jpg`: decoded images beside JPEG's at the same size."""

import argparse
import re
from pathlib import Path

from torch import Tensor

from codec.baselines import Jpeg
from codec.checkpoint import CheckpointError, load_codec
from codec.data.image_file import NamedImage, list_images, read_image
from experiments.comparison import Panel, nearest, save_comparison


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.pictures", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="runs or checkpoints, a column each, beside a JPEG each")
    parser.add_argument("--images", required=True, type=Path, help="a folder of images, or one image")
    parser.add_argument("--names", help="of a folder's images only these, by the starts of their names: kodim03,…")
    parser.add_argument("--crop", type=int, default=256, help="what is shown: the middle N×N pixels (default 256)")
    parser.add_argument("--out", required=True, type=Path, help="the picture; its suffix says the format")
    arguments = parser.parse_args()

    paths = list_images(arguments.images) if arguments.images.is_dir() else [arguments.images]
    if arguments.names:
        paths = [path for path in paths if path.name.startswith(tuple(arguments.names.split(",")))]
    if not paths:
        parser.error(f"no images at {arguments.images} (--names {arguments.names})")
    try:
        codecs = [load_codec(run) for run in arguments.runs]
    except CheckpointError as error:
        parser.error(str(error))
    grid = []
    for path in paths:
        original = read_image(path, channels=3)
        row = [Panel(_middle(original, arguments.crop), path.name)]
        for codec in codecs:
            item = NamedImage(path.name, read_image(path, channels=codec.image_channels))
            measured = codec.measure(item)
            jpeg = nearest([Jpeg(quality) for quality in range(1, 96)], item, measured["bytes"])
            for shown, values in [(codec, measured), (jpeg, jpeg.measure(item))]:
                decoded = shown.decode(shown.encode(item.image))
                row.append(
                    Panel(_middle(decoded, arguments.crop), f"{values['bpp']:.3f} bpp, {values['psnr']:.2f} dB")
                )
        grid.append(row)
    titles = [
        title for run in arguments.runs for title in (re.sub("-[0-9a-f]{8}$", "", run.name), "JPEG, nearest size")
    ]
    save_comparison(grid, ["original", *titles], arguments.out)
    print(arguments.out)


def _middle(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[-2:]
    top, left = max(0, height - size) // 2, max(0, width - size) // 2
    return image[:, top : top + size, left : left + size]


if __name__ == "__main__":
    main()
