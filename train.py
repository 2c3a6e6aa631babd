"""Train a learned codec, then measure its best checkpoint on the real files it writes. `--help` tells more."""

import sys
from pathlib import Path

import hydra
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from codec.assembly import TrainingParts, add_loggers, load_inputs, training_parts
from codec.checkpoint import load_codec
from codec.config import check_launcher, user_errors
from codec.evaluation import measure
from codec.loggers import log_config, tell_wandbs_sweep, where_to_look
from codec.results import table
from codec.run_state import Recorder
from codec.runs import RunFolder, commit
from codec.wandb_faults import finish_wandb


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
    resumed_from = run.checkpoint_to_resume() if config.resume else None
    parts = training_parts(config)
    codec, data, trainer = parts
    started = load_inputs(config, parts, resumed_from)
    add_loggers(config, trainer)
    try:
        if trainer.is_global_zero:
            run.begin(config)
            record.begin(trainer.world_size)
            log_config(trainer.loggers, config, codec)
            if started is not None:
                print(started)
            print(f"{'resuming' if resumed_from else 'training'} in {run.path}")
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
            test(config, run, parts, val_loss)
        return val_loss
    finally:
        finish_wandb(trainer.loggers, exit_code=int(sys.exc_info()[0] is not None))


def test(config: DictConfig, run: RunFolder, parts: TrainingParts, val_loss: float) -> None:
    """Measures the best checkpoint of a training that has just ended, and prints what it reaches."""
    trainer = parts.trainer
    clocks = [callback.time_elapsed("train") for callback in trainer.callbacks if isinstance(callback, Timer)]
    about = {
        "run": run.path.name,
        "val_loss": val_loss,
        "epochs": trainer.current_epoch,
        **({"train_minutes": round(sum(clocks) / 60, 1)} if clocks else {}),
        "commit": commit(),
    }
    results = measure(
        load_codec(run.path),
        parts.data,
        run.path,
        about,
        device=str(trainer.strategy.root_device).replace("mps:0", "mps"),
        loggers=trainer.loggers,
        step=trainer.global_step,
        limit=config.trainer.get("limit_test_batches"),
    )
    print(f"\n{table({run.path.name: results})}\n\nresults, checkpoints and curves: {run.path}")
    print(where_to_look(trainer.loggers) or "")


if __name__ == "__main__":
    with user_errors():
        main()
