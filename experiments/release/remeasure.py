"""Measures models of the package anew, whose weights stay: for when the code that writes their files has changed.

  python -m experiments.release.remeasure lossless_unet_polyphase

Files that were written before can then no longer be decoded, where the change was one of the format.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from codec import pretrained
from codec.checkpoint import load_codec
from codec.training.faults import user_errors
from codec.training.paths import checkout
from experiments.release.export import GOLDEN, figures, write_description


def remeasure(name: str, golden: Path = GOLDEN) -> None:
    """Writes the descriptions and golden files of a model's weights again, by the data and qualities they name.

    Raises CheckpointError if the package has no such model.
    """
    pretrained.choose(name)
    (model,) = (model for model in pretrained.pretrained_models() if model.name == name)
    for weights in model.weights:
        codec = load_codec(weights.path)
        (points, *_) = weights.measured.values()
        qualities = [point["quality"] for point in points if "quality" in point]
        found = replace(weights, **figures(codec, tuple(weights.measured), qualities))
        write_description(codec, found, golden)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the command line names."""
    summary, *more = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m experiments.release.remeasure",
        description=summary,
        epilog="\n\n".join(more),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a model of `codec models`")
    options = parser.parse_args(arguments)
    if checkout() is None:
        parser.error("models are described in a checkout: this package is installed")
    with user_errors():
        for name in options.names:
            remeasure(name)


if __name__ == "__main__":
    main()
