"""The W&B logger, which must never ask and never fail for want of a network or a key."""

import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from hydra.utils import instantiate
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from codec.checks import check_integer
from codec.errors import ConfigError
from codec.training.csv_metrics import read_logged
from codec.training.job import job_group, job_name
from codec.training.loggers import CHOICES, RunLogger
from codec.training.paths import home_path
from codec.training.run_folder import choices
from codec.training.wandb_faults import ensure_home, finish_wandb, raised_by_wandb, report, tolerates_wandb_faults
from codec.training.wandb_names import asked_wandb_mode, valid_names
from codec.training.wandb_offline import (
    cut_to_whole_records,
    files_of_starts,
    is_uploaded,
    last_value,
    set_aside,
    staged_below,
)

X_AXIS = "trainer/global_step"
# The table of this name has one row a run, which W&B's charts put under those of the other runs shown.
RATE_DISTORTION = "test/rate_distortion"
POINT_TEXTS = ("curve", "codec", "setting", "dataset")
POINT_NUMBERS = ("images", "bpp", "bpsp", "ratio", "psnr", "ssim", "ms_ssim", "lpips", "encode_ms", "decode_ms")


class CodecWandbLogger(WandbLogger, RunLogger):
    """Lightning's, with x-axes of ours, the lowest `val/loss` in the summary, and tables of what a test measured.

    Of the tested images, the first `thumbnails` are shown. Infinite values, such as a lossless codec's PSNR, are
    left out: W&B's charts cannot draw them. `folder` is the run's, wherever W&B's own files go. Names become such
    as W&B takes. What W&B raises is told in one line, kept as `fault`, and W&B left out from then on; a fault of
    ours is raised.
    """

    def __init__(self, thumbnails: int, folder: str, fault: BaseException | None = None, **arguments: Any) -> None:
        super().__init__(**valid_names(arguments))
        self.thumbnails = thumbnails
        self.fault = fault
        self.folder = Path(folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run | DummyExperiment:
        return self._run() or DummyExperiment()

    @tolerates_wandb_faults
    def _run(self) -> wandb.Run:
        # Made here, or by the process that started us.
        if self._experiment is not None or hasattr(self, "_attach_id"):
            return super().experiment
        reached = self._continue_or_begin()
        run = super().experiment
        _define_metrics(run)
        if self._wandb_init["resume"]:
            self._log_again_from(reached if reached is not None else run.summary.get(X_AXIS, -1))
        return run

    def _continue_or_begin(self) -> float | None:
        """A training that resumes continues its W&B run, wherever that is; any other begins it anew.

        Known only now: the logger is made before the run's folder is. Returns the step that W&B has reached, as far
        as its files tell.
        """
        if self._wandb_init["mode"] == "disabled":
            return None
        if not (self.folder / "checkpoints/last.ckpt").is_file():
            set_aside(self.save_dir, self._wandb_init["id"])
            return None
        self._wandb_init["resume"] = "allow"  # in an offline file it has `wandb sync` append to the run
        earlier = files_of_starts(self.save_dir, self._wandb_init["id"])
        for file in earlier:
            cut_to_whole_records(file)
        if self._wandb_init["mode"] == "online" and not all(map(is_uploaded, earlier)):
            self._wandb_init["mode"] = "offline"
            print("W&B: offline, since the beginning of this run is not uploaded yet", file=sys.stderr)
        if self._wandb_init["mode"] == "online":
            return None
        return max((step for file in earlier if (step := last_value(file, X_AXIS)) is not None), default=None)

    def _log_again_from(self, step: float) -> None:
        """Logs what the CSV files have from `step` on: W&B writes late, and a killed process loses that."""
        for row in read_logged(self.folder):
            if int(row["step"]) >= step:
                values = {key: float(value) for key, value in row.items() if key != "step"}
                self.log_metrics(values, int(row["step"]))

    log_hyperparams = tolerates_wandb_faults(WandbLogger.log_hyperparams)
    log_image = tolerates_wandb_faults(WandbLogger.log_image)

    @rank_zero_only
    @tolerates_wandb_faults
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        finite = {k: v for k, v in metrics.items() if not (isinstance(v, float) and math.isinf(v))}
        super().log_metrics(finite, step)

    @rank_zero_only
    @tolerates_wandb_faults
    def log_apart(self, metrics: Mapping[str, float]) -> None:
        """Logs `metrics` in a W&B run of this process alone, which continues no other and ends here."""
        with wandb.init(**self._wandb_init) as run:
            _define_metrics(run)
            run.log(dict(metrics))

    @rank_zero_only
    @tolerates_wandb_faults
    def log_tables(
        self,
        rows: Sequence[dict[str, float | str]],
        thumbnails: dict[str, Tensor],
        point: dict[str, Any],
        step: int,
    ) -> None:
        """`test/images`: `rows`, one an image, and their `thumbnails`; `test/rate_distortion`: the `point`."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        images = wandb.Table(columns=["original | decoded", *columns])
        for row in rows:
            pair = thumbnails.get(row["name"])
            picture = None if pair is None else wandb.Image(to_pil_image(pair.cpu()))
            images.add_data(picture, *(_drawable(row.get(column)) for column in columns))
        columns = [*POINT_TEXTS, *POINT_NUMBERS]
        points = wandb.Table(columns=columns, data=[[_drawable(point.get(column)) for column in columns]])
        with staged_below(self.save_dir):
            self.log_metrics({"test/images": images, RATE_DISTORTION: points}, step)

    @rank_zero_only
    @tolerates_wandb_faults
    def finish(self) -> None:
        """Ends the run when all is uploaded."""
        self.experiment.finish()

    @tolerates_wandb_faults
    def where(self) -> str | None:
        """One line that says where the run can be seen; None if it cannot."""
        run = self.experiment
        if run.settings.mode == "offline":
            starts = Path(run.dir).parents[1]  # all of them, or a resumed run would lack its beginning
            return f"W&B: offline; to upload it: wandb sync {shlex.quote(str(starts))}"
        return None if run.settings.mode == "disabled" else f"W&B: {run.url}"

    def shut_down(self, exit_code: int) -> None:
        """Ends the run, if it has not ended, and W&B's own process."""
        finish_wandb(self, exit_code)


def wandb_logger(
    folder: str,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str = "train",
    thumbnails: int = 24,
) -> CodecWandbLogger:
    """A logger that writes below `folder`, whose name becomes the run's; tagged with the chosen options too.

    The jobs of a sweep are named by what differs; without a `group`, they share one of the sweep's name. Of a test,
    `thumbnails` images are shown. The run's id is the folder's name: a training that resumes there continues its
    curves, offline too. Offline where no API key is configured, or the server cannot be reached with it, unless the
    environment variable WANDB_MODE says otherwise. WANDB_NAME and WANDB_DIR are heeded too. Where W&B cannot even
    begin, a line says so, and it is left out.
    Raises ValueError if `thumbnails` is no integer from 0, or WANDB_MODE asks for what cannot be had.
    """
    check_integer("thumbnails", thumbnails, 0)
    asked_wandb_mode()  # or wandb.setup is the first to refuse it, in words of its own
    os.environ.setdefault("WANDB_SILENT", "true")  # where to look is told by where_to_look
    mode, fault = "disabled", None
    try:
        ensure_home()
        wandb.setup()  # reads that before there is anything to say
        mode = wandb_mode()
    except Exception as error:
        if not raised_by_wandb(error):
            raise
        fault = error
        report(error)
    return CodecWandbLogger(
        thumbnails,
        folder,
        fault,
        name=os.environ.get("WANDB_NAME") or job_name(folder),
        id=Path(folder).name,
        save_dir=home_path(os.environ.get("WANDB_DIR") or folder, "WANDB_DIR"),
        project=project,
        entity=entity,
        group=group or job_group(),
        tags=list(dict.fromkeys([*choices(*CHOICES), *map(str, tags)])),
        job_type=job_type,
        mode=mode,
        resume=None,
        settings=wandb.Settings(silent=True, disable_git=mode == "offline"),
    )


def tell_wandbs_sweep(config: DictConfig, val_loss: float) -> None:
    """Logs the `val/loss` of a training that was done before, where W&B's own sweep has given it out once more.

    Its server counts only what is in the run that it made for this process, not in the run of the training.
    """
    settings = OmegaConf.select(config, "logger.wandb")
    if "WANDB_SWEEP_ID" in os.environ and settings is not None:
        instantiate(settings, _convert_="all").log_apart({"val/loss": val_loss})


def wandb_mode() -> str:
    """What WANDB_MODE asks for; without it, whether the server knows a configured key. Nothing is asked."""
    if rank_zero_only.rank != 0:
        return "disabled"  # only the first process logs
    asked = asked_wandb_mode()
    if asked in ("offline", "disabled"):
        return asked
    try:
        if wandb.login(prompt=False):
            return asked or "online"
        reason = None
    except wandb.Error as error:  # a wrong key, or no way to the server
        reason = str(error).splitlines()[0]
    if asked:
        raise ConfigError("WANDB_MODE", asked, reason or "no API key is configured; `wandb login` stores one")
    if reason and rank_zero_only.rank == 0:
        print(f"W&B: offline, since {reason}", file=sys.stderr)
    return "offline"


def _define_metrics(run: wandb.Run) -> None:
    for names in ("train/*", "val/*", "test/*"):
        run.define_metric(names, step_metric=X_AXIS)
    run.define_metric("val/loss", step_metric=X_AXIS, summary="min")


def _drawable(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and math.isinf(value) else value
