"""The command `train.py`. What is wrong with a config, or done already, is said before torch is imported.

`--help` tells more; the training itself is in codec/training/fitting.py.
"""

import os

import hydra
from omegaconf import DictConfig

from codec.training.config_checks import check_launcher, check_parts, check_training
from codec.training.faults import process_rank, user_errors
from codec.training.paths import conf_folder, expand_home
from codec.training.results import table
from codec.training.run_folder import RunFolder
from codec.training.run_state import Recorder


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="train")
@user_errors()
def job(config: DictConfig) -> float | None:
    """Trains what `config` describes; returns the best `val/loss`, which sweepers minimise."""
    check_parts(config)
    check_launcher(config.strategy.devices)
    expand_home(config)
    run = RunFolder.of(config)
    config.folder = str(run.path)
    if run.is_done(config):
        return show(config, run)
    with Recorder(run.path, process_rank()) as record:
        check_training(config)
        from codec.training.fitting import train

        return train(config, run, record)


def show(config: DictConfig, run: RunFolder) -> float | None:
    """Says what a training came to that is done; returns its best `val/loss`."""
    measured = f"\n\n{table({run.path.name: run.results})}" if run.results else ""
    more = run.more_epochs_begun + 1 if run.more_epochs_begun else "N"
    print(f"{run.path} is done; resume=false trains it again, more_epochs={more} goes on{measured}")
    val_loss = run.val_loss
    if "WANDB_SWEEP_ID" in os.environ:
        from codec.training.wandb_logger import tell_wandbs_sweep

        tell_wandbs_sweep(config, val_loss)
    return val_loss


def main() -> None:
    """The command line; ends the process with status 2 and one line a fault where the user is at fault."""
    with user_errors():
        job()


if __name__ == "__main__":
    main()
