"""The command `evaluate.py`. What is wrong with a config, or done already, is said before torch is imported.

`--help` tells more; the evaluation itself is in codec/training/measuring.py.
"""

import hydra
from omegaconf import DictConfig

from codec.training.config_checks import check_evaluation
from codec.training.faults import user_errors
from codec.training.paths import conf_folder, expand_home
from codec.training.results import table
from codec.training.run_folder import evaluation_folder
from codec.training.run_state import Recorder


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="evaluate")
@user_errors()
def job(config: DictConfig) -> None:
    """Measures the codec that `config` names and writes results.json and per_image.csv."""
    expand_home(config)
    run = evaluation_folder(config)
    if run.is_done(config):
        print(f"{run.path} is done; resume=false measures it again\n\n{table({run.path.name: run.results})}")
        return
    with Recorder(run.path) as record:
        check_evaluation(config)
        from codec.training.measuring import measure_named

        measure_named(config, run, record)


def main() -> None:
    """The command line; ends the process with status 2 and one line a fault where the user is at fault."""
    with user_errors():
        job()


if __name__ == "__main__":
    main()
