"""The W&B logger, which must never ask and never fail for want of a network or a key."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_summary import ModelSummary
from omegaconf import DictConfig, OmegaConf

from codec.image_codec import ImageCodec
from codec.runs import choices

MODES = ("online", "offline", "disabled", "shared")


def wandb_logger(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
) -> WandbLogger:
    """A WandbLogger that writes below `folder`, whose name becomes the run's; tagged with the chosen options too.

    The run's id is the folder's name, so that a resumed run continues its curves. Offline where no API key is
    configured, or the server cannot be reached with it, unless the environment variable WANDB_MODE says otherwise.
    """
    os.environ.setdefault("WANDB_SILENT", "true")  # where to look is told by where_to_look
    wandb.setup()  # reads that before there is anything to say
    mode = _mode()
    name = Path(folder).name
    return WandbLogger(
        name=name.rpartition("-")[0] or name,
        id=name,
        save_dir=folder,
        project=project,
        entity=entity,
        group=group,
        tags=list(dict.fromkeys([*choices("experiment", "model", "data", "quantization", "loss"), *tags])),
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
                starts = sorted(Path(run.dir).parents[1].glob("offline-run-*"))  # one for every time it was resumed
                return f"W&B: offline; to upload it: wandb sync {shlex.join(map(str, starts))}"
            if run.settings.mode != "disabled":
                return f"W&B: {run.url}"
    return None


def _mode() -> str:
    """What WANDB_MODE asks for; without it, whether the server knows a configured key. Nothing is asked."""
    if rank_zero_only.rank != 0:
        return "disabled"  # only the first process logs
    asked = os.environ.get("WANDB_MODE")
    if asked and asked not in MODES:
        raise ValueError(f"WANDB_MODE={asked}: allowed are {', '.join(MODES)}")
    if asked in ("offline", "disabled"):
        return asked
    try:
        if wandb.login(prompt=False):
            return asked or "online"
        reason = None
    except wandb.Error as error:  # a wrong key, or no way to the server
        reason = str(error).splitlines()[0]
    if asked:
        raise ValueError(f"WANDB_MODE={asked}: {reason or 'no API key is configured; `wandb login` stores one'}")
    if reason and rank_zero_only.rank == 0:
        print(f"W&B: offline, since {reason}", file=sys.stderr)
    return "offline"
