"""A sweep's record: what `python train.py -m …` was made of, in `<runs>/sweeps/<name of the sweep>/sweep.json`."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from codec.training.job import typed_overrides
from codec.whole_file import whole_file

FILE = "sweep.json"
INTERRUPTED = "interrupted"  # why a job ended that somebody stopped


@dataclass
class SweepJob:
    """One point: `folder` is where it leaves its results (None: its config cannot be resolved).

    `error` is why its last start failed, where the launcher saw that, or "interrupted"; what the run itself knows
    is in its folder's state.json.
    """

    number: int
    overrides: list[str]
    folder: str | None
    log: str
    error: str | None = None


@dataclass
class Sweep:
    """The record of a sweep in `folder`, written anew with every change."""

    folder: Path
    command: str
    script: str
    launcher: str
    jobs: list[SweepJob] = field(default_factory=list)

    @classmethod
    def begin(cls, folder: str | Path, script: str, launcher: str, first: int = 0) -> "Sweep":
        """The record of the sweep that this process was started for, with jobs to be added from number `first` on.

        Of what an earlier start left, the jobs of lower numbers are kept.
        """
        command = shlex.join([Path(sys.executable).name, *sys.argv])
        earlier = cls.read(folder).jobs if Path(folder, FILE).is_file() else []
        sweep = cls(Path(folder), command, script, launcher, [job for job in earlier if job.number < first])
        sweep.write()
        return sweep

    @classmethod
    def read(cls, folder: str | Path) -> "Sweep":
        """The record in a sweep's folder. Raises ValueError where there is none."""
        file = Path(folder, FILE)
        if not file.is_file():
            raise ValueError(f"{folder} is not the folder of a sweep: it has no {FILE}")
        record = json.loads(file.read_text(encoding="utf-8"))
        sweep = cls(Path(folder), **{**record, "jobs": []})
        for job in record["jobs"]:  # whose folders were written down relative to the sweep's
            place = None if job["folder"] is None else os.path.normpath(Path(folder, job["folder"]))
            sweep.jobs.append(sweep._job(**{**job, "folder": place}))
        return sweep

    @property
    def name(self) -> str:
        return self.folder.name

    def add(self, number: int, overrides: Sequence[str], folder: str | Path | None) -> SweepJob:
        """A further job, in place of one of the same number."""
        job = self._job(number, list(overrides), None if folder is None else str(folder))
        self.jobs = sorted([*(j for j in self.jobs if j.number != number), job], key=lambda j: j.number)
        self.write()
        return job

    def what_differs(self, overrides: Sequence[str]) -> str:
        """Those of a job's `overrides` to which the sweep gives several values; where it varies nothing, all."""
        parsed = OverridesParser.create().parse_overrides(typed_overrides(shlex.split(self.command)))
        swept = {_key(override.input_line) for override in parsed if override.is_sweep_override()}
        return " ".join([override for override in overrides if _key(override) in swept] or overrides)

    def write(self) -> None:
        """Replaces sweep.json, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {key: value for key, value in asdict(self).items() if key != "folder"}
        for job in record["jobs"]:
            del job["log"]
            job["folder"] = None if job["folder"] is None else os.path.relpath(job["folder"], self.folder)
        with whole_file(self.folder / FILE) as file:
            file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())

    def _job(self, number: int, overrides: list[str], folder: str | None, error: str | None = None) -> SweepJob:
        return SweepJob(number, overrides, folder, str(self.folder / f"{number}.log"), error)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")
