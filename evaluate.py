"""Measure a codec - a trained run or a standard codec - on the real files it writes. `--help` tells more."""

from pathlib import Path

import hydra
import lightning
import wandb
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from codec.checkpoint import find_checkpoint, load_codec
from codec.config import Builder, ConfigError, user_errors
from codec.evaluation import measure
from codec.loggers import log_config
from codec.results import table
from codec.runs import RunFolder, commit


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@user_errors()
def main(config: DictConfig) -> None:
    """Measures the codec that `config` names and writes results.json and per_image.csv."""
    if (config.run is None) == (config.get("model") is None):
        raise ConfigError("run=null, model=null: name one of them: run=runs/NAME, or model=jpeg and the like")
    if config.run is not None:
        with open_dict(config):
            measured_on = HydraConfig.get().runtime.choices.get("data") or "its_test_images"
            config.name = config.name or f"{Path(config.run).name}_on_{measured_on}"
            config.data = config.get("data") or data_of_run(Path(config.run))
    with Builder(config) as build:
        build.attempt("seed", lambda: lightning.seed_everything(config.seed, workers=True, verbose=False))
        codec = build.codec("model") if config.run is None else build.attempt("run", lambda: load_codec(config.run))
        data = build.part("data")
        if config.get("data") is None:
            build.faults.append("data=null: name the images to measure on, e.g. data=kodak")
        if data is not None:
            build.attempt("data", data.prepare_data)
            build.attempt("data", lambda: data.setup("test"))
    with Builder(config) as build:
        run = RunFolder.of(config)
        config.folder = str(run.path)
        loggers = build.group("logger")
    try:
        run.begin(config)
        log_config(loggers, config, codec)
        about = {"codec": run.path.name, "commit": commit()}
        results = measure(codec, data, run.path, about, config.device, loggers, save_files=config.save_files)
        print(f"\n{table({run.path.name: results})}\n\nresults lie in {run.path}")
    finally:
        wandb.finish()


def data_of_run(run: Path) -> DictConfig | None:
    """The data config of the run that a folder or checkpoint belongs to; None if it lies in no run's folder."""
    file = find_checkpoint(run).parents[1] / "config.yaml"
    return OmegaConf.load(file).data if file.is_file() else None


if __name__ == "__main__":
    with user_errors():
        main()
