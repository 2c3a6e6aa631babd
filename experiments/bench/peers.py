"""Our codecs beside CompressAI's scale hyperprior: encode, decode and a step of training, in turns on one thread.

  QUINTET_COMPRESSAI=$HOME/compressai/bin/python python -m experiments.bench.peers
  python -m experiments.bench.peers runs/NAME conv_enhanced --image photo.jpg --rounds 9 --experiments
  python -m experiments.bench.peers --out experiments/results/bench.md      what it prints as a page, and a chart

The variable names a Python whose environment has CompressAI (pip install compressai==1.2.8 "numpy<2"), which runs
beside ours in a process of its own; without it, what is compared with it is not measured. In every round each of
the codecs codes the image once, and the rounds' ratios are shown: the median, the least and the greatest. A codec
whose rate varies is measured at effort 0 and at its own. Training is that of presets, on random crops.
"""

import argparse
import itertools
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from codec import pretrained
from codec.checkpoint import load_codec, load_pretrained
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.learned_codec import LearnedCodec
from codec.training.faults import quieten, user_errors
from codec.training.precision import choose_precision
from codec.training.provenance import hardware
from experiments.bench.peer_training import BATCH, Trained, check_presets, trained
from experiments.bench.turns import PEER, VARIABLE, Peer, Times, markdown, median, ratios, spread, timed
from experiments.plots.figures import COLOURS, save

OURS = (
    "conv_baseline",
    "conv_enhanced",
    "conv_baseline_dct",
    "conv_enhanced_dct",
    "quantized_autoencoder_dct",
    "experiments/starts/diffusion_dct.safetensors",
    "diffusion_wavelet",
)
EXPERIMENTS = ("conv_baseline_bsd300", "conv_enhanced_bsd300", "diffusion_dct_bsd300", "diffusion_wavelet")
CROPS = (128, 256)
# What is aimed at, as it is drawn: at most so much of CompressAI's time, and at least so many times its images/s.
_TIME_AIMED_AT, _SPEED_AIMED_AT = 0.7, 1.3


class Row:
    """The times of one codec at one effort, a number a round."""

    def __init__(self, name: str, codec: LearnedCodec, effort: int | None = None) -> None:
        self.name, self.codec, self.effort = name, codec, effort
        self.bytes = 0
        self.encode: list[Times] = []
        self.decode: list[Times] = []

    @property
    def label(self) -> str:
        return self.name if self.effort is None else f"{self.name}, effort {self.effort}"

    def measure(self, image: Tensor) -> None:
        """Encodes and decodes once more."""
        self.codec.effort = self.effort
        data, encoding = timed(lambda: self.codec.encode(image))
        _, decoding = timed(lambda: self.codec.decode(data))
        self.bytes = len(data)
        self.encode.append(encoding)
        self.decode.append(decoding)


class PeerRow:
    """As `Row`, of CompressAI's; without a peer there are no times."""

    def __init__(self, peer: Peer | None) -> None:
        self.peer = peer
        self.encode: list[Times] = []
        self.decode: list[Times] = []

    def measure(self) -> None:
        if self.peer is not None:
            self.encode.append(self.peer.ask("encode"))
            self.decode.append(self.peer.ask("decode"))


def rows_of(names: Sequence[str]) -> list[Row]:
    """Of pretrained models, by name, and checkpoints."""
    rows = []
    for name in names:
        weights = pretrained.called(name)
        codec = load_pretrained(weights) if weights else load_codec(name)
        rows += [Row(Path(name).stem, codec, effort) for effort in ((0, None) if codec.quality_grid else (None,))]
    return rows


def coded(rows: Sequence[Row], peer: Peer | None, image: Tensor, rounds: int) -> PeerRow:
    """Fills the rows' times, and gives the peer's."""
    for row in rows:  # what is made once
        row.measure(image)
        row.encode.clear()
        row.decode.clear()
    PeerRow(peer).measure()
    of_peer = PeerRow(peer)
    for n in range(rounds):
        for row in rows:
            row.measure(image)
        of_peer.measure()
        print(f"coding: {n + 1} of {rounds}", file=sys.stderr, flush=True)
    return of_peer


def coding_table(rows: Sequence[Row], of_peer: PeerRow) -> str:
    """Markdown; a ratio above 1 is slower than CompressAI's."""
    heads = ["codec", "bytes", "encode ms", "decode ms", *(f"{way} ×" for way in ("encode", "decode"))]
    lines = []
    for row in rows:
        milliseconds = [f"{1000 * median(times, 'cpu'):,.0f}" for times in (row.encode, row.decode)]
        pairs = ((row.encode, of_peer.encode), (row.decode, of_peer.decode))
        compared = [spread(ratios(*pair, clock)) for clock in ("cpu", "wall") for pair in pairs]
        lines.append([row.label, f"{row.bytes:,}", *milliseconds, *compared])
    if of_peer.peer is not None:
        milliseconds = [f"{1000 * median(times, 'cpu'):,.0f}" for times in (of_peer.encode, of_peer.decode)]
        lines.append([PEER, f"{of_peer.peer.bytes:,}", *milliseconds, *["1"] * 4])
    return markdown([*heads, *(f"{way} × by the clock" for way in ("encode", "decode"))], lines)


