"""`codec compress` and `codec decompress`: images to files and back."""

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from codec.bitstream import BitstreamError
from codec.cli.console import STANDARD, Place, UsageError, complain, read_bytes, reason, say, write_output
from codec.cli.counted import Counted
from codec.cli.decoding import check_checkpoint, check_device_name, decoders_of, device_of, limit_pixels
from codec.cli.notes import A_RATIO, Source, of_rate, of_size, usual_of
from codec.cli.parts import part_of
from codec.cli.paths import SUFFIX, Job, Plan, planned
from codec.cli.progress import progress_of
from codec.cli.targets import check_effort, chosen, prepare, runs_backwards, target_of
from codec.cli.workers import each, each_batch, tried
from codec.coded_image import CodedImage
from codec.data.image_formats import LOSSY, writable
from codec.data.image_list import SUFFIXES, list_images, printable
from codec.decoders import Decoders
from codec.errors import EncodeError, UserError
from codec.loaded_codec import Codec, Compressed
from codec.metadata import Metadata
from codec.side_by_side import side_by_side
from codec.whole_file import whole_file

if TYPE_CHECKING:  # torch is imported only where an image is coded: help, info and models answer at once
    from torch import Tensor

    from codec.data.image_file import Picture
    from codec.learned_codec import LearnedCodec


def compress(options: argparse.Namespace) -> int:
    """Images → files, with a pretrained model or the codec of a checkpoint."""
    if options.checkpoint and options.model:
        raise UsageError(f"--checkpoint {options.checkpoint}, --model {options.model}: name one of them")
    check_device_name(options)
    weights = None if options.checkpoint else chosen(options.model, options.quality)
    target = target_of(options, weights)
    check_effort(options.effort, weights)
    if options.batch is not None and target:
        raise UsageError(f"--batch {options.batch}: a target is sought image by image: leave one of them out")
    plan = _planned(options, SUFFIX)
    if not plan.jobs:
        return each(plan, str)
    check_checkpoint(options)
    from codec.cli.import_lightning import import_lightning

    import_lightning()
    from codec.checkpoint import load_codec, load_pretrained

    device = device_of(options)
    learned = load_codec(options.checkpoint) if weights is None else load_pretrained(weights)
    of_weights = weights is not None and not weights.accepts  # which the quality has chosen then
    prepare(learned, target, None if of_weights else options.quality, options.effort)
    if options.checkpoint is None and options.model is None:
        complain(f"with the pretrained model {weights.label}; `codec models` lists others")
    codec = Codec(learned.to(device), weights)
    if runs_backwards(learned) and (options.quality is not None or target):
        complain(f"{codec.name or options.checkpoint}: its quality is {A_RATIO}")
    compressor = _Compressor(codec, options, target)
    size = 1 if target else codec.batch_size(options.batch)
    with side_by_side(options.jobs):
        status = each_batch(plan, compressor.several, size, options.jobs)
    if options.verify and len(plan.jobs) > 1:
        said = f"{len(compressor.verified)} of {len(plan.jobs)} files verified"
        if compressor.verified:
            said += ": decoded again before they were written"
            said += ", and each gives its image back" if learned.lossless else ""
        say(said)
    return status


def decompress(options: argparse.Namespace) -> int:
    """Files → images, with the pretrained model or the checkpoint that wrote them."""
    check_device_name(options)
    part = part_of(options)
    plan = _planned(options, ".png")
    if not plan.jobs:
        return each(plan, str)
    check_checkpoint(options)
    from codec.cli.import_lightning import import_lightning

    import_lightning()
    from codec.data.image_file import write_image
    from codec.windows import Crop

    decoders = decoders_of(options)
    wanted = None if part.crop is None else Crop(*part.crop)

    def one(job: Job) -> str:
        data = read_bytes(job.source)
        file = _opened(data, decoders, options.partial)
        file.check_shown()
        learned = decoders.of(data, options.partial)
        with progress_of(learned, options.jobs), Counted(learned, file, part) as counted:
            image = learned.decode(data, wanted, part.scale, options.partial)
        kept = Metadata() if options.strip else file.metadata
        left_out = write_image(sys.stdout.buffer if job.target == STANDARD else job.target, image, kept)
        said = [f"{image.shape[2]}×{image.shape[1]}"]
        if isinstance(job.target, Path) and (kind := writable(job.target.suffix)) in LOSSY:
            said.append(f"re-encoded as {kind}")
        if file.cut:
            said.append(f"cut or damaged: {counted.said()}")
        if file.damaged and not options.strip:
            said.append("without its metadata, which is damaged")
        if left_out:
            said.append(f"without its {', '.join(left_out)}, which this kind of file cannot hold")
        return "; ".join(said)

    with side_by_side(options.jobs):
        return each(plan, one, options.jobs)


