"""Lossless coding of pictures that are no plain photographs: of few colours, enlarged, drawn on, from JPEGs, noisy.

  make table-kinds                                              writes experiments/results/lossless_kinds.md
  python -m experiments.kinds --images 1 --size 96 --out x.md   quickly, to see that it runs

Each kind is made of the same middle squares of Kodak's images; every file is decoded and compared.
"""

import argparse
import io
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from rich.progress import track
from torch import Tensor

from codec.baselines import JpegXL, Png, WebP
from codec.checkpoint import build_codec, load_pretrained
from codec.checks import check_integer
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.training.faults import user_errors
from codec.training.provenance import hardware
from codec.whole_file import whole_file
from experiments.priors import images_of

MODEL = "lossless_unet_polyphase"
TEXT = "Sphinx of black quartz, judge my vow. 0123456789 "


def _through_jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return Image.open(file).convert("RGB")


def _noisy(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture, np.float64)
    noise = np.random.default_rng(0).normal(0, 8, values.shape)
    return Image.fromarray((values + noise).round().clip(0, 255).astype(np.uint8))


def _drawn_on(picture: Image.Image) -> Image.Image:
    drawn, (width, height) = picture.copy(), picture.size
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((0, 0, width, height // 2), fill="white")
    for row in range(4, height // 2 - 12, 14):
        draw.text((6, row), TEXT * 4, fill="black")
    for column in range(0, width, 24):
        draw.line((column, height // 2, width - column, height), fill=(200, 30, 30), width=2)
    return drawn


def _resized(picture: Image.Image, factor: float) -> Image.Image:
    """The middle of `picture`, so that about as many pixels come of it, enlarged; or all of it, shrunk."""
    width, height = picture.size
    if factor > 1:
        left, top = int(width * (1 - 1 / factor) / 2), int(height * (1 - 1 / factor) / 2)
        picture = picture.crop((left, top, width - left, height - top))
    size = (round(picture.width * factor), round(picture.height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS)


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda picture: picture,
    "220 colours": lambda picture: picture.quantize(220).convert("RGB"),
    "216 colours, dithered": lambda picture: picture.convert("P").convert("RGB"),
    "half of it text, lines over the rest": _drawn_on,
    "enlarged twice, bicubic": lambda picture: _resized(picture, 2),
    "shrunk to a half, Lanczos": lambda picture: _resized(picture, 0.5),
    "sharpened": lambda picture: picture.filter(ImageFilter.UnsharpMask()),
    "median of 3×3": lambda picture: picture.filter(ImageFilter.MedianFilter()),
    "from a JPEG, quality 85, 4:2:0": _through_jpeg,
    "noise of 8 levels": _noisy,
    "grey": lambda picture: picture.convert("L"),
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.kinds", description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=4, help="how many of Kodak's, evenly spread; 4")
    parser.add_argument("--size", type=int, default=256, help="side of the square that is taken of each; 256")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/lossless_kinds.md"))
    options = parser.parse_args(arguments)
    check_integer("--images", options.images, 1, 24)
    check_integer("--size", options.size, 32, 512)
    model = load_pretrained(MODEL)
    codecs = {
        "PNG": Png(),
        "WebP": WebP(100, lossless=True),
        "the networks alone": with_adaptation(model, "none"),
        "JPEG XL, effort 9": JpegXL(None, effort=9),
        f"`{MODEL}`": model,
    }
    kodak = [picture_of(image, options.size) for image in images_of("kodak", "test")]
    chosen = kodak[:: len(kodak) // options.images][: options.images]
    rows = []
    for kind, make in track(KINDS.items(), "coding"):
        pictures = [tensor_of(make(picture)) for picture in chosen]
        rows.append((kind, [bits_a_sample(codec, pictures) for codec in codecs.values()]))
    with whole_file(options.out) as out:
        out.write(page(rows, list(codecs), len(chosen), options.size, arguments).encode())
    print(options.out)


def with_adaptation(codec: LearnedCodec, adaptation: str) -> LearnedCodec:
    """A lossless codec with the same networks."""
    other = build_codec({**codec.model_config, "adaptation": adaptation})
    other.load_state_dict(codec.state_dict())
    return other.eval()


def picture_of(image: Tensor, side: int) -> Image.Image:
    """The middle square of `image`, uint8 `[3, H, W]`."""
    height, width = image.shape[1:]
    top, left = (height - side) // 2, (width - side) // 2
    return Image.fromarray(image[:, top : top + side, left : left + side].movedim(0, -1).numpy())


def tensor_of(picture: Image.Image) -> Tensor:
    """uint8 `[C, H, W]`."""
    values = torch.from_numpy(np.array(picture))
    return values[None] if values.ndim == 2 else values.movedim(-1, 0).contiguous()


def bits_a_sample(codec: ImageCodec, images: Sequence[Tensor]) -> float:
    """Of all files together. Raises RuntimeError if one does not come back."""
    size = 0
    for image in images:
        data = codec.encode(image)
        if not torch.equal(codec.decode(data), image):
            raise RuntimeError(f"{type(codec).__name__}: an image does not come back")
        size += len(data)
    return 8 * size / sum(image.numel() for image in images)


def page(
    rows: Sequence[tuple[str, Sequence[float]]],
    codecs: Sequence[str],
    images: int,
    side: int,
    arguments: Iterable[str],
) -> str:
    command = shlex.join(["python", "-m", "experiments.kinds", *arguments])
    lines = [
        "# Lossless, by kind of picture",
        "",
        f"Bits a sample of whole files, {images} Kodak images, of each the middle {side}×{side}; all came back",
        "exactly; in brackets, the last codec against the one before it. The networks alone: the last codec with",
        "`adaptation: none`: nothing is learned while an image is coded.",
        f"`{command}`, {hardware(torch.device('cpu'))}.",
        "",
        f"| picture | {' | '.join(codecs)} |",
        f"| --- | {' | '.join('---:' for _ in codecs)} |",
    ]
    for kind, bits in rows:
        cells = [f"{each:.3f}" for each in bits]
        cells[-1] += f" ({100 * (bits[-1] / bits[-2] - 1):+.1f} %)"
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
