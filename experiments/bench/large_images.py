"""Time and memory of encode and decode as images grow: neither may grow faster than the image.

  python -m experiments.bench.large_images runs/NAME                    a trained run, 0.1 to 24 megapixels
  python -m experiments.bench.large_images diffusion_wavelet --megapixels 0.5 2 --threads 2   a pretrained model
  python -m experiments.bench.large_images diffusion_wavelet --out sizes.md                    and a chart sizes.png

Every size is encoded in a process of its own, and decoded in another. Seconds are those of the CPU, all threads
together, as other work on the machine hardly changes them. Memory is the largest resident set of the process, with
Python, torch, the image and its file. Images are packaged photographs, mirrored to the size.
"""

import argparse
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from codec import pretrained
from codec.checkpoint import load_codec, load_pretrained
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.errors import CheckpointError
from codec.learned_codec import LearnedCodec
from codec.training.provenance import hardware
from experiments.plots.figures import plain_numbers, save

SIZES = (0.1, 0.4, 1.5, 6.0, 24.0)
_KIB = 1024 if sys.platform == "linux" else 1  # of ru_maxrss


class Measured(NamedTuple):
    """Of one image: its size, the file's bits per sample, CPU seconds, and the processes' bytes of memory."""

    megapixels: float
    bpsp: float
    encode_s: float
    decode_s: float
    encode_bytes: int
    decode_bytes: int


def photograph(megapixels: float, channels: int) -> Tensor:
    """uint8 `[C, H, W]`, three columns for two rows."""
    height = max(1, round(math.sqrt(megapixels * 1e6 / 1.5)))
    width = max(1, round(1.5 * height))
    image = read_image(SamplesSource().images("test")[-1], channels=channels)
    rows = _mirrored(image.shape[1], height)
    return image[:, rows][:, :, _mirrored(image.shape[2], width)].contiguous()


def encoded(checkpoint: str, megapixels: float, threads: int) -> tuple[bytes, float, int]:
    """The file of a photograph, the seconds that encoding it took, and the bytes of memory. For a fresh process."""
    codec, image = _ready(checkpoint, megapixels, threads)
    return _run(lambda: codec.encode(image))


def decoded(checkpoint: str, megapixels: float, threads: int, data: bytes) -> tuple[bool, float, int]:
    """Whether the file is decoded to the very photograph, the seconds, and the bytes of memory. As `encoded`."""
    codec, image = _ready(checkpoint, megapixels, threads)
    back, seconds, used = _run(lambda: codec.decode(data))
    return torch.equal(back, image), seconds, used


def measured(checkpoint: str, megapixels: float, threads: int) -> Measured:
    """One photograph, encoded in one process and decoded in another.

    Raises ValueError if a codec that calls itself lossless is not.
    """
    job = (checkpoint, megapixels, threads)
    data, encode_s, encode_bytes = _in_a_process(encoded, *job)
    same, decode_s, decode_bytes = _in_a_process(decoded, *job, data)
    codec = _loaded(checkpoint)
    if codec.lossless and not same:
        raise ValueError(f"{checkpoint}: {megapixels} megapixels do not come back from their file")
    image = photograph(megapixels, codec.image_channels)
    pixels = image.shape[1] * image.shape[2] / 1e6
    return Measured(pixels, 8 * len(data) / image.numel(), encode_s, decode_s, encode_bytes, decode_bytes)


def report(rows: Sequence[Measured]) -> str:
    """A Markdown table."""
    lines = [
        "| megapixels | bpsp | encode s/MP | decode s/MP | encode memory | decode memory |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for size, bpsp, encode_s, decode_s, encode_bytes, decode_bytes in rows:
        cells = [f"{size:.1f}", f"{bpsp:.3f}", f"{encode_s / size:.2f}", f"{decode_s / size:.2f}"]
        cells += [f"{used / 1e9:.2f} GB" for used in (encode_bytes, decode_bytes)]
        lines += [f"| {' | '.join(cells)} |"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[Measured]:
    """Measures what the command line names, prints the table and returns its rows."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench.large_images",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="RUN", help="a run's folder, a checkpoint, or a pretrained model")
    parser.add_argument("--megapixels", nargs="+", type=float, default=SIZES, metavar="N")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="the table as a file, and a chart beside it")
    options = parser.parse_args(arguments)
    if min(options.megapixels) <= 0 or options.threads < 1:
        parser.error("--megapixels takes numbers above 0, --threads integers from 1")
    try:
        _loaded(options.checkpoint)
    except CheckpointError as error:
        parser.error(str(error))
    rows = []
    for megapixels in options.megapixels:
        row = measured(options.checkpoint, megapixels, options.threads)
        rows.append(row)
        print(
            f"{row.megapixels:.1f} megapixels: encoded in {row.encode_s:.1f} s, decoded in {row.decode_s:.1f} s",
            flush=True,
        )
    print(f"\n{report(rows)}")
    if options.out:
        about = hardware(torch.device("cpu"))
        title = f"{Path(options.checkpoint).name}: CPU seconds and memory by size"
        text = f"# {title}\n\n{about}, threads of torch: {options.threads}.\n\n{report(rows)}\n"
        options.out.write_text(text, encoding="utf-8")
        draw(rows, options.out.with_suffix(".png"), title)
    return rows


def draw(rows: Sequence[Measured], out: Path, title: str) -> None:
    """Seconds a megapixel and memory over the size, side by side, to `out` and as SVG beside it."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    figure.suptitle(title)
    seconds, memory = figure.subplots(1, 2)
    sizes = [row.megapixels for row in rows]
    for name in ("encode", "decode"):
        seconds.plot(sizes, [getattr(row, f"{name}_s") / row.megapixels for row in rows], "o-", label=name)
        memory.plot(sizes, [getattr(row, f"{name}_bytes") / 1e9 for row in rows], "o-", label=name)
    for axes, label in ((seconds, "CPU seconds a megapixel"), (memory, "GB at most")):
        axes.set(xlabel="megapixels", ylabel=label, xscale="log")
        axes.set_ylim(bottom=0)
        plain_numbers(axes.xaxis)
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, out)


def _in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _loaded(name: str) -> LearnedCodec:
    """A pretrained model, or a run's codec."""
    known = {model.name for model in pretrained.pretrained_models()}
    return load_pretrained(name) if name in known else load_codec(name)


def _ready(checkpoint: str, megapixels: float, threads: int) -> tuple[LearnedCodec, Tensor]:
    torch.set_num_threads(threads)
    Image.MAX_IMAGE_PIXELS = None  # which would refuse the largest
    codec = _loaded(checkpoint)
    image = photograph(megapixels, codec.image_channels)
    codec.decode(codec.encode(image[:, :64, :64].contiguous()))  # what is done once is not what grows
    return codec, image


def _run(step: Callable[[], Any]) -> tuple[Any, float, int]:
    started = time.process_time()
    result = step()
    return result, time.process_time() - started, _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _mirrored(length: int, wanted: int) -> Tensor:
    """Indices into `length` pixels that run to and fro until there are `wanted`."""
    there_and_back = torch.cat([torch.arange(length), torch.arange(length - 1, -1, -1)])
    return there_and_back.repeat(-(-wanted // len(there_and_back)))[:wanted]


if __name__ == "__main__":
    main()
