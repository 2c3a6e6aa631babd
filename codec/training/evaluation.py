"""An evaluation in a run's folder: every test image measured, the loggers told, the results written."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import LightningDataModule
from lightning.pytorch.loggers import Logger
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resize

from codec.checks import check_device
from codec.data.dataset import WholeImages
from codec.data.image_file import ImageFileError, NamedImage
from codec.errors import ArgumentError, ConfigError, number_of
from codec.further_metrics import Metric
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.measure import Row, evaluate, keep_files
from codec.training.faults import raise_if_lost
from codec.training.loggers import RunLogger, rate_distortion_point
from codec.training.measured_rows import MeasuredRows, forget_rows
from codec.training.provenance import hardware
from codec.training.results import results_of, write_results

THUMBNAIL_SIDE = 256


class Unreadable(NamedTuple):
    """In the place of a NamedImage: the file of `name` cannot be read, for this `reason`."""

    name: str
    reason: str


def choose_device(device: str) -> torch.device:
    """The device for auto, cpu, cuda, cuda:N or mps. Raises ArgumentError on others, and where there is none."""
    check_device(device, auto=True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch's own words name its builds and web pages
        raise ArgumentError("device", device, "torch finds no such device here") from error


def evaluate_into(
    folder: Path,
    codec: ImageCodec,
    data: LightningDataModule,
    about: dict[str, Any],
    device: torch.device | str = "cpu",
    loggers: Sequence[Logger] = (),
    step: int = 0,
    limit: int | float | None = None,
    save_files: bool = False,
    further: Mapping[str, Metric] | None = None,
    target_bpp: float | None = None,
) -> dict[str, Any]:
    """Measures every test image, tells `loggers`, then writes `folder`/per_image.csv and results.json.

    The latter says that all is done: it comes after the upload to W&B, whose run is finished here. Until then, each
    image's row is kept in per_image.jsonl as it comes; a measurement that was cut short goes on after the last one.
    An image that the codec has no file for is named before, and left out, as is one that cannot be read any more,
    does not fit into memory, or has no file as small as `target_bpp`, see `measure`; results.json then has
    `skipped`, why by name. Raises ConfigError if none is left.
    `about` is written with the means, which `loggers` get as `test/*` at `step`; W&B also gets a table of the
    images, with thumbnails, and one with this rate–distortion point. `limit` is that many images, or a fraction of
    them; with `save_files` the folder also gets the files and what they decode to; `further` metrics are measured
    too, by name. Returns what results.json holds.
    """
    device = torch.device(device)
    about = {**about, "hardware": hardware(device)}
    tables = [logger for logger in loggers if isinstance(logger, RunLogger)]
    pairs = max((logger.thumbnails for logger in tables), default=0)
    if isinstance(codec, LearnedCodec):
        codec.to(device).eval()
    data.prepare_data()
    data.setup("test")
    rows, thumbnails, skipped = _measured(
        folder, codec, data, about, device, limit, save_files, further, target_bpp, pairs
    )
    if skipped:
        about["skipped"] = skipped
    results = results_of(rows, about)
    others = {*about, "conventions", "images"}
    means = {f"test/{k}": v for k, v in results.items() if k not in others}
    for logger in loggers:
        logger.log_metrics(means, step=step)
    for logger in tables:
        logger.log_tables(rows, thumbnails, rate_distortion_point(codec, results), step)
    for logger in loggers:
        logger.save()
    for logger in tables:
        logger.finish()
    results = write_results(folder, rows, about)
    forget_rows(folder)
    return results


def _measured(
    folder: Path,
    codec: ImageCodec,
    data: LightningDataModule,
    about: dict[str, Any],
    device: torch.device,
    limit: int | float | None,
    save_files: bool,
    further: Mapping[str, Metric] | None,
    target_bpp: float | None,
    pairs: int,
) -> tuple[list[Row], dict[str, Tensor], dict[str, str]]:
    """All rows, the first `pairs` thumbnails by name, and why images have no row; some are of an earlier start."""
    images = data.test_set
    chosen = range(_limited(len(images), limit))
    without_file = _without_file(codec, images, chosen)
    for name, reason in without_file.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    paths = {images.names[n]: images.paths[n] for n in chosen if images.names[n] not in without_file}
    kept = MeasuredRows(folder, {**_measured_of(codec, about), "files": save_files})
    rows = {name: row for name, path in paths.items() if (row := kept.of(name, path)) is not None}
    missing = [n for n in chosen if images.names[n] in paths.keys() - rows.keys()]
    if rows and missing:
        print(f"measured already: {len(rows)} of {number_of(len(paths), 'image')}", file=sys.stderr)
    shown = ((name, pair) for name in rows if (pair := kept.thumbnail(name)) is not None)
    thumbnails = dict(islice(shown, pairs))
    loader = data.whole_image_loader(_Readable(images), missing)
    bar = track(loader, "measuring", total=len(missing), disable=not missing or not sys.stdout.isatty())
    skipped: dict[str, str] = {}
    try:
        for measured in evaluate(codec, _readable(bar, device, skipped), further, skipped, target_bpp):
            name = measured.row["name"]
            if save_files:
                keep_files(folder, measured, codec.suffix)
            if len(thumbnails) < pairs:
                thumbnails[name] = thumbnail(measured.image, measured.decoded)
            kept.add(measured.row, paths[name], thumbnails.get(name))
            rows[name] = measured.row
            raise_if_lost()
    finally:
        kept.close()
    skipped |= without_file
    if not rows:
        why = next((f", {name}: {reason}" for name, reason in skipped.items()), "")
        raise ConfigError("data", f"of {number_of(len(chosen), 'image')} none can be measured{why}")
    return [rows[name] for name in paths if name in rows], thumbnails, skipped


def _limited(count: int, limit: int | float | None) -> int:
    """How many of `count` images `limit` leaves: an integer is a number of images, a float a fraction of them."""
    return min(count, limit) if isinstance(limit, int) else int(count * (1.0 if limit is None else limit))


def _without_file(codec: ImageCodec, images: WholeImages, chosen: range) -> dict[str, str]:
    """By name, why the codec has no file for an image."""
    skipped = {}
    for n in chosen:
        try:
            codec.check_size(*images.size(n))
        except ValueError as error:  # or the image cannot be read
            skipped[images.names[n]] = str(error)
    return skipped


def _measured_of(codec: ImageCodec, about: dict[str, Any]) -> dict[str, Any]:
    """What, besides the image and the config of the folder, a row depends on."""
    weights = codec.fingerprint().hex() if isinstance(codec, LearnedCodec) else None
    return {"weights": weights, **{key: about.get(key) for key in ("commit", "hardware")}}


class _Readable(Dataset):
    """`images`, with an Unreadable in the place of one that cannot be read any more."""

    def __init__(self, images: WholeImages) -> None:
        self.images = images

    def __getitem__(self, index: int) -> NamedImage | Unreadable:
        try:
            return self.images[index]
        except ImageFileError as error:
            return Unreadable(self.images.names[index], str(error))


def _readable(
    items: Iterable[NamedImage | Unreadable], device: torch.device, skipped: dict[str, str]
) -> Iterator[NamedImage]:
    """The images, on the device; why others cannot be read is added to `skipped`."""
    for item in items:
        if isinstance(item, Unreadable):
            skipped[item.name] = item.reason
        else:
            yield item._replace(image=item.image.to(device))


def thumbnail(original: Tensor, decoded: Tensor) -> Tensor:
    """Two uint8 images `[C, H, W]` beside each other, each shrunk to at most 256 pixels a side: `[C, h, 2w]`."""
    height, width = original.shape[-2:]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return torch.cat([resize(image, size, antialias=True) for image in (original, decoded)], dim=2)
