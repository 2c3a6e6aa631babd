"""The configs that train.py and evaluate.py would compose, and the folders they would work in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from codec.training.paths import conf_folder, expand_home
from codec.training.run_folder import RunFolder


@contextmanager
def composed(command: str, overrides: Sequence[str]) -> Iterator[DictConfig]:
    """The config of `train` or `evaluate` with these overrides; inside, as in a job, Hydra knows its choices.

    Raises what Hydra does where an override fits nothing.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose(command, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    expand_home(config)
    try:
        yield config
    finally:
        HydraConfig.instance().cfg = None


def train_folder(overrides: Sequence[str]) -> Path:
    """Where `python train.py <overrides>` works."""
    with composed("train", overrides) as config:
        return RunFolder.of(config).path
