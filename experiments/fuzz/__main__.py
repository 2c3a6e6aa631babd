"""make fuzz: whatever bytes come, a file decodes or is refused in one line, and nothing else happens.

    python -m experiments.fuzz --count 20000 --seed 1
    python -m experiments.fuzz --only conv_baseline checkpoint.ckpt

Files of the package's models and of the standard codecs, checkpoints and image files are mutated, their checksums
made right again, and read. Mutation n of a target depends on the seed, the target's name and n alone. A mutation
that ends in any other way than it may, or takes more time or memory than it may, is kept in the folder --keep, and
told with the command that repeats it.
"""

import argparse
import logging
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from codec.bitstream import BitstreamError, Header, metadata_of, unpack
from codec.checkpoint import load_codec, load_pretrained, save_weights
from codec.data.image_file import ImageFileError, image_size, read_image, read_picture
from codec.data.image_formats import has_jxl
from codec.data.samples import SamplesSource
from codec.errors import CheckpointError
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata
from codec.pretrained import pretrained_models
from codec.training.paths import conf_folder
from experiments.fuzz.image_samples import image_samples
from experiments.fuzz.mutations import (
    edited,
    mutated_archive,
    mutated_file,
    mutated_metadata,
    mutated_png,
    mutated_safetensors,
)

STANDARD = ("jpeg", "webp", "avif", "jpegxl", "jpeg2000", "png")
IMAGE_SUFFIXES = (".png", ".jpg", ".webp", ".gif", ".tif", ".bmp", ".ppm", ".jp2", ".avif", ".jxl")
# A profile's beginning, a TIFF block with orientation 6, and a packet that repeats it.
SOME_METADATA = Metadata(
    icc=bytes(36) + b"acsp" + bytes(100),
    exif=b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0",
    xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>',
)
SIDE = 32  # of the images whose files are mutated
# What one mutation may take. MB are those by which the process's peak rises.
MOST_SECONDS, MOST_MB = 5.0, 1000.0


class Target(NamedTuple):
    """What is mutated and read: `mutate` makes a mutation with a random generator, `read` reads it.

    `read` may raise `refusal`, one short line, and nothing else: UnexpectedError if what it gets is not right.
    """

    name: str
    mutate: Callable[[Random], bytes]
    read: Callable[[bytes], None]
    refusal: type[Exception]


class UnexpectedError(Exception):
    """What was read is not what a file of its kind may give."""


class TooSlowError(BaseException):  # no reader takes it for a refusal
    """What was read has taken more CPU time than it may."""


@dataclass
class Outcome:
    """How the mutations of a target ended: `reasons` counts refusals by their text without numbers and names."""

    decoded: int = 0
    reasons: Counter = field(default_factory=Counter)
    failures: list[tuple[int, bytes, str]] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def refused(self) -> int:
        return self.reasons.total()


def fuzzed(
    target: Target,
    count: int,
    seed: int,
    told: Callable[[int], None] = lambda _: None,
    most_seconds: float = MOST_SECONDS,
    most_mb: float = MOST_MB,
) -> Outcome:
    """Reads `count` mutations of a target; `told` is called with the number of those done.

    One that takes more than `most_seconds` of CPU time is broken off where Python can, and is a failure; so is one
    that takes more than `most_mb` of memory over what was taken before.
    """
    outcome = Outcome()
    for n in range(count):
        data = target.mutate(Random(f"{seed} {target.name} {n}"))
        started, before, slow = time.process_time(), _peak_mb(), False
        try:
            with _broken_off_after(most_seconds):
                target.read(data)
            outcome.decoded += 1
        except TooSlowError:
            slow = True  # told below, with those that no signal could break off
        except target.refusal as error:
            outcome.reasons[_kind(str(error))] += 1
            if "\n" in str(error) or len(str(error)) > 600:
                outcome.failures.append((n, data, f"not one short line: {str(error)[:200]!r}"))
        except Exception as error:  # what else there is, is what is looked for
            outcome.failures.append((n, data, f"{type(error).__name__}: {error}"[:300]))
        seconds, mb = time.process_time() - started, _peak_mb() - before
        if slow or seconds > most_seconds:
            outcome.failures.append((n, data, f"too slow: {seconds:.1f} s of CPU time, allowed are {most_seconds}"))
        if mb > most_mb:
            outcome.failures.append((n, data, f"too large: {mb:.0f} MB more, allowed are {most_mb:.0f}"))
        outcome.slowest = max(outcome.slowest, seconds)
        told(n + 1)
    return outcome


def learned_target(name: str, codec: LearnedCodec, image: torch.Tensor) -> Target:
    """Files that a codec wrote of `image`, uint8 `[C, H, W]`, and of pieces and a grey version of it."""
    grey = image[:1].contiguous()
    images = [image, image[:, :7, :5].contiguous(), grey] if codec.image_channels == 3 else [grey, grey[:, :7, :5]]
    files = [codec.encode(image) for image in images]

    def read(data: bytes) -> None:
        decoded = codec.decode(data)
        header = unpack(data)[0]
        _expect(decoded.dtype == torch.uint8, f"decoded to {decoded.dtype}")
        _expect(
            decoded.shape == (header.channels, header.height, header.width), f"decoded to {list(decoded.shape)}"
        )

    return Target(name, lambda rng: mutated_file(rng.choice(files), rng, files), read, BitstreamError)


def metadata_target(metadata: Metadata) -> Target:
    """A file's metadata, which is read without its image."""
    header = Header("DIFF", bytes(4), 32, 32, 3)

    def read(data: bytes) -> None:
        found = metadata_of(data).upright()
        _expect(found.orientation() == 1, f"upright, but of orientation {found.orientation()}")

    return Target("metadata", lambda rng: mutated_metadata(header, metadata, rng), read, BitstreamError)


