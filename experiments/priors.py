"""The priors side by side on one fixed set of latents, after equal training: bits on Kodak at several rates.

  make table-priors                                             writes experiments/results/priors.md
  python -m experiments.priors --steps 20 --images 2 --out x.md quickly, to see that it runs
  python -m experiments.priors --run diffusion_wavelet          that run's own prior beside the best static one

The latents are those of `starts/diffusion_dct.safetensors`, whose transform stays as it is; each number of bits is
a step of the quantiser, so a rate. The training images' crops are encoded once; each prior then learns from the
same batches in the same order. Bits are those of the files' tables.

With `--run`, of a variable rate: bits of its rounded latents by its prior, and the entropy of each channel over all
images at that quality: fewer no prior of one distribution a channel can take, however long trained for that rate.
"""

import argparse
import math
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from codec.checkpoint import load_codec
from codec.checks import check_integer
from codec.data.image_file import read_image
from codec.entropy import EntropyBottleneck
from codec.entropy.tables import CodingTables
from codec.learned_codec import LearnedCodec
from codec.training.config import Builder
from codec.training.faults import user_errors
from codec.training.provenance import hardware
from codec.whole_file import whole_file
from experiments.compose import composed

TRANSFORM = Path(__file__).parent / "starts/diffusion_dct.safetensors"
PRIORS = ("factorized", "hyperprior", "checkerboard", "channel_context", "channel_context prior.hyper=true")
BITS = (5, 6, 7)
RUN_QUALITIES = (0.0, 16.0, 32.0, 50.0)
_BATCH, _CROP = 8, 128
_FITTED = 192  # crops that a linear start is fitted to
# A prior's own distributions learn faster than the networks around them, as prior_lr_factor has it in training.
_RATE, _RATE_OF_TABLES = 1e-3, 2e-2


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.priors", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="of training, of each prior at each rate; 400")
    parser.add_argument("--images", type=int, default=24, help="how many of Kodak's images are measured; 24")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/priors.md"))
    parser.add_argument(
        "--run", type=Path, help="compare this run's prior, or a pretrained model's, and train none"
    )
    options = parser.parse_args(arguments)
    check_integer("--steps", options.steps, 1)
    check_integer("--images", options.images, 1)
    if options.run is not None:
        beside_static(load_codec(options.run), list(images_of("kodak", "test"))[: options.images])
        return
    codec = load_codec(TRANSFORM)
    training = list(encoded(codec, training_crops(), "encoding the training crops"))
    kodak = [image[None] for image in images_of("kodak", "test")][: options.images]
    pixels = sum(image.shape[-2] * image.shape[-1] for image in kodak)
    measured = list(encoded(codec, kodak, "encoding Kodak"))
    bpp = {}
    for bits in BITS:
        for prior in PRIORS:
            bottleneck = trained(bottleneck_of(prior, bits), training, options.steps, f"{prior}, {bits} bits")
            bpp[prior, bits] = sum(file_bits(bottleneck, y) for y in measured) / pixels
            print(f"{prior} at {bits} bits: {bpp[prior, bits]:.4f} bpp", flush=True)
    with whole_file(options.out) as out:
        out.write(page(bpp, options.steps, len(training), len(kodak), arguments).encode())
    print(options.out)


def beside_static(codec: LearnedCodec, images: Sequence[Tensor]) -> None:
    """Prints bits a pixel by the codec's prior and by the best static distributions, at some qualities."""
    pixels = sum(image[0].numel() for image in images)
    for quality in RUN_QUALITIES:
        q, bits, levels = torch.tensor([quality]), 0.0, []
        for image in track(images, f"quality {quality:g}"):
            with torch.no_grad():
                y = codec.latent(codec.prepared(image))
                bits += sum(float(part.sum()) for part in codec.bottleneck(y, q)[1].values())
            levels.append([torch.floor(exact + 0.5) for exact in codec.bottleneck.exact_levels(y, q)])
        static = sum(
            entropy(torch.cat([one[0, channel].flatten() for one in tensor]))
            for tensor in zip(*levels, strict=True)
            for channel in range(tensor[0].shape[1])
        )
        print(
            f"quality {quality:g}: {bits / pixels:.4f} bpp, static {static / pixels:.4f} ({bits / static - 1:+.1%})"
        )


