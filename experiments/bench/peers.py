"""Our codecs beside CompressAI's scale hyperprior: processor time of encode and decode, part by part.

  pip install compressai
  python -m experiments.bench.peers --image kodim01.png
  python -m experiments.bench.peers runs/NAME conv_enhanced --image photo.jpg --repeats 9

All are run in turns in one process of one thread, and medians are shown; processor time, because other work on the
machine counts least in it. The peer is bmshj2018_hyperprior(quality=3) (N = 128, M = 192) with random weights,
which cost its networks what trained ones do. Its latent is rounded to 0, though, so that its file is smaller than a
trained one's: with a latent 30 times as large, two thirds of which were not 0, it took as long.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from codec import pretrained
from codec.checkpoint import load_codec, load_pretrained
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.errors import ConfigError
from codec.learned_codec import LearnedCodec
from codec.text_table import text_table
from codec.training.faults import user_errors
from experiments.bench.__main__ import Parts, parts_of

PEER = "bmshj2018-hyperprior"
OURS = ("diffusion_wavelet", "experiments/starts/diffusion_dct.safetensors")
# What parts_of calls the parts of ours, and what of it they are: transforms, probabilities, arithmetic coding.
_GROUPS = {"network": "transform", "quantiser": "transform", "format": "transform", "tables": "coder"}
_WAYS = ("encode", "decode")


class ScaleHyperprior:
    """CompressAI's bmshj2018_hyperprior behind the two verbs of ours; `encode` gives the strings and a shape."""

    def __init__(self) -> None:
        try:
            from compressai.zoo import bmshj2018_hyperprior
        except ImportError as error:
            raise ConfigError(f"CompressAI cannot be imported ({error}): pip install compressai") from None
        torch.manual_seed(0)
        self.model = bmshj2018_hyperprior(quality=3, pretrained=False).eval()
        self.model.update()

    @torch.inference_mode()
    def encode(self, image: Tensor) -> dict[str, Any]:
        return self.model.compress(image[None].float() / 255)

    @torch.inference_mode()
    def decode(self, data: dict[str, Any]) -> Tensor:
        x_hat = self.model.decompress(**data)["x_hat"]
        return (x_hat[0].clamp(0, 1) * 255).round().to(torch.uint8)

    @contextmanager
    def parts(self) -> Iterator[Parts]:
        """As `parts_of`."""
        model, parts = self.model, Parts(time.process_time)
        places = [(module, "forward", "transform") for module in (model.g_a, model.g_s)]
        places += [(module, "forward", "prior") for module in (model.h_a, model.h_s)]
        for module in (model.entropy_bottleneck, model.gaussian_conditional):
            places += [(module, name, "coder") for name in ("compress", "decompress")]
        places += [(model.gaussian_conditional, "build_indexes", "coder")]
        with ExitStack() as stack:
            for owner, name, part in places:
                stack.enter_context(patch.object(owner, name, parts.timed(part)(getattr(owner, name))))
            yield parts


class Row:
    """Times of one codec at one effort, in ms, by way and part; a part of them is the `whole`."""

    def __init__(self, name: str, codec: LearnedCodec | ScaleHyperprior, effort: int | None = None) -> None:
        self.name, self.codec, self.effort = name, codec, effort
        self.bytes = 0
        self.times: dict[tuple[str, str], list[float]] = defaultdict(list)

    def measure(self, image: Tensor) -> None:
        """Encodes and decodes once more."""
        ours = isinstance(self.codec, LearnedCodec)
        if ours:
            self.codec.effort = self.effort
        with parts_of(self.codec, time.process_time) if ours else self.codec.parts() as parts:
            data = self._timed("encode", self.codec.encode, image, parts)
            self._timed("decode", self.codec.decode, data, parts)
        self.bytes = len(data) if ours else sum(len(string) for (string,) in data["strings"])

    def median(self, way: str, part: str = "whole") -> float:
        return statistics.median(self.times[way, part])

    @property
    def total(self) -> float:
        return sum(map(self.median, _WAYS))

    def _timed(self, way: str, function: Callable, argument: Any, parts: Parts) -> Any:
        parts.seconds.clear()
        started = time.process_time()
        result = function(argument)
        split = dict.fromkeys(("transform", "prior", "coder"), 0.0)
        split["whole"] = time.process_time() - started
        for part, seconds in parts.seconds.items():
            split[_GROUPS.get(part, part)] += seconds
        for part, seconds in split.items():
            self.times[way, part].append(1000 * seconds)
        return result


def report(rows: Sequence[Row]) -> str:
    """A table for the terminal; the last row's total is what the others are compared with."""
    split = [(way, part) for way in _WAYS for part in ("transform", "prior", "coder")]
    heads = ["ms", "effort", "bytes", *_WAYS, "total", "×", *(f"{way[:3]} {part}" for way, part in split)]
    lines = []
    for row in rows:
        effort = "" if isinstance(row.codec, ScaleHyperprior) else "own" if row.effort is None else str(row.effort)
        milliseconds = [f"{ms:,.0f}" for ms in (*map(row.median, _WAYS), row.total)]
        ratio = f"{row.total / rows[-1].total:.2f}"
        parts = [f"{row.median(*of):,.0f}" for of in split]
        lines.append([row.name, effort, f"{row.bytes:,}", *milliseconds, ratio, *parts])
    return text_table(heads, lines, right=heads[1:])


@user_errors()
def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Measures what the command line names, prints the table and returns its rows."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m experiments.bench.peers", description=__doc__, formatter_class=raw)
    parser.add_argument("codecs", nargs="*", default=OURS, metavar="CODEC", help="a model's name or a checkpoint")
    parser.add_argument("--image", type=Path, help="default: a photograph that comes with scikit-image")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="of which the median is taken (5)")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats {options.repeats}: allowed are integers from 1")
    image = read_image(options.image or SamplesSource().images("test")[0], channels=3)
    torch.set_num_threads(1)
    rows = []
    for name in options.codecs:
        weights = pretrained.called(name)
        codec = load_pretrained(weights) if weights else load_codec(name)
        rows += [Row(Path(name).stem, codec, effort) for effort in ((0, None) if codec.quality_grid else (None,))]
    rows.append(Row(PEER, ScaleHyperprior()))
    for n in range(1 + options.repeats):  # the first makes what is made once
        for row in rows:
            if n == 1:
                row.times.clear()
            row.measure(image)
        print(f"{n} of {options.repeats}", file=sys.stderr, flush=True)
    print(report(rows))
    return rows


if __name__ == "__main__":
    main()
