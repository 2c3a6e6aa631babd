"""Measuring a codec on the test images of a DataModule: the one way any number in Quintet is made."""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger
from torch.utils.data import Dataset

from codec.checks import check_device
from codec.data.dataset import WholeImages
from codec.data.image_file import ImageFileError, NamedImage
from codec.errors import ConfigError
from codec.image_codec import ImageCodec, Unreadable
from codec.learned_codec import LearnedCodec
from codec.metrics import Lpips
from codec.training.measured_rows import MeasuredRows, forget_rows
from codec.training.results import results_of, write_results
from codec.training.run_folder import hardware
from codec.training.wandb_logger import CodecWandbLogger, rate_distortion_point


def parse_device(device: str) -> tuple[str, int | list[int]]:
    """Lightning's accelerator and devices for auto, cpu, cuda, cuda:N or mps. Raises ArgumentError on others."""
    check_device(device)
    kind, _, index = device.partition(":")
    return ("gpu" if kind == "cuda" else kind), ([int(index)] if index else 1)


def measure(
    codec: ImageCodec,
    data: LightningDataModule,
    folder: Path,
    about: dict[str, Any],
    device: str = "auto",
    loggers: Sequence[Logger] = (),
    step: int = 0,
    limit: int | float | None = None,
    save_files: bool = False,
    lpips: Lpips | None = None,
) -> dict[str, Any]:
    """Encodes and decodes every test image, tells `loggers`, then writes `folder`/per_image.csv and results.json.

    The latter says that all is done: it comes after the upload to W&B, whose run is finished here. Until then, each
    image's row is kept in per_image.jsonl as it comes; a measurement that was cut short goes on after the last one.
    An image that the codec has no file for is named before, and left out, as is one that cannot be read any more or
    does not fit into memory; results.json then has `skipped`, why by name. Raises ConfigError if none is left.
    `about` is written with the means, which `loggers` get as `test/*` at `step`; W&B also gets a table of the
    images, with thumbnails, and one with this rate–distortion point. `device` is one of `parse_device`; `limit` is
    Lightning's `limit_test_batches`; `lpips` is measured too, if given. Returns what results.json holds.
    """
    codec.keep_files_in = folder if save_files else None
    codec.lpips = lpips
    tables = [logger for logger in loggers if isinstance(logger, CodecWandbLogger)]
    codec.keep_thumbnails = max((logger.thumbnails for logger in tables), default=0)
    accelerator, devices = parse_device(device)
    tester = Trainer(
        accelerator=accelerator,
        devices=devices,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
    about = {**about, "hardware": hardware(tester.strategy.root_device)}
    _test(codec, data, folder, tester, limit, about)
    if codec.skipped:
        about["skipped"] = dict(codec.skipped)
    results = results_of(codec.test_rows, about)
    # Not by the tester, which counts no steps: the curves would end at step 0.
    others = {*about, "conventions", "images"}
    means = {f"test/{k}": v for k, v in results.items() if k not in others}
    for logger in loggers:
        logger.log_metrics(means, step=step)
    for logger in tables:
        logger.log_tables(codec.test_rows, codec.thumbnails, rate_distortion_point(codec, results), step)
    for logger in loggers:
        logger.save()
    for logger in tables:
        logger.finish()
    results = write_results(folder, codec.test_rows, about)
    forget_rows(folder)
    return results


def _test(
    codec: ImageCodec,
    data: LightningDataModule,
    folder: Path,
    tester: Trainer,
    limit: int | float | None,
    about: dict[str, Any],
) -> None:
    """Fills in the codec's `test_rows`, `thumbnails`, `skipped`: from an earlier start, the rest by measuring."""
    data.prepare_data()
    data.setup("test")
    images = data.test_set
    chosen = range(_limited(len(images), limit))
    skipped = _without_file(codec, images, chosen)
    for name, reason in skipped.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    paths = {images.names[n]: images.paths[n] for n in chosen if images.names[n] not in skipped}
    rows = MeasuredRows(folder, _measured_of(codec, about))
    measured = {name: row for name, path in paths.items() if (row := rows.of(name, path)) is not None}
    missing = [n for n in chosen if images.names[n] in paths.keys() - measured.keys()]
    codec.test_rows, codec.thumbnails, codec.skipped = [], {}, {}
    codec.on_row = lambda row: rows.add(row, paths[row["name"]], codec.thumbnails.get(row["name"]))
    if measured and missing:
        print(f"{len(measured)} of {len(paths)} images are measured already", file=sys.stderr)
    try:
        if missing:
            tester.test(codec, data.whole_image_loader(_Readable(images), missing), verbose=False)
    except SystemExit:  # what Lightning makes of an interrupt
        raise KeyboardInterrupt from None
    finally:
        codec.on_row = None
        rows.close()
    measured |= {row["name"]: row for row in codec.test_rows}
    codec.skipped |= skipped
    if not measured:
        why = next((f", {name}: {reason}" for name, reason in codec.skipped.items()), "")
        raise ConfigError("data", f"of {len(chosen)} images none can be measured{why}")
    codec.test_rows = [row for name in paths if (row := measured.get(name)) is not None]
    kept = ((name, codec.thumbnails.get(name, rows.thumbnail(name))) for name in measured)
    codec.thumbnails = dict(
        islice(((name, shown) for name, shown in kept if shown is not None), codec.keep_thumbnails)
    )


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
    program = {key: about.get(key) for key in ("commit", "hardware")}
    return {"weights": weights, **program, "files": codec.keep_files_in is not None}


class _Readable(Dataset):
    """`images`, with an Unreadable in the place of one that cannot be read any more."""

    def __init__(self, images: WholeImages) -> None:
        self.images = images

    def __getitem__(self, index: int) -> NamedImage | Unreadable:
        try:
            return self.images[index]
        except ImageFileError as error:
            return Unreadable(self.images.names[index], str(error))
