"""Train a learned codec, then measure its best checkpoint on the real files it writes. `--help` tells more."""

import sys
from pathlib import Path

import hydra
import lightning
import torch
import wandb
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from codec.callbacks import ChannelsLast, OneFate
from codec.checkpoint import load_codec, start_from
from codec.config import Builder, ConfigError, check_launcher, user_errors
from codec.evaluation import measure
from codec.learned_codec import LearnedCodec
from codec.loggers import log_config, tell_wandbs_sweep, where_to_look
from codec.results import table
from codec.run_state import Recorder
from codec.runs import RunFolder, commit


@hydra.main(version_base="1.3", config_path=str(Path(__file__).resolve().parent / "conf"), config_name="train")
@user_errors()
def main(config: DictConfig) -> float | None:
    """Trains what `config` describes; returns the best `val/loss`, which sweepers minimise."""
    check_launcher(config.strategy.devices)
    run = RunFolder.of(config)
    config.folder = str(run.path)
    if run.is_done(config):
        measured = f"\n\n{table({run.path.name: run.results})}" if run.results else ""
        print(f"{run.path} is done; resume=false trains it again{measured}")
        val_loss = run.val_loss
        tell_wandbs_sweep(config, val_loss)
        return val_loss
    with Recorder(run.path, rank_zero_only.rank) as record:
        return train(config, run, record)


def train(config: DictConfig, run: RunFolder, record: Recorder) -> float | None:
    """Trains and measures in the folder of `run`; of several processes the first returns the best `val/loss`."""
    with Builder(config) as build:
        build.attempt("seed", lambda: lightning.seed_everything(config.seed, workers=True, verbose=False))
        codec, data = build.codec("model"), build.part("data")
        training = {name: build.part(name) for name in ("loss", "optimizer", "scheduler")}
        callbacks = [*build.group("callbacks"), OneFate(), *[ChannelsLast()] * config.strategy.channels_last]
        if not (isinstance(config.epochs, int) and config.epochs >= 1):
            build.faults.append(f"epochs={config.epochs}: allowed are the integers from 1")
        lr = config.optimizer.get("lr", 1)
        if not (isinstance(lr, int | float) and lr > 0):
            build.faults.append(f"optimizer.lr={lr}: allowed are numbers above 0")
        factor = config.prior_lr_factor
        if not (isinstance(factor, int | float) and factor > 0):
            build.faults.append(f"prior_lr_factor={factor}: allowed are numbers above 0")
        if codec is not None and not isinstance(codec, LearnedCodec):
            raise ConfigError("model: this codec has nothing to train; measure it with evaluate.py")
        resumed_from = run.last_checkpoint if config.resume else None
        started: list[str] = []
        if codec is not None and resumed_from is None:
            if config.start_from is None:
                build.attempt("model", codec.load_starting_weights)
            else:
                started = [build.attempt("start_from", lambda: start_from(codec, config.start_from))]
        if data is not None and rank_zero_only.rank == 0:  # further processes meet the data inside fit
            build.attempt("data", data.prepare_data)
            build.attempt("data", lambda: data.setup(None if config.test else "fit"))
        if codec is not None and training["optimizer"] is not None:
            build.attempt("optimizer", lambda: training["optimizer"](codec.parameters()))  # checks its arguments
        if codec is not None and training["loss"] is not None:
            build.attempt("loss", lambda: codec.check_loss(training["loss"]))
        smallest = getattr(training["loss"], "smallest_side", 1)
        for key in ("crop_size", "eval_crop"):
            size = config.data.get(key)
            if isinstance(size, int) and size < smallest:
                build.faults.append(f"data.{key}={size}: this loss compares images from {smallest} pixels a side")
    with Builder(config) as build:
        loggers = build.group("logger")
        trainer = build.part("trainer", callbacks=callbacks, logger=loggers)
    wanted = trainer.num_devices * trainer.num_nodes
    if trainer.world_size != wanted:  # then whoever runs this is believed to have started all processes
        raise ConfigError(
            f"strategy.devices={config.strategy.devices}: {wanted} processes are to train, and there is "
            f"{trainer.world_size}: in SLURM start a task for each, srun --ntasks-per-node=…, or on one node "
            "have them started, env -u SLURM_NTASKS python train.py …"
        )

    try:
        if trainer.is_global_zero:
            run.begin(config)
            record.begin(trainer.world_size)
            log_config(loggers, config, codec)
            print("\n".join([*started, f"{'resuming' if resumed_from else 'training'} in {run.path}"]))
        codec.prepare_training(**training, prior_lr_factor=config.prior_lr_factor)
        try:
            trainer.fit(codec, data, ckpt_path=resumed_from, weights_only=True)
        except SystemExit:  # what Lightning makes of an interrupt, and, with exit status 0, of SIGTERM
            raise KeyboardInterrupt from None
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if not trainer.is_global_zero:
            return None
        val_loss = run.val_loss
        if config.test:
            clocks = [c.time_elapsed("train") for c in trainer.callbacks if isinstance(c, Timer)]
            about = {
                "run": run.path.name,
                "val_loss": val_loss,
                "epochs": trainer.current_epoch,
                **({"train_minutes": round(sum(clocks) / 60, 1)} if clocks else {}),
                "commit": commit(),
            }
            results = measure(
                load_codec(run.path),
                data,
                run.path,
                about,
                device=str(trainer.strategy.root_device).replace("mps:0", "mps"),
                loggers=loggers,
                step=trainer.global_step,
                limit=config.trainer.get("limit_test_batches"),
            )
            print(f"\n{table({run.path.name: results})}\n\nresults, checkpoints and curves: {run.path}")
            print(where_to_look(loggers) or "")
        return val_loss
    finally:
        wandb.finish(exit_code=int(sys.exc_info()[0] is not None))


if __name__ == "__main__":
    with user_errors():
        main()