def training_table(rows: Sequence[Trained]) -> str:
    """Markdown; of images/s a ratio above 1 is faster than CompressAI's loop."""
    heads = ["preset", "crops", "precision", "step ms", "images/s", "images/s ×", "images/s × by the clock"]
    lines = []
    for row in rows:
        step = median(row.trainer, "cpu")
        speeds = [spread(ratios(row.peer, row.trainer, clock)) for clock in ("cpu", "wall")]
        crops = f"{BATCH} of {row.side}²"
        cells = [
            f"{1000 * step:,.0f}",
            f"{BATCH / step:.1f}",
            *speeds,
            spread(ratios(row.trainer, row.bare, "cpu")),
        ]
        lines.append([row.name, crops, row.precision, *cells])
    return markdown([*heads, "step ÷ bare loop's"], lines)


def page(coding: str, training: str, about: str, image: str) -> str:
    """What is printed and written: both tables, and what they were measured on."""
    return "\n\n".join(
        [
            "# Speed beside CompressAI",
            f"Made by `python -m experiments.bench.peers`: {about}. {PEER}, N = 128, in turns with ours; medians "
            "of the rounds, in brackets the least and the greatest. Milliseconds, and ratios where nothing else is "
            "said, are of CPU time.",
            f"## Coding\n\nOf {image}. Above 1: slower than CompressAI.\n\n{coding}",
            "## Training\n\nA step of `Trainer.fit` with the preset's callbacks and a CSV log beside CompressAI's "
            "loop in float32. Above 1: faster. The last column compares with the same step without Lightning."
            f"\n\n{training}",
        ]
    )


def draw(rows: Sequence[Row], of_peer: PeerRow, steps: Sequence[Trained], out: Path) -> None:
    """Both ratios as bars from the least to the greatest round, to `out` and as SVG beside it."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    coding, training = figure.subplots(1, 2)
    ways = {
        "encode": [(row.label, ratios(row.encode, of_peer.encode, "cpu")) for row in rows],
        "decode": [(row.label, ratios(row.decode, of_peer.decode, "cpu")) for row in rows],
    }
    _bars(coding, ways, _TIME_AIMED_AT)
    coding.set_title("Coding: time, × CompressAI's", fontsize="medium")
    speeds: dict[str, list[tuple[str, list[float]]]] = {}
    for row in steps:
        bar = row.name, ratios(row.peer, row.trainer, "cpu")
        speeds.setdefault(f"{row.side}², {row.precision}", []).append(bar)
    _bars(training, speeds, _SPEED_AIMED_AT)
    training.set_title("Training: images/s, × CompressAI's", fontsize="medium")
    save(figure, out)


def _bars(axes: Axes, kinds: dict[str, list[tuple[str, list[float]]]], aimed_at: float) -> None:
    """A bar for every name, of each kind, the kinds beside each other; a line at 1 and one at what is aimed at."""
    height = 0.8 / len(kinds)
    for n, (kind, bars) in enumerate(kinds.items()):
        middle = [statistics.median(values) for _, values in bars]
        spans = [(m - min(values), max(values) - m) for m, (_, values) in zip(middle, bars, strict=True)]
        places = [place + (n - (len(kinds) - 1) / 2) * height for place in range(len(bars))]
        span = list(zip(*spans, strict=True))
        axes.barh(places, middle, 0.9 * height, xerr=span, color=COLOURS[n], ecolor="0.3", capsize=2, label=kind)
    axes.axvline(1, color="black", linewidth=1)
    axes.axvline(aimed_at, color="black", linewidth=1, linestyle=":", label=f"aimed at: {aimed_at}")
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.legend(fontsize="x-small", loc="upper right", bbox_to_anchor=(1, -0.06), ncols=3, columnspacing=1)


@user_errors()
def main(arguments: Sequence[str] | None = None) -> tuple[list[Row], list[Trained]]:
    """Measures what the command line names, prints the page and returns the tables' rows."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m experiments.bench.peers", description=__doc__, formatter_class=raw)
    parser.add_argument("codecs", nargs="*", default=OURS, metavar="CODEC", help="a model's name or a checkpoint")
    parser.add_argument("--image", type=Path, help="default: a photograph that comes with scikit-image")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of which the median is taken (5)")
    parser.add_argument("--experiments", nargs="*", default=EXPERIMENTS, metavar="NAME", help="presets to train")
    parser.add_argument("--crops", nargs="+", type=int, default=CROPS, metavar="SIDE", help="of training (128 256)")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="the page as a file, and a chart beside it")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: allowed are integers from 1")
    check_presets(options.experiments)
    quieten()
    torch.set_num_threads(1)
    file = options.image or SamplesSource().images("test")[0]
    image = read_image(file, channels=3)
    python = os.environ.get(VARIABLE)
    rows, steps = rows_of(options.codecs), []
    with Peer(python, image) if python else nullcontext() as peer:
        of_peer = coded(rows, peer, image, options.rounds)
        version = f"CompressAI {peer.version}" if peer else "no CompressAI"
        precisions = dict.fromkeys(("32-true", choose_precision("auto", "cpu").name))
        for preset, side, precision in itertools.product(options.experiments, options.crops, precisions):
            steps.append(trained(preset, side, precision, options.rounds, peer))
            print(f"training: {preset}, {side}², {precision}", file=sys.stderr, flush=True)
    machine = f"{hardware(torch.device('cpu'))}, load {os.getloadavg()[0]:.1f}"
    about = f"{machine}, torch {torch.__version__}, {version}, {options.rounds} rounds"
    told = f"{file.name}, {image.shape[2]}×{image.shape[1]}"
    text = page(coding_table(rows, of_peer), training_table(steps), about, told)
    print(text)
    if not python:
        print(f"\nnot measured: {VARIABLE}=PYTHON names one that has CompressAI (compressai==1.2.8, numpy<2)")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
        if python:
            draw(rows, of_peer, steps, options.out.with_suffix(".png"))
    return rows, steps


if __name__ == "__main__":
    main()
