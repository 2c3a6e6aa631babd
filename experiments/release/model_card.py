"""The model card of a pretrained model, made of what is known of its weights."""

from codec.pretrained import Point, PretrainedModel, Weights
from codec.training.results import shown

COLUMNS = {
    "images": "{:.0f}",
    "bpp": "{:.4f}",
    "bpsp": "{:.4f}",
    "psnr": "{:.2f}",
    "ssim": "{:.4f}",
    "ms_ssim": "{:.4f}",
    "encode_ms_per_megapixel": "{:,.0f}",
    "decode_ms_per_megapixel": "{:,.0f}",
}
HEADS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "encode_ms_per_megapixel": "encode ms/MP",
    "decode_ms_per_megapixel": "decode ms/MP",
}


def card(model: PretrainedModel) -> str:
    """The card, in Markdown."""
    first = model.weights[0]
    quality = first.own_quality if first.accepts else model.at().quality
    asked = "" if quality is None else f" --quality {quality:g}"
    return "\n\n".join(
        [
            f"# {model.name}",
            f"{first.description[0].upper()}{first.description[1:]} {_scheme(first)}",
            f"```\ncodec compress photo.png photo.qnt --model {model.name}{asked}\n"
            "codec decompress photo.qnt decoded.png\n```",
            "## Measured",
            _measured(model),
            "## Complexity",
            _complexity(model),
            "## Training",
            *(_training(weights) for weights in model.weights),
            "## Limits",
            "\n".join(f"- {limit}" for limit in _limits(model)),
            "## Files",
            _table(
                ("file", "bytes", "SHA-256", "its files' fingerprint"),
                [(f"`{w.path.name}`", f"{w.size:,}", f"`{w.sha256}`", f"`{w.fingerprint}`") for w in model.weights],
            ),
            "Parameters in half precision, coding tables as integers; the resolved config of the training is the "
            ".yaml beside it.\n",
        ]
    )


def _measured(model: PretrainedModel) -> str:
    rows = [
        (data_set, point.get("quality", weights.quality), point)
        for data_set in model.weights[0].measured
        for weights in model.weights
        for point in weights.measured.get(data_set, [])
    ]
    columns = [column for column in COLUMNS if any(column in point for _, _, point in rows)]
    if not model.weights[0].lossless:
        columns.remove("bpsp")
    table = _table(
        ("data", *(["quality"] if model.ends else []), *(HEADS.get(column, column) for column in columns)),
        [
            (data_set, *([str(quality)] if model.ends else []), *(_cell(point, column) for column in columns))
            for data_set, quality, point in rows
        ],
    )
    grey = " data.channels=1" if model.weights[0].image_channels == 1 else ""
    quality = " quality=N" if model.ends else ""
    hardware = "; ".join(dict.fromkeys(point["hardware"] for _, _, point in rows))
    return (
        f"{table}\n\nMeans over the images, of whole files and decoded 8-bit images, which `python evaluate.py "
        f"pretrained={model.name}{quality} data={rows[0][0]}{grey}` repeats. "
        f"Measured on {hardware}; times are by the wall clock, and rough."
    )


def _complexity(model: PretrainedModel) -> str:
    table = _table(
        ("file", "parameters", "encode kMAC/pixel", "decode kMAC/pixel"),
        [
            (f"`{w.path.name}`", f"{w.parameters:,}", f"{w.encode_macs / 1e3:.1f}", f"{w.decode_macs / 1e3:.1f}")
            for w in model.weights
        ],
    )
    return (
        f"{table}\n\nkMAC: thousands of multiply-adds, of convolutions and matrix products, as "
        "torch.utils.flop_counter counts them in encoding and decoding an image of 768×512 with no options. Not "
        "counted: the entropy coder, standard codecs, and work on single values, such as activations."
    )


def _training(weights: Weights) -> str:
    known = weights.training
    heading = "" if weights.quality is None else f"Quality {weights.quality}: "
    precision = f" in {known['precision']}" if "precision" in known else ""
    stopped = f", {known['stopped']}" if "stopped" in known else ""
    length = f"{known['epochs']} epochs, {known['time']}{precision}{stopped}"
    best = f"The best weights, after epoch {known['epoch']} ({known['steps']:,} steps), are these."
    commit = "" if known["commit"] == "unknown" else f" Commit {known['commit']}."
    return f"{heading}{known['data']}; {length}. {best}{commit}\n\n```\n{known['command']}\n```"


def _limits(model: PretrainedModel) -> list[str]:
    first = model.weights[0]
    limits = []
    if first.image_channels == 1:
        limits.append("Grey only: colours are lost.")
    if first.accepts:
        limits.append(f"Qualities {first.accepts[0]} to {first.accepts[1]}.")
    limits.append(
        "Lossless: decoded pixels are those of the original, or an error says that they are not."
        if first.lossless
        else "Decoded pixels may differ by 1 of 255 between machines, where floats are added in another order."
    )
    limits.append("Trained briefly on few photographs: drawings, screenshots and text were not among them.")
    if "non-commercial" in first.training["data"]:
        limits.append("The terms of the training images allow non-commercial research and education only.")
    limits.append(
        "A file is decoded only by the weights that wrote it: keep this version of the package with them."
    )
    return limits


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(point: Point, column: str) -> str:
    return shown(float(point[column]) if column in point else None, COLUMNS[column])


def _scheme(weights: Weights) -> str:
    return f"Scheme `{weights.scheme}`{f': {weights.source}' if weights.source else '.'}"