def entropy(symbols: Tensor) -> float:
    """Bits of all `symbols` `[N]`, by their own frequencies."""
    counts = symbols.unique(return_counts=True)[1].double()
    return float((counts * (counts.sum() / counts).log2()).sum())


def images_of(data: str, split: str) -> Iterator[Tensor]:
    """The images of a data group of conf/data, uint8 `[3, H, W]`."""
    with composed("train", [f"data={data}"]) as config, Builder(config) as build:
        module = build.part("data")
    source = module.sources[split]
    source.prepare()
    for path in source.images(split):
        yield read_image(path, channels=3)


def training_crops() -> list[Tensor]:
    """What of BSDS300's training images is cut without overlap, shuffled, uint8 `[1, 3, 128, 128]`: 1200 crops."""
    crops = []
    for image in images_of("bsd300", "train"):
        tiles = image.unfold(1, _CROP, _CROP).unfold(2, _CROP, _CROP)  # [3, rows, columns, 128, 128]
        crops += tiles.flatten(1, 2).unsqueeze(0).unbind(2)
    order = torch.randperm(len(crops), generator=torch.Generator().manual_seed(0))
    return [crops[n] for n in order.tolist()]


@torch.no_grad()
def encoded(codec: LearnedCodec, images: Sequence[Tensor], said: str) -> Iterator[Tensor]:
    for image in track(images, said):
        (y,) = codec.latent(codec.pad(image.float() / 255))
        yield y


def bottleneck_of(prior: str, bits: int) -> EntropyBottleneck:
    torch.manual_seed(0)
    overrides = ["experiment=diffusion_dct_bsd300", *f"prior={prior}".split(), f"quantization={bits}bit"]
    with composed("train", overrides) as config, Builder(config) as build:
        return build.codec("model").bottleneck


def trained(bottleneck: EntropyBottleneck, latents: Sequence[Tensor], steps: int, said: str) -> EntropyBottleneck:
    """The bottleneck, after its prior has been fitted, if it can be, and trained on batches of `latents`."""
    if bottleneck.prior.can_be_fitted:
        bottleneck.eval().fit_prior([torch.cat(list(latents[:_FITTED]))])
    tables = [p for m in bottleneck.modules() if isinstance(m, CodingTables) for p in m.parameters()]
    others = [p for p in bottleneck.parameters() if not any(p is table for table in tables)]
    groups = [{"params": others, "lr": _RATE}, {"params": tables, "lr": _RATE_OF_TABLES}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 + 0.5 * math.cos(math.pi * n / steps))
    generator = torch.Generator().manual_seed(0)
    bottleneck.train()
    for _ in track(range(steps), said):
        chosen = torch.randperm(len(latents), generator=generator)[:_BATCH].tolist()
        y = torch.cat([latents[n] for n in chosen])
        _, bits = bottleneck([y])
        optimizer.zero_grad()
        (sum(part.sum() for part in bits.values()) / y.numel()).backward()
        clip_grad_norm_(bottleneck.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return bottleneck.eval()


@torch.no_grad()
def file_bits(bottleneck: EntropyBottleneck, y: Tensor) -> float:
    _, bits = bottleneck([y])
    return float(sum(part.sum() for part in bits.values()))


def page(bpp: dict[tuple[str, int], float], steps: int, crops: int, images: int, arguments: Iterable[str]) -> str:
    first = PRIORS[0]
    command = shlex.join(["python", "-m", "experiments.priors", *arguments])
    lines = [
        "# The priors on the same latents",
        "",
        f"Bits a pixel of the latents of {images} Kodak images, by the transform of `{TRANSFORM.name}`,",
        f"by the step of the quantiser; in brackets, against `{first}`. Every prior has learned from",
        f"the same {steps} batches of {_BATCH} crops of {_CROP}×{_CROP}, of {crops} in all.",
        f"`{command}`, {hardware(torch.device('cpu'))}.",
        "",
        f"| prior | {' | '.join(f'step 2^-{bits}' for bits in BITS)} |",
        f"| --- | {' | '.join('---' for _ in BITS)} |",
    ]
    for prior in PRIORS:
        cells = [f"{bpp[prior, b]:.4f} ({100 * (bpp[prior, b] / bpp[first, b] - 1):+.1f} %)" for b in BITS]
        lines.append(f"| {prior} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