def _planned(options: argparse.Namespace, suffix: str) -> Plan:
    limit_pixels(options)
    for name in ("jobs", "batch"):
        count = vars(options).get(name)
        if count is not None and count < 1:
            raise UsageError(f"--{name} {count}: allowed are the integers from 1")
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


class _Compressor:
    """Images to files with one codec; `verified` are those that were decoded again."""

    def __init__(self, codec: Codec, options: argparse.Namespace, target: dict[str, float]) -> None:
        self.codec, self.options, self.target = codec, options, target
        self.kept = Metadata() if options.strip else None
        self.verified: list[Job] = []  # of which threads append

    def several(self, jobs: list[Job]) -> list[str | Exception]:
        """Together, as far as they are of equal size; what comes of each, or why it failed."""
        if len(jobs) == 1:
            return [tried(self._one, *jobs)]
        opened = {job: tried(self._opened, job) for job in jobs}
        pictures = {job: found[1] for job, found in opened.items() if not isinstance(found, Exception)}
        try:
            with progress_of(self.codec.learned, self.options.jobs):
                done = self.codec.compress_batch(list(pictures.values()), self.kept)
            compressed = dict(zip(pictures, done, strict=True))
        except Exception:  # of one of them, or for want of memory: each is tried by itself
            compressed = {}

        def finished(job: Job) -> str:
            found = opened[job]
            if isinstance(found, Exception):
                raise found
            source, picture = found
            alone = compressed.get(job) or self.codec.compress_batch([picture], self.kept)[0]
            return self._written(job, source, alone)

        return [tried(finished, job) for job in jobs]

    def _one(self, job: Job) -> str:
        source = _source(job)
        with progress_of(self.codec.learned, self.options.jobs):
            done = self.codec.compress(source, self.kept, **self.target)
        return self._written(job, source, done)

    def _opened(self, job: Job) -> "tuple[Source, Picture]":
        source = _source(job)
        return source, self.codec.picture(source)

    def _written(self, job: Job, source: Source, done: Compressed) -> str:
        """Writes a file, and gives what is said of it."""
        from codec.metrics import psnr

        learned, weights = self.codec.learned, self.codec.weights
        data, picture, quality, reached = done
        back = _decoded_again(learned, done) if self.options.verify else None
        _write(job, data)
        channels, height, width = picture.image.shape
        bpp, ratio = 8 * len(data) / (height * width), channels * height * width / len(data)
        said = f"{width}×{height}, {len(data):,} bytes, {bpp:.3f} bpp, 1:{ratio:.1f}"
        if self.target:
            said += f", quality {quality:g}"
        if back is not None and not learned.lossless:
            reached = psnr(back, picture.image)
        if reached is not None:
            said += f", {reached:.2f} dB"
        if back is not None:
            self.verified.append(job)
            said += f", verified: decoded again{', it gives the image back' if learned.lossless else ''}"
        usual = None if weights is None or weights.lossless else usual_of(weights, quality)
        if usual is not None and reached is None and not learned.rate_tells:
            reached = psnr(learned.decode(data).cpu(), picture.image)
        told = None if learned.rate_tells else reached
        notes = [
            *picture.dropped,
            *of_size(len(data), source, learned.lossless),
            *of_rate(height * width, bpp, told, usual),
        ]
        return "; ".join([said, *notes])


def _source(job: Job) -> Source:
    return job.source if isinstance(job.source, Path) and job.source.is_file() else _piped(job.source)


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


def _opened(data: bytes, decoders: Decoders, partial: bool) -> CodedImage:
    """A file to decode. Raises BitstreamError, which names --partial where that may help."""
    try:
        return CodedImage(data, partial)
    except BitstreamError as error:
        if partial or not _may_be_shown(data, decoders):
            raise
        raise BitstreamError(f"{error}; if it is cut, --partial shows as much of it as is there") from error


def _may_be_shown(data: bytes, decoders: Decoders) -> bool:
    try:
        CodedImage(data, partial=True)
        return decoders.of(data, partial=True).shown_in_part
    except UserError:
        return False


def _decoded_again(learned: "LearnedCodec", done: Compressed) -> "Tensor":
    """The image in a file that is to be written. Raises BitstreamError, or EncodeError where it should be exact."""
    back = learned.decode(done.data).cpu()
    if learned.lossless and not back.equal(done.picture.image):
        raise EncodeError(
            "the image does not come back from its file: this device is not exact, use another device"
        )
    return back
