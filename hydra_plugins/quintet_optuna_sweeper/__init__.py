"""Hydra's sweeper `optuna`: a search for the settings of the lowest val/loss that goes on where it was left."""

# Hydra imports this module at every start, with -m and without: what takes time is imported where it is used.
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# val/loss is rate_weight · rate + distortion on the validation images: comparable while those stay the same.
_FIXED = ("loss", "data")


class OptunaSweeper(Sweeper):
    """Runs trials until `n_trials` of the search are finished, `n_jobs` at a time, and says which was the best.

    All trials of a search are in `storage`: the same command with a larger `n_trials` goes on with it, trials that
    were cut off or failed first. `sampler` is told of all that are finished, and seeded by `seed`.
    """

    def __init__(self, n_trials: int, n_jobs: int, storage: str, sampler: DictConfig, seed: int) -> None:
        from codec.checks import check_integer

        check_integer("hydra.sweeper.n_trials", n_trials, 1)
        check_integer("hydra.sweeper.n_jobs", n_jobs, 1)
        self.n_trials = n_trials
        self.n_jobs = n_jobs
        self.storage = storage
        self.sampler = sampler
        self.seed = seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self.folder = Path(config.hydra.sweep.dir).resolve()
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> float:
        """Returns the lowest val/loss of the search. Raises what the first of the trials that failed has raised.

        Raises ConfigError where the search runs already.
        """
        from codec.training.run_state import lock

        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = lock(self.folder)  # until this process ends
        parsed = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        fixed = [override.input_line for override in parsed if not override.is_sweep_override()]
        study = self._study()
        space = search_space([override for override in parsed if override.is_sweep_override()])
        try_again(study, self.folder)
        failures: list[Exception] = []
        while (left := self.n_trials - len(_finished(study)) - len(failures)) > 0:
            trials = [study.ask(space) for _ in range(min(left, self.n_jobs))]
            first, last = self.n_trials - left + 1, self.n_trials - left + len(trials)
            which = f"trial {first}" if first == last else f"trials {first} to {last}"
            print(f"search: {which} of {self.n_trials}", flush=True)
            for trial in trials:
                trial.set_user_attr("sweep", str(self.folder))
            failures += self._run(study, trials, fixed)
            if failures and self.config.hydra.launcher.get("fail_fast"):
                break
        finished = _finished(study)
        if finished:
            best = study.best_trial
            told = f"job {best.number}, val/loss {best.value:.6g}, {' '.join(_overrides(best.params))}"
            print(f"search: {len(finished)} trials finished; best: {told}")
        if failures:
            raise failures[0]
        return study.best_value

    def _study(self) -> Study:
        from codec.errors import ConfigError, install
        from codec.training.config import make

        try:
            import optuna
        except ImportError:
            raise ConfigError(f"hydra/sweeper=optuna: Optuna is missing; {install('search')}") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(storage=self.storage, study_name="search", load_if_exists=True)
        # A search that goes on would otherwise draw again what it began with.
        study.sampler = make("hydra.sweeper.sampler", self.sampler, seed=self.seed + len(study.trials))
        return study

    def _run(self, study: Study, trials: Sequence[Trial], fixed: Sequence[str]) -> list[Exception]:
        """Runs `trials` as jobs of their numbers and tells the study what came of them; returns the failures."""
        from optuna.trial import TrialState

        from codec.errors import ConfigError

        jobs = [[*fixed, *_overrides(trial.params)] for trial in trials]
        failures: list[Exception] = []
        for trial, returned in zip(trials, self.launcher.launch(jobs, trials[0].number), strict=True):
            try:
                value = returned.return_value
            except Exception as error:  # of whichever kind the job's is
                study.tell(trial, state=TrialState.FAIL)
                failures.append(error)
                continue
            if value is None:
                raise ConfigError("hydra/sweeper=optuna: only train.py gives a val/loss to search by")
            study.tell(trial, float(value))
        return failures


def search_space(swept: Sequence[Override]) -> dict[str, BaseDistribution]:
    """What Optuna draws from: numbers of an interval(), on a log scale if tagged so, or one of listed values.

    Raises ConfigError where nothing is searched, or something under which val/loss cannot be compared.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    from codec.errors import ConfigError

    if not swept:
        raise ConfigError("hydra/sweeper=optuna: give what to search, e.g. 'optimizer.lr=interval(1e-4, 1e-2)'")
    space: dict[str, BaseDistribution] = {}
    for override in swept:
        key = override.get_key_element()
        if key.lstrip("+").partition(".")[0] in _FIXED:
            raise ConfigError(
                f"{override.input_line}: a search compares val/loss, which is another one for every {key}; "
                f"fix it, and search once for each"
            )
        value = override.value()
        if not isinstance(value, IntervalSweep):
            space[key] = CategoricalDistribution(list(override.sweep_string_iterator()))
        else:
            kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
            space[key] = kind(value.start, value.end, log="log" in value.tags)
    return space


def try_again(study: Study, folder: Path) -> None:
    """Has the trials that were cut off or failed come first, unless they were finished since.

    Of trials that run, only those of the sweep in `folder` were cut off for certain.
    """
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("sweep") == str(folder):
            study.tell(trial.number, state=TrialState.FAIL)
    settled = [trial.params for trial in _finished(study)]
    settled += [trial.system_attrs["fixed_params"] for trial in study.get_trials(states=(TrialState.WAITING,))]
    for trial in study.get_trials(states=(TrialState.FAIL,)):
        if trial.params and trial.params not in settled:
            study.enqueue_trial(trial.params)
            settled.append(trial.params)


def _finished(study: Study) -> list[FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(states=(TrialState.COMPLETE,))


def _overrides(params: dict[str, Any]) -> list[str]:
    return [f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]
