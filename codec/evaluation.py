"""Measuring a codec on the test images of a DataModule: the one way any number in Quintet is made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.loggers import Logger

from codec.image_codec import ImageCodec
from codec.results import write_results


def measure(
    codec: ImageCodec,
    data: LightningDataModule,
    folder: Path,
    about: dict[str, Any],
    device: str = "auto",
    loggers: Sequence[Logger] = (),
    limit: int | float | None = None,
    save_files: bool = False,
) -> dict[str, Any]:
    """Encodes and decodes every test image, then writes `folder`/results.json and per_image.csv.

    `about` is written with the means; `device` is auto, cpu, cuda, cuda:N or mps; `limit` is Lightning's
    `limit_test_batches`. Returns what results.json holds. Raises ValueError for a device there is none of.
    """
    kind, _, index = device.partition(":")
    accelerator = {"cuda": "gpu"}.get(kind, kind)
    if accelerator not in ("auto", "cpu", "gpu", "mps") or not (index or "0").isdecimal():
        raise ValueError(f"device={device}: allowed are auto, cpu, cuda, cuda:N, mps")
    codec.keep_files_in = folder / "files" if save_files else None
    tester = Trainer(
        accelerator=accelerator,
        devices=[int(index)] if index else 1,
        logger=list(loggers),
        limit_test_batches=limit,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    tester.test(codec, data, verbose=False)
    return write_results(folder, codec.test_rows, about)
