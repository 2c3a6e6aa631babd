"""How much fine detail decoded images keep, and at which PSNR: what the iterative decoder is for.

  python -m experiments.detail runs/diffusion_wavelet_iterative --quality 12

Detail is the energy of luma's wavelet bands (CDF 9/7, all directions together) at the finest and at the next
resolution, over that of the original. What blurs has less than 1. Noise and blocks count as well, so it is to be
looked at, too: a picture shows the middles of three images. The standard codecs' files are those of nearest size.
"""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from codec.baselines import Avif, Jpeg, WebP
from codec.checkpoint import load_codec
from codec.checks import check_integer
from codec.data.image_file import NamedImage
from codec.errors import ArgumentError
from codec.image_codec import ImageCodec
from codec.measure import Row, measure
from codec.metrics import mean_of_rows
from codec.networks import Wavelet
from codec.training.faults import user_errors
from codec.training.provenance import hardware
from codec.whole_file import whole_file
from experiments.arguments import number
from experiments.plots.comparison import Panel, caption, middle, nearest, save_comparison
from experiments.priors import images_of

STEPS = (1, 3, 10)
STANDARD = {
    "JPEG": [Jpeg(quality) for quality in range(1, 96)],
    "WebP": [WebP(quality) for quality in range(0, 100, 5)],
    "AVIF": [Avif(quality) for quality in range(6, 66, 6)],
}
_SHOWN, _CROP = 3, 256


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.detail", description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="a run or checkpoint of decoder=iterative")
    parser.add_argument("--quality", type=number, help="what it writes at, if its rate varies")
    parser.add_argument("--images", type=int, default=8, help="how many of Kodak's, evenly spread; 8")
    parser.add_argument(
        "--out", type=Path, default=Path("experiments/results/detail.md"), help="a picture goes beside"
    )
    options = parser.parse_args(arguments)
    check_integer("--images", options.images, 1, 24)
    codec = load_codec(options.run)
    if "steps" not in codec.decode_options:
        raise ArgumentError(
            "run", options.run, "its decoder does not sample: train one with model.decoder=iterative"
        )
    if options.quality is not None:
        codec.set_quality(options.quality)
    kodak = [NamedImage(f"kodim{n:02}", image) for n, image in enumerate(images_of("kodak", "test"), start=1)]
    chosen = kodak[:: len(kodak) // options.images][: options.images]
    rows: dict[str, list[Row]] = {}
    panels = []
    for item in track(chosen, "coding"):
        panels.append([Panel(middle(item.image, _CROP), item.name)])
        for label, row, decoded in compared(codec, item):
            rows.setdefault(label, []).append(row)
            panels[-1].append(Panel(middle(decoded, _CROP), caption(row)))
    with whole_file(options.out) as out:
        out.write(page({label: mean_of_rows(of) for label, of in rows.items()}, len(chosen), arguments).encode())
    spread = panels[:: max(1, len(panels) // _SHOWN)][:_SHOWN]
    save_comparison(spread, ["original", *rows], options.out.with_suffix(".jpg"))
    print(options.out)


def compared(codec: ImageCodec, item: NamedImage) -> Iterable[tuple[str, Row, Tensor]]:
    """Of every number of steps, then of each standard codec: a label, the row with detail, the decoded image."""
    for steps in STEPS:
        codec.set_decoding(steps=steps)
        ours = with_detail(codec, item)
        yield f"{steps} step{'s' if steps > 1 else ''}", *ours
    for label, choice in STANDARD.items():
        yield label, *with_detail(nearest(choice, item.image, int(ours[0]["bytes"])), item)


def with_detail(codec: ImageCodec, item: NamedImage) -> tuple[Row, Tensor]:
    measured = measure(codec, item)
    return measured.row | detail(measured.decoded, item.image), measured.decoded


def detail(decoded: Tensor, original: Tensor) -> dict[str, float]:
    """`finest` and `next`, see above, of two uint8 images `[3, H, W]`."""
    energies = zip(_energies(decoded), _energies(original), strict=True)
    nearer, finest = ((mine / theirs).item() for mine, theirs in energies)
    return {"finest": finest, "next": nearer}


@torch.no_grad()
def _energies(image: Tensor) -> list[Tensor]:
    """Of luma's details at the next and at the finest resolution."""
    height, width = (side - side % 8 for side in image.shape[1:])
    _, *details = Wavelet(3, 3).analysis(image[None, :, :height, :width].float() / 255)
    return [tensor[:, :3].square().mean() for tensor in details]


def page(means: dict[str, Row], images: int, arguments: Iterable[str]) -> str:
    command = shlex.join(["python", "-m", "experiments.detail", *arguments])
    lines = [
        "# Detail that a sampler adds",
        "",
        f"{images} Kodak images, whole files. Detail: energy of luma's wavelet bands over the original's, at the",
        "finest resolution and the next; 1 is as much as the original has, wherever it is. One step is the",
        "one-shot decoder. The standard codecs' files are those of nearest size.",
        f"`{command}`, {hardware(torch.device('cpu'))}.",
        "",
        "| decoder | bpp | PSNR (dB) | SSIM | MS-SSIM | detail, finest | detail, next | decode ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {label} | {row['bpp']:.4f} | {row['psnr']:.2f} | {row['ssim']:.4f} | {row['ms_ssim']:.4f} "
        f"| {row['finest']:.2f} | {row['next']:.2f} | {row['decode_ms']:,.0f} |"
        for label, row in means.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
