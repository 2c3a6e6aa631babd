"""What a table needs, trainings and evaluations, as `plans/<table>.yaml` says: nothing is run here."""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Template
from typing import Any

from omegaconf import OmegaConf

from codec.checkpoint_files import find_checkpoint
from codec.errors import UserError
from codec.pretrained import Weights, pretrained_models
from codec.training.run_folder import RunFolder
from experiments.compose import train_folder

PLANS = Path(__file__).resolve().parent / "plans"
TABLES = sorted(path.stem for path in PLANS.glob("*.yaml") if path.stem != "budgets")


class PlanError(UserError, ValueError):
    """A table that cannot be made as asked; the text is one line."""


@dataclass(frozen=True)
class Training:
    """A run of train.py; `folder` follows from the resolved config, and so do those of all that `start` from it.

    `stand_in`: pretrained weights that serve as well, though their training was another.
    """

    name: str
    overrides: tuple[str, ...]
    seed: int
    start: "Training | None" = None
    stand_in: str | None = None

    @cached_property
    def folder(self) -> Path:
        return train_folder(self.overrides)

    @property
    def command(self) -> str:
        return shlex.join(["python", "train.py", *self.overrides])

    @property
    def results(self) -> dict[str, Any] | None:
        """Those of the run, once it is done here."""
        return RunFolder(self.folder).results

    @property
    def weights(self) -> Weights | None:
        """The pretrained weights that this very training made, or the stand-in; None once it was run here too."""
        if self.results is not None:
            return None
        every = (weights for model in pretrained_models() for weights in model.weights)
        fitting = (w for w in every if w.training["run"] == self.folder.name or w.stem == self.stand_in)
        return next(fitting, None)

    @property
    def checkpoint(self) -> Path:
        """Raises CheckpointError where there is none yet."""
        return find_checkpoint(self.folder) if self.weights is None else self.weights.path

    @property
    def minutes(self) -> float | None:
        """How long it took, without what it started from; None where that is not known."""
        if self.weights is not None:
            return self.weights.training["minutes"]
        return (self.results or {}).get("train_minutes")

    @property
    def hardware(self) -> str:
        known = self.results if self.weights is None else self.weights.training
        return (known or {}).get("hardware") or "unknown hardware"


@dataclass(frozen=True)
class Evaluation:
    """A run of evaluate.py, which becomes one point: of `codec` at `setting` on `dataset`."""

    codec: str
    setting: str
    dataset: str
    training: Training | None
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its results are called."""
        seed = f"seed {self.training.seed}" if self.training is not None and self.training.seed else ""
        parts = (self.codec, self.setting, seed, self.dataset)
        return "_".join(re.sub(r"[^\w.+-]+", "-", part).strip("-") for part in parts if part)

    def command_overrides(self) -> list[str]:
        """All that evaluate.py is given."""
        return [*self._trained(), *self.overrides, f"name={self.name}"]

    def _trained(self) -> list[str]:
        if self.training is None:
            return []
        weights = self.training.weights
        if weights is None:
            return [f"run={self.training.folder}"]
        quality = [] if weights.quality is None else [f"quality={weights.quality}"]
        return [f"pretrained={weights.name}", *quality]


@dataclass(frozen=True)
class PlannedFigure:
    """A figure that `experiments.plots.<tool>` draws of the runs of these trainings; `file` is its name."""

    file: str
    tool: str
    trainings: tuple[Training, ...]
    options: tuple[str, ...]

    @property
    def of_runs(self) -> bool:
        """Whether it shows what a training left on its way: weights alone do not do."""
        return self.tool in ("losses", "over_epochs")

    def arguments(self, out: Path) -> list[str]:
        """What the tool's command line is given."""
        data = {"QUINTET_DATA": os.environ.get("QUINTET_DATA", "data")}
        options = [Template(option).substitute(data) for option in self.options]
        shown = [str(t.folder if self.of_runs or t.weights is None else t.checkpoint) for t in self.trainings]
        return [*shown, *options, "--out", str(out)]


