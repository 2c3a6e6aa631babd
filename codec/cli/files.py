"""`codec compress` and `codec decompress`: images to files and back."""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from codec.cli.console import STANDARD, Place, UsageError, complain, read_bytes, reason, write_output
from codec.cli.decoding import decoders_of, device_of, limit_pixels
from codec.cli.parts import crop_of
from codec.cli.paths import SUFFIX, Job, Plan, planned
from codec.cli.progress import progress_of
from codec.cli.targets import chosen, prepare, target_of
from codec.cli.workers import each
from codec.coded_image import CodedImage
from codec.data.image_formats import LOSSY, writable
from codec.data.image_list import SUFFIXES, list_images, printable
from codec.errors import EncodeError
from codec.loaded_codec import Codec, Compressed
from codec.metadata import Metadata
from codec.side_by_side import side_by_side
from codec.whole_file import whole_file

if TYPE_CHECKING:  # torch is imported only where an image is coded: help, info and models answer at once
    from codec.learned_codec import LearnedCodec
    from codec.pretrained import Weights

# From this multiple of the rate that a model was measured at, it is not at home with an image.
UNUSUAL_RATE = 3.0
# And from so many dB below. The worst of 14 photographs, of grass, is 4.8 below; line art is 11 to 15.
UNUSUAL_LOSS = 6.0


def compress(options: argparse.Namespace) -> int:
    """Images → files, with a pretrained model or the codec of a checkpoint."""
    if options.checkpoint and options.model:
        raise UsageError(f"--checkpoint {options.checkpoint}, --model {options.model}: name one of them")
    weights = None if options.checkpoint else chosen(options.model, options.quality)
    target = target_of(options, weights)
    plan = _planned(options, SUFFIX)
    if not plan.jobs:
        return each(plan, str)
    from codec.cli.import_lightning import import_lightning

    import_lightning()
    from codec.checkpoint import load_codec, load_pretrained
    from codec.metrics import psnr

    device = device_of(options)
    learned = load_codec(options.checkpoint) if weights is None else load_pretrained(weights)
    of_weights = weights is not None and not weights.accepts  # which the quality has chosen then
    prepare(learned, target, None if of_weights else options.quality, options.effort)
    if options.checkpoint is None and options.model is None:
        complain(f"with the pretrained model {weights.label}; `codec models` lists others")
    codec = Codec(learned.to(device), weights)

    def one(job: Job) -> str:
        source = job.source if isinstance(job.source, Path) and job.source.is_file() else _piped(job.source)
        with progress_of(learned, options.jobs):
            done = codec.compress(source, Metadata() if options.strip else None, **target)
        data, picture, quality, reached = done
        if options.verify:
            _check_comes_back(learned, done)
        _write(job, data)
        size = source.stat().st_size if isinstance(source, Path) else len(source.getbuffer())
        channels, height, width = picture.image.shape
        bpp, ratio = 8 * len(data) / (height * width), channels * height * width / len(data)
        said = f"{width}×{height}, {len(data):,} bytes, {bpp:.3f} bpp, 1:{ratio:.1f}"
        if target:
            said += f", quality {quality:g}"
        if reached is not None:
            said += f", {reached:.2f} dB"
        usual = None if weights is None or weights.lossless else _usual(weights, quality)
        if usual is not None and reached is None and not learned.rate_tells:
            reached = psnr(learned.decode(data).cpu(), picture.image)
        told = None if learned.rate_tells else reached
        notes = [*picture.dropped, *_notes(len(data), size, bpp, told, usual)]
        return "; ".join([said, *notes])

    with side_by_side(options.jobs):
        return each(plan, one, options.jobs)


