"""The W&B logger, which must never ask and never fail for want of a network or a key."""

import os
from collections.abc import Sequence
from pathlib import Path

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.model_summary import ModelSummary
from omegaconf import DictConfig, OmegaConf

from codec.image_codec import ImageCodec


def wandb_logger(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
) -> WandbLogger:
    """A WandbLogger that writes below `folder`, whose name becomes the run's.

    The run's id is the folder's name too, so that a resumed run continues its curves. Offline where no API key
    is configured, unless the environment variable WANDB_MODE says otherwise.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # where to look is told by where_to_look
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    name = Path(folder).name
    return WandbLogger(
        name=name.rpartition("-")[0] or name,
        id=f"{name}-{job_type}" if job_type != "train" else name,
        save_dir=folder,
        project=project,
        entity=entity,
        group=group,
        tags=list(tags),
        job_type=job_type,
        mode=mode,
        resume="allow" if mode == "online" else None,
        settings=wandb.Settings(silent=True, disable_git=mode == "offline"),
    )


def log_config(loggers: Sequence[Logger], config: DictConfig, codec: ImageCodec) -> None:
    """Gives every logger the whole resolved config, the layers and the number of parameters."""
    summary = ModelSummary(codec, max_depth=2)
    described = OmegaConf.to_container(config, resolve=True)
    described |= {"parameters": summary.total_parameters, "model_summary": str(summary)}
    for logger in loggers:
        logger.log_hyperparams(described)


def where_to_look(loggers: Sequence[Logger]) -> str | None:
    """One line that says where the W&B run can be seen, or None without one."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            if run.settings.mode == "offline":
                return f"W&B: offline; to upload it: wandb sync {Path(run.dir).parent}"
            return f"W&B: {run.url}"
    return None
