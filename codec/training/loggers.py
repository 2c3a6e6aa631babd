"""What a run tells its loggers besides metrics, whichever they are: only that of W&B imports W&B."""

import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.model_summary import ModelSummary
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.run_names import without_hash
from codec.training.job import own_overrides
from codec.training.run_folder import choices

CHOICES = ("experiment", "model", "data", "quantization", "loss")

# Overrides that say where and how a job runs, or what has a column of its own.
_NO_SETTING = re.compile(r"(model|data|name|runs|resume|device|save_files|strategy|logger[.\w]*)=")
# Options of a data set that leave its test images as they are.
_TRAINING = {
    f"data.{name}"
    for name in (
        "val_fraction",
        "crop_size",
        "smallest_scale",
        "flip",
        "shuffle_channels",
        "crops_per_image",
        "batch_size",
        "seed",
    )
} | {"data.num_workers", "data.cache", "data.codings_folder"}


class RunLogger(Logger):
    """A logger that shows what a test measured too, and whose run can be seen somewhere and has an end."""

    thumbnails: int  # how many of the tested images are shown

    @abstractmethod
    def log_tables(
        self,
        rows: Sequence[dict[str, float | str]],
        thumbnails: dict[str, Tensor],
        point: dict[str, Any],
        step: int,
    ) -> None:
        """Shows `rows`, one an image, their `thumbnails` by name, and the `point` of `rate_distortion_point`."""

    @abstractmethod
    def finish(self) -> None:
        """Ends the run when all is uploaded."""

    @abstractmethod
    def where(self) -> str | None:
        """One line that says where the run can be seen; None if it cannot."""

    @abstractmethod
    def shut_down(self, exit_code: int) -> None:
        """Ends the run, if it has not ended, and all that the logger has begun in this process."""


def log_config(loggers: Sequence[Logger], config: DictConfig, codec: ImageCodec) -> None:
    """Gives every logger the whole resolved config, the chosen options, a network's layers and their parameters."""
    described = OmegaConf.to_container(config, resolve=True)
    described["choices"] = {group: option for group in CHOICES for option in choices(group)}
    if isinstance(codec, LearnedCodec):
        summary = ModelSummary(codec, max_depth=2)
        described |= {"parameters": summary.total_parameters, "model_summary": str(summary)}
    for logger in loggers:
        logger.log_hyperparams(described)


def where_to_look(loggers: Sequence[Logger]) -> str | None:
    """One line that says where the W&B run can be seen, or None without one."""
    lines = (logger.where() for logger in loggers if isinstance(logger, RunLogger))
    return next((line for line in lines if line is not None), None)


def shut_down(loggers: Sequence[Logger], exit_code: int) -> None:
    """Ends what the loggers have begun besides the files they write."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.shut_down(exit_code)


def rate_distortion_point(codec: ImageCodec, results: dict[str, Any]) -> dict[str, Any]:
    """The row of `test/rate_distortion`: `results`, and which codec, with which settings, was measured on what.

    `setting` holds the job's other overrides. Points of one `curve` are of one codec, or of runs of one name, and
    of the same images.
    """
    given = dict(override.lstrip("+").partition("=")[::2] for override in own_overrides())
    run = Path(given.get("run", ""))
    name = next(iter(choices("model")), type(codec).__name__)
    of_run = without_hash((run.parents[1] if run.suffix == ".ckpt" else run).name)
    label = given.get("name") or of_run or given.get("pretrained") or name
    dataset = next(iter(choices("data")), "its own test images")
    cut = [
        f"{key[5:]}={value}" for key, value in given.items() if re.match(r"data\.", key) and key not in _TRAINING
    ]
    images = f"{dataset} ({', '.join(cut)})" if cut else dataset
    setting = " ".join(override for override in own_overrides() if not _NO_SETTING.match(override))
    return {**results, "curve": f"{label} on {images}", "codec": name, "setting": setting, "dataset": dataset}
