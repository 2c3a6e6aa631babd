"""`codec models`: the pretrained models, what they reach, and how large they are."""

import argparse

from codec import pretrained
from codec.cli.console import say
from codec.cli.notes import A_RATIO
from codec.pretrained import PretrainedModel, Weights, choose, pretrained_models
from codec.text_table import text_table

HEADS = (
    "model",
    "quality",
    "scheme",
    "images",
    "bpp",
    "PSNR (dB)",
    "measured on",
    "MB",
    "parameters",
    "kMAC/pixel",
)
NUMBERS = ("bpp", "PSNR (dB)", "MB", "parameters", "kMAC/pixel")


def models(options: argparse.Namespace) -> int:
    """The pretrained models, what they reach, and how large they are; of one that is named, its card."""
    if options.name is None:
        say(described(pretrained_models()))
        return 0
    choose(options.name)
    say((pretrained.FOLDER / f"{options.name}.md").read_text(encoding="utf-8"))
    return 0


def described(models: list[PretrainedModel]) -> str:
    """A text table of the models, a line for each file of weights; the default one has a star.

    Figures are means over the first data set that was measured; where weights write at several qualities, from the
    lowest to the highest that was measured.
    """
    if not models:
        return "this installation has no pretrained models"
    default = models[0].at()
    rows = [_row(weights, weights == default) for model in models for weights in model.weights]
    about = [f"{model.name}: {model.weights[0].description}" for model in models]
    at = "" if default.own_quality is None else f", at quality {default.own_quality:g}"
    star = f"* is what compress takes if none is named{at}."
    work = "kMAC/pixel: thousands of multiply-adds of networks and transforms, to encode / to decode."
    notes = [star, work]
    if any(model.weights[0].quality_is_ratio for model in models):
        notes.append(f"ratio: given as --quality, {A_RATIO}.")
    return "\n".join([text_table(HEADS, rows, right=NUMBERS), "", *notes, *about])


def _row(weights: Weights, default: bool) -> tuple[str, ...]:
    data_set, points = next(iter(weights.measured.items()))
    if weights.lossless:
        quality = f"lossless, {points[0]['bpsp']:.2f} bpsp"
    else:
        quality = _span([point["psnr"] for point in points])
    return (
        weights.name + "*" * default,
        _qualities(weights),
        weights.scheme,
        "grey" if weights.image_channels == 1 else "colour",
        _span([point["bpp"] for point in points]),
        quality,
        f"{data_set} at {_ends([point['quality'] for point in points], weights)}" if weights.accepts else data_set,
        f"{weights.size / 1e6:.2f}",
        f"{weights.parameters / 1e6:.2f} M",
        f"{weights.encode_macs / 1e3:.1f} / {weights.decode_macs / 1e3:.1f}",
    )


def _qualities(weights: Weights) -> str:
    """From small files to large."""
    if not weights.accepts:
        return str(weights.quality or "")
    ends = _ends(weights.accepts, weights)
    return f"ratio {ends}" if weights.quality_is_ratio else ends


def _ends(qualities: list[float], weights: Weights) -> str:
    ends = sorted({min(qualities), max(qualities)}, reverse=weights.quality_is_ratio)
    return "–".join(f"{quality:g}" for quality in ends)


def _span(values: list[float]) -> str:
    ends = [f"{value:.2f}" for value in (min(values), max(values))]
    return "–".join(dict.fromkeys(ends))