def standard_target(name: str, codec: ImageCodec, image: torch.Tensor) -> Target:
    """A standard codec's files of `image` in colour and grey."""
    files = [codec.encode(image), codec.encode(image[:1])]

    def read(data: bytes) -> None:
        decoded = codec.decode(data)
        _expect(decoded.dtype == torch.uint8, f"decoded to {decoded.dtype}")
        _expect(decoded.ndim == 3, f"decoded to {list(decoded.shape)}")

    return Target(name, lambda rng: edited(rng.choice(files), rng), read, BitstreamError)


def checkpoint_targets(codec: LearnedCodec, folder: Path) -> Iterator[Target]:
    """A codec's checkpoint, in both formats; `folder` is where the mutations lie while they are read."""
    save_weights(codec, folder / "whole.safetensors")
    torch.save({"model_config": codec.model_config, "state_dict": codec.state_dict()}, folder / "whole.ckpt")
    for suffix, mutated in ((".ckpt", mutated_archive), (".safetensors", mutated_safetensors)):
        whole, path = (folder / f"whole{suffix}").read_bytes(), folder / f"mutated{suffix}"

        def read(data: bytes, path: Path = path) -> None:
            path.write_bytes(data)
            load_codec(path)

        yield Target(
            f"checkpoint{suffix}",
            lambda rng, whole=whole, mutated=mutated: mutated(whole, rng),
            read,
            CheckpointError,
        )


def image_target(suffix: str, image: torch.Tensor, folder: Path) -> Target:
    """Image files of the format of `suffix`, read as `codec compress` does."""
    files = image_samples(suffix, image, SOME_METADATA)
    mutated = mutated_png if suffix == ".png" else edited
    path = folder / f"mutated{suffix}"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        image_size(path)
        found = read_picture(path)
        _expect(found.image.dtype == torch.uint8, f"read as {found.image.dtype}")
        _expect(found.image.shape[0] in (1, 3), f"read as {list(found.image.shape)}")
        _expect(found.metadata.orientation() == 1, f"upright, but of orientation {found.metadata.orientation()}")
        found.metadata.to_bytes()  # a .qnt file can hold it

    return Target(f"image{suffix}", lambda rng: mutated(rng.choice(files), rng), read, ImageFileError)


def all_targets(folder: Path) -> Iterator[Target]:
    """Those of the package: its models, the standard codecs, its smallest model's checkpoint, image files."""
    image = read_image(SamplesSource().images("test")[0], channels=3)[:, 100 : 100 + SIDE, 100 : 100 + SIDE]
    image = image.contiguous()
    for model in pretrained_models():
        yield learned_target(model.name, load_pretrained(model.at()), image)
    yield metadata_target(SOME_METADATA)
    for name in STANDARD:
        if name != "jpegxl" or has_jxl():
            config = OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")
            yield standard_target(name, instantiate(config), image)
    smallest = min((model.at() for model in pretrained_models()), key=lambda weights: weights.size)
    yield from checkpoint_targets(load_pretrained(smallest), folder)
    for suffix in IMAGE_SUFFIXES:
        yield image_target(suffix, image, folder)


def table(outcomes: dict[str, Outcome], peaks: dict[str, float]) -> str:
    """Markdown: a row a target."""
    lines = [
        "| target | decoded | refused | anything else | slowest, CPU ms | memory, + MB | most frequent reason |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for name, outcome in outcomes.items():
        most = outcome.reasons.most_common(1)
        reason = f"{most[0][1]} × {most[0][0]}" if most else "–"
        numbers = f"{outcome.decoded} | {outcome.refused} | {len(outcome.failures)} | {1000 * outcome.slowest:.0f}"
        lines.append(f"| {name} | {numbers} | {peaks[name]:.0f} | {reason} |")
    return "\n".join(lines)


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise UnexpectedError(otherwise)


def _kind(text: str) -> str:
    text = re.sub(r"^\S*/\S+ ?|'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8}\b", "…", text)
    return re.sub(r"…+", "…", re.sub(r"[-\d.,×]*\d", "N", text))[:70].replace("|", "/")


@contextmanager
def _broken_off_after(seconds: float) -> Iterator[None]:
    """Raises TooSlowError inside once it has taken so much CPU time."""

    def stop(*_: object) -> None:
        raise TooSlowError

    former = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=5000, help="mutations of each target (5000)")
    parser.add_argument("--seed", type=int, default=0, help="another one makes other mutations (0)")
    parser.add_argument("--only", nargs="+", metavar="TARGET", help="these targets, by the names in the table")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where failures are left (runs/fuzz)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it tells of every damaged tag
    outcomes: dict[str, Outcome] = {}
    peaks: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for target in all_targets(Path(folder)):
            if arguments.only and target.name not in arguments.only:
                continue

            def told(done: int, name: str = target.name) -> None:
                if done % 1000 == 0 or done == arguments.count:
                    print(f"{name}: {done} of {arguments.count}", file=sys.stderr, flush=True)

            before = _peak_mb()
            outcomes[target.name] = outcome = fuzzed(target, arguments.count, arguments.seed, told)
            peaks[target.name] = _peak_mb() - before
            for n, data, what in outcome.failures:
                arguments.keep.mkdir(parents=True, exist_ok=True)
                kept = arguments.keep / f"{target.name}-seed{arguments.seed}-{n}"
                kept.write_bytes(data)
                print(f"{kept}: {what}", file=sys.stderr, flush=True)
    print(table(outcomes, peaks))
    return int(any(outcome.failures for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
