"""Measuring a codec on the test images of a DataModule: the one way any number in Quintet is made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger

from codec.image_codec import ImageCodec
from codec.loggers import CodecWandbLogger, rate_distortion_point
from codec.metrics import Lpips
from codec.options import check_device
from codec.results import results_of, write_results
from codec.runs import hardware


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

    The latter says that all is done: it comes after the upload to W&B, whose run is finished here.
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
        limit_test_batches=limit,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    try:
        tester.test(codec, data, verbose=False)
    except SystemExit:  # what Lightning makes of an interrupt
        raise KeyboardInterrupt from None
    about = {**about, "hardware": hardware(tester.strategy.root_device)}
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
        logger.experiment.finish()
    return write_results(folder, codec.test_rows, about)
