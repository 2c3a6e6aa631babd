"""What one device gets through: images/s as presets train, and megapixels/s as codecs encode and decode.

  python -m experiments.bench.throughput                            on a GPU if there is one, else the CPU
  python -m experiments.bench.throughput --recorded --codecs        with strategy.cuda_graph=true, and no coding
  python -m experiments.bench.throughput --experiments conv_baseline_bsd300 --batch 64 --codecs
  python -m experiments.bench.throughput --experiments --codecs conv_enhanced runs/NAME --together 1 8 32

Training is `Trainer.fit` with the preset's callbacks and a CSV log, as strategy=gpu or cpu trains, on random crops
from memory: in a round some steps, then as many of the same in a bare loop. "Busy" is the device's time in one step
of the bare loop over the Trainer's step; what is missing to 1 it waits. Encoding is of photographs of one size, so
many analysed together. Times are those by the clock, once the device is done: nothing else is to run beside it.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from codec import pretrained
from codec.checkpoint import load_codec, load_pretrained
from codec.loaded_codec import Codec
from codec.training.evaluation import choose_device
from codec.training.faults import quieten, user_errors
from codec.training.precision import choose_precision
from codec.training.provenance import hardware
from experiments.bench.large_images import photograph
from experiments.bench.peer_training import Trained, check_presets, trained
from experiments.bench.peers import EXPERIMENTS, OURS
from experiments.bench.turns import Times, markdown, median, ratios, spread, timed


class Coded(NamedTuple):
    """What was done of so many megapixels, and how long it took, a number a round."""

    name: str
    way: str
    megapixels: float
    times: Sequence[Times]

    @property
    def speed(self) -> str:
        """Megapixels/s: of the rounds the median, in brackets the least and the greatest."""
        return spread([self.megapixels / t.wall for t in self.times])


def coded(
    name: str, together: Sequence[int], device: torch.device, rounds: int, megapixels: float
) -> Iterator[Coded]:
    """Encodes photographs, as many as the most that go together, then decodes them one by one."""
    weights = pretrained.called(name)
    learned = load_pretrained(weights) if weights else load_codec(name)
    codec, stem = Codec(learned.to(device), weights), Path(name).stem
    images = [photograph(megapixels, learned.image_channels)] * max(together)
    total = len(images) * images[0][0].numel() / 1e6
    for count in together if learned.analyses_batches else together[:1]:
        times = _repeated(lambda count=count: codec.encode_batch(images, batch=count), rounds)
        yield Coded(stem, f"encode, {count} together" if learned.analyses_batches else "encode", total, times)
    files = codec.encode_batch(images)
    yield Coded(stem, "decode", total, _repeated(lambda: codec.decode_batch(files, "torch"), rounds))


def _repeated(call: Callable[[], Any], rounds: int) -> list[Times]:
    call()  # makes what is made once
    return [timed(call)[1] for _ in range(rounds)]


def coding_table(rows: Sequence[Coded]) -> str:
    """Markdown."""
    return markdown(["codec", "", "MP/s"], [[row.name, row.way, row.speed] for row in rows])


def training_table(rows: Sequence[Trained], batch: int) -> str:
    """Markdown; the rows are of `batch` crops a step, and know how busy the device was."""
    lines = []
    for row in rows:
        step, bare = median(row.trainer, "wall"), median(row.bare, "wall")
        speeds = [f"{1000 * step:,.1f}", f"{batch / step:,.1f}", f"{batch / bare:,.1f}"]
        compared = [spread(ratios(row.trainer, row.bare, "wall")), f"{row.busy / step:.2f}"]
        lines.append([row.name, f"{batch} of {row.side}²", row.precision, *speeds, *compared])
    heads = ["preset", "crops", "precision", "step ms", "images/s", "bare loop's", "step ÷ bare loop's", "busy"]
    return markdown(heads, lines)


@user_errors()
def main(arguments: Sequence[str] | None = None) -> tuple[list[Coded], list[Trained]]:
    """Measures what the command line names, prints the tables and returns their rows."""
    raw = argparse.RawDescriptionHelpFormatter
    program = "python -m experiments.bench.throughput"
    parser = argparse.ArgumentParser(program, description=__doc__, formatter_class=raw)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--codecs", nargs="*", default=OURS, metavar="CODEC", help="a model's name or a checkpoint")
    parser.add_argument("--together", nargs="+", type=int, default=(1, 8), metavar="N", help="images encoded (1 8)")
    parser.add_argument("--megapixels", type=float, default=0.393216, metavar="N", help="of an image (768×512)")
    parser.add_argument("--experiments", nargs="*", default=EXPERIMENTS, metavar="NAME", help="presets to train")
    parser.add_argument("--recorded", action="store_true", help="train with strategy.cuda_graph=true")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="crops a step (32)")
    parser.add_argument("--crop", type=int, default=256, metavar="SIDE", help="their side (256)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="of a round (10)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the median is taken (3)")
    options = parser.parse_args(arguments)
    numbers = {name: getattr(options, name) for name in ("batch", "crop", "steps", "rounds")}
    for name, number in (numbers | {"together": min(options.together)}).items():
        if number < 1:
            parser.error(f"--{name} {number}: allowed are integers from 1")
    if not 0 < options.megapixels < math.inf:
        parser.error(f"--megapixels {options.megapixels:g}: allowed are numbers above 0")
    check_presets(options.experiments)
    quieten()
    usable = "cuda" if torch.cuda.is_available() else "cpu"
    device = choose_device(usable if options.device == "auto" else options.device)
    print(f"{hardware(device)}, torch {torch.__version__}, {options.rounds} rounds", flush=True)
    coding: list[Coded] = []
    training: list[Trained] = []
    try:
        for name in options.codecs:
            for one in coded(name, options.together, device, options.rounds, options.megapixels):
                print(f"coding: {one.name}, {one.way}: {one.speed} MP/s", file=sys.stderr, flush=True)
                coding.append(one)
        for preset in options.experiments:
            print(f"training: {preset}", file=sys.stderr, flush=True)
            training.append(_trained(preset, options, device))
    finally:  # what is measured is not lost where one fails, or takes too long for who waits
        if coding:
            print(f"\n{coding_table(coding)}", flush=True)
        if training:
            print(f"\n{training_table(training, options.batch)}", flush=True)
    return coding, training


def _trained(preset: str, options: argparse.Namespace, device: torch.device) -> Trained:
    return trained(
        preset,
        options.crop,
        choose_precision("auto", device.type).name,
        options.rounds,
        overrides=[
            f"strategy={'gpu' if device.type == 'cuda' else 'cpu'}",
            f"strategy.cuda_graph={str(options.recorded).lower()}",
        ],
        batch=options.batch,
        steps=options.steps,
        profiled=True,
    )


if __name__ == "__main__":
    main()
