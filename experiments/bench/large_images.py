"""Time and memory of encode and decode as images grow: neither may grow faster than the image.

  python -m experiments.bench.large_images runs/NAME                    a trained run, 0.1 to 24 megapixels
  python -m experiments.bench.large_images runs/NAME --megapixels 0.5 2 --threads 2

Every size is coded in a process of its own. Memory is the largest resident set since the codec was loaded, less
what there was then: it counts the image and its file too. Images are packaged photographs, mirrored to the size.
"""

import argparse
import math
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codec.checkpoint import load_codec
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.errors import CheckpointError
from codec.learned_codec import LearnedCodec

SIZES = (0.1, 0.4, 1.5, 6.0, 24.0)
_KIB = 1024 if sys.platform == "linux" else 1  # of ru_maxrss


class Measured(NamedTuple):
    """Of one image: its size, the file's bits per sample, seconds, and bytes of memory."""

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
    codec = load_codec(checkpoint)
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
    parser.add_argument("checkpoint", metavar="RUN", help="a run's folder or a checkpoint")
    parser.add_argument("--megapixels", nargs="+", type=float, default=SIZES, metavar="N")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    options = parser.parse_args(arguments)
    if min(options.megapixels) <= 0 or options.threads < 1:
        parser.error("--megapixels takes numbers above 0, --threads integers from 1")
    try:
        load_codec(options.checkpoint)
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
    return rows


def _in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _ready(checkpoint: str, megapixels: float, threads: int) -> tuple[LearnedCodec, Tensor]:
    torch.set_num_threads(threads)
    codec = load_codec(checkpoint)
    image = photograph(megapixels, codec.image_channels)
    codec.decode(codec.encode(image[:, :64, :64].contiguous()))  # what is done once is not what grows
    return codec, image


def _run(step: Callable[[], Any]) -> tuple[Any, float, int]:
    before, started = _peak(), time.perf_counter()
    result = step()
    return result, time.perf_counter() - started, _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _mirrored(length: int, wanted: int) -> Tensor:
    """Indices into `length` pixels that run to and fro until there are `wanted`."""
    there_and_back = torch.cat([torch.arange(length), torch.arange(length - 1, -1, -1)])
    return there_and_back.repeat(-(-wanted // len(there_and_back)))[:wanted]


if __name__ == "__main__":
    main()