@dataclass(frozen=True)
class Plan:
    """A table: see the files in plans/."""

    table: str
    title: str
    source: str | None
    budget: str
    about_budget: str
    anchor: str | None
    notes: list[str]
    claims: dict[str, list[dict[str, str]]]
    seeds: int = 1
    photos: bool = False
    trainings: list[Training] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    figures: list[PlannedFigure] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """Where it is stated."""
        return PLANS / f"{self.table}.yaml"


def read_plan(table: str, budget: str, seeds: int = 1) -> Plan:
    """The plan of a table, with trainings repeated with `seeds` seeds, 0, 1, …

    Where $QUINTET_PHOTOS names a folder of photographs, what a plan's `photos` say is trained on those too. Raises
    PlanError where there is no such table, budget or folder.
    """
    budgets = OmegaConf.load(PLANS / "budgets.yaml")
    for key, value, known in (("table", table, TABLES), ("BUDGET", budget, list(budgets))):
        if value not in known:
            raise PlanError(f"{key}={value}: allowed are {', '.join(known)}")
    if seeds < 1:
        raise PlanError(f"SEEDS={seeds}: allowed are the integers from 1")
    stated = OmegaConf.to_container(OmegaConf.load(PLANS / f"{table}.yaml"), resolve=False)
    limits = OmegaConf.to_container(budgets[budget])
    photos = os.environ.get("QUINTET_PHOTOS", "")
    if photos and not Path(photos).is_dir():
        raise PlanError(f"QUINTET_PHOTOS={photos}: there is no such folder")
    trainings: dict[tuple[str, int], Training] = {}
    for seed in range(seeds):
        for name, entry in stated["trainings"].items():
            overrides = entry.get(budget, entry.get("small"))
            if overrides is None:
                continue  # the paper's own setting, for its own budget only
            chosen = [*limits["train"], *overrides, *(entry.get("photos", []) if photos else [])]
            if seed:
                chosen.append(f"seed={seed}")
            start = trainings[entry["start_from"], seed] if "start_from" in entry else None
            if start is not None:
                chosen.append(f"start_from={start.folder}")
            stand_in = entry.get("stand_in") if budget == "small" and not (seed or photos) else None
            trainings[name, seed] = Training(name, tuple(chosen), seed, start, stand_in)
    evaluations = [
        Evaluation(entry["codec"], setting, dataset, training, (*stated["datasets"][dataset], *overrides))
        for entry in stated["evaluations"]
        for training in _trainings_of(entry, trainings)
        for setting, overrides in _settings(entry, limits)
        for dataset in entry["data"]
    ]
    figures = [
        PlannedFigure(
            name, entry["tool"], tuple(trainings[run, 0] for run in entry["runs"]), tuple(entry["options"])
        )
        for name, entry in stated.get("figures", {}).items()
    ]
    return Plan(
        table=table,
        title=stated["title"],
        source=stated["source"],
        budget=budget,
        about_budget=limits["about"],
        anchor=stated.get("anchor"),
        notes=stated.get("notes", []),
        claims=stated["claims"],
        seeds=seeds,
        photos=bool(photos) and any("photos" in entry for entry in stated["trainings"].values()),
        trainings=list(trainings.values()),
        evaluations=evaluations,
        figures=figures,
    )


def _trainings_of(entry: dict[str, Any], trainings: dict[tuple[str, int], Training]) -> list[Training | None]:
    if "run" not in entry:
        return [None]
    return [training for (name, _), training in trainings.items() if name == entry["run"]]


def _settings(entry: dict[str, Any], limits: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The setting of each point as the table names it, and what evaluate.py is given for it."""
    fixed = [*([f"model={entry['model']}"] if "model" in entry else []), *entry.get("options", [])]
    if "sweep" not in entry:
        yield entry.get("setting", ""), (*fixed, *limits["evaluate"])
        return
    ((key, values),) = entry["sweep"].items()
    for value in values if limits["sweep"] == "all" else (values[0], values[-1]):
        yield f"{key.rpartition('.')[2]}={value}", (*fixed, f"{key}={value}", *limits["evaluate"])