def decompress(options: argparse.Namespace) -> int:
    """Files → images, with the pretrained model or the checkpoint that wrote them."""
    plan = _planned(options, ".png")
    if not plan.jobs:
        return each(plan, str)
    from codec.cli.import_lightning import import_lightning

    import_lightning()
    from codec.data.image_file import write_image

    decoders = decoders_of(options)
    crop = crop_of(options)

    def one(job: Job) -> str:
        data = read_bytes(job.source)
        file = CodedImage(data, options.partial)
        learned = decoders.of(data, options.partial)
        with progress_of(learned, options.jobs):
            image = learned.decode(data, crop, options.scale, options.partial)
        kept = Metadata() if options.strip else file.metadata
        left_out = write_image(sys.stdout.buffer if job.target == STANDARD else job.target, image, kept)
        said = [f"{image.shape[2]}×{image.shape[1]}"]
        if isinstance(job.target, Path) and (kind := writable(job.target.suffix)) in LOSSY:
            said.append(f"re-encoded as {kind}")
        if file.cut:
            said.append("cut: as much of it as is there")
        if file.damaged and not options.strip:
            said.append("without its metadata, which is damaged")
        if left_out:
            said.append(f"without its {', '.join(left_out)}, which this kind of file cannot hold")
        return "; ".join(said)

    with side_by_side(options.jobs):
        return each(plan, one, options.jobs)


def _planned(options: argparse.Namespace, suffix: str) -> Plan:
    limit_pixels(options)
    if options.jobs < 1:
        raise UsageError(f"--jobs {options.jobs}: allowed are integers from 1")
    suffixes = SUFFIXES if suffix == SUFFIX else (SUFFIX,)
    unreadable: list[OSError] = []  # folders below those that are named: the other files are done
    plan = planned(
        options.inputs,
        options.output,
        suffix,
        lambda folder: list_images(folder, suffixes, unreadable.append),
        options.force,
        options.skip_existing,
    )
    return plan._replace(faults=[*map(reason, unreadable), *plan.faults])


def _piped(source: Place) -> io.BytesIO:
    """All that comes through a pipe; errors call it by the name that was given."""
    file = io.BytesIO(read_bytes(source))
    file.name = printable(source)
    return file


def _write(job: Job, data: bytes) -> None:
    if job.target == STANDARD:
        write_output(data)
        return
    with whole_file(job.target) as file:
        file.write(data)


def _check_comes_back(learned: "LearnedCodec", done: Compressed) -> None:
    """Decodes a file that is to be written. Raises BitstreamError, or EncodeError where it should be exact."""
    back = learned.decode(done.data).cpu()
    if learned.lossless and not back.equal(done.picture.image):
        raise EncodeError(
            "the image does not come back from its file: this device is not exact, use another device"
        )


class _Usual(NamedTuple):
    """What data sets of photographs reach with a model, as means: the largest rate, and the lowest PSNR in dB."""

    bpp: float
    psnr: float


def _usual(weights: "Weights", quality: float | None) -> _Usual:
    """What photographs reach on average with a lossy model, at `quality` where its weights write at several.

    Between two measured qualities the bits are those of the upper one, the PSNR that of the lower one.
    """
    lower = upper = [point for of_data_set in weights.measured.values() for point in of_data_set]
    if quality is not None:
        measured = [point["quality"] for point in upper]
        above = min((q for q in measured if q >= quality), default=max(measured))
        below = max((q for q in measured if q <= quality), default=min(measured))
        upper = [point for point in upper if point["quality"] == above]
        lower = [point for point in lower if point["quality"] == below]
    return _Usual(max(point["bpp"] for point in upper), min(point["psnr"] for point in lower))


def _notes(written: int, read: int, bpp: float, psnr: float | None, usual: _Usual | None) -> Iterator[str]:
    """What a user would not expect of this file. `psnr` is that of the decoded image, where it was decoded."""
    if written > read:
        yield f"larger than its source, {read:,} bytes"
    if usual is None:
        return
    advice = "this model is not made for this image, try a lossless one"
    if bpp > UNUSUAL_RATE * usual.bpp:
        yield f"photographs take about {usual.bpp:.2f} bpp: {advice}"
    elif psnr is not None and psnr < usual.psnr - UNUSUAL_LOSS:
        yield f"it comes back with {psnr:.1f} dB, photographs with {usual.psnr:.1f}: {advice}"
