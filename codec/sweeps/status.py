"""What became of every job of a sweep so far: local or on SLURM, running or over.

python -m codec.sweeps.status --watch
"""

import argparse
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from codec.errors import CheckpointError, number_of
from codec.sweeps.record import FILE as SWEEP_FILE
from codec.sweeps.record import INTERRUPTED, Sweep
from codec.sweeps.slurm import ENDED, states, submitted
from codec.training.csv_metrics import FILES, read_logged
from codec.training.run_folder import RunFolder
from codec.training.run_state import RunState, is_locked

COLOURS = {"done": "green", "running": "cyan", "failed": "red", "cut off": "yellow", "waiting": "dim"}


class JobStatus(NamedTuple):
    """A row of the table: `progress` in words, `val_loss` the lowest so far, `minutes` those of the last start."""

    name: str
    what: str
    state: str
    progress: str
    val_loss: float | None
    minutes: float | None
    log: str
    error: str | None


def find(target: str | None, runs: Path) -> Path | list[Path]:
    """The folder of the sweep that is in this folder or of this name, else the runs in this folder.

    None is the newest sweep, else all runs. Raises ValueError where there is neither.
    """
    if target is None:
        sweeps = sorted(runs.glob(f"sweeps/*/{SWEEP_FILE}"), key=lambda file: file.stat().st_mtime)
        folders = [sweeps[-1].parent] if sweeps else [runs]
    else:
        folders = list(dict.fromkeys([Path(target), runs / "sweeps" / target]))  # one, of an absolute path
    for folder in folders:
        if (folder / SWEEP_FILE).is_file():
            return folder
    found = sorted(file.parent for folder in folders for file in folder.glob("*/config.yaml"))
    if not found:
        raise ValueError(f"{target or runs} is neither a sweep in {runs}/sweeps nor a folder of runs")
    return found


def statuses(found: Path | Sequence[Path]) -> tuple[list[JobStatus], bool]:
    """How far each job of the sweep in a folder, or each of some runs, has come, and whether the sweep goes on.

    It does while a job runs, or a launcher or SLURM is there to start one.
    """
    if not isinstance(found, Path):
        rows = [status_of(run.name, "", run) for run in found]
        return rows, any(row.state == "running" for row in rows)
    launched, queued = is_locked(found), in_slurm(found)
    sweep = Sweep.read(found)  # only now: a launcher writes down why jobs failed before it ends
    rows = []
    for job in sweep.jobs:
        log = os.path.relpath(job.log, found) if Path(job.log).is_file() else ""
        name = job.folder and Path(job.folder).name
        to_start = name in queued if sweep.launcher == "slurm" else launched and job.error is None
        run = None if job.folder is None else Path(job.folder)
        rows.append(status_of(str(job.number), sweep.what_differs(job.overrides), run, log, job.error, to_start))
    return rows, launched or bool(queued) or any(row.state == "running" for row in rows)


def status_of(
    name: str, what: str, run: Path | None, log: str = "", error: str | None = None, to_start: bool = False
) -> JobStatus:
    """How far the run in the folder `run` has come; `error` is why its launcher says that it failed.

    `to_start` says that somebody is about to start it: then what an earlier start came to is no matter any more.
    """
    if run is None:
        return JobStatus(name, what, "failed" if error else "waiting", "", None, None, log, error)
    recorded, results, config = RunState.read(run), RunFolder(run).results, _config(run)
    if RunFolder(run).came_to_its_end(config.get("test", True)):
        state = "done"
    elif recorded is not None and recorded.state == "running":
        state = "running"
    elif to_start:
        state = "waiting"
    elif error == INTERRUPTED:
        state = "cut off"
    elif recorded is None:
        state = "failed" if error else "waiting"
    else:
        state = "failed" if recorded.state == "failed" or (recorded.state == "killed" and error) else "cut off"
    rows = read_logged(run)
    progress = _progress(config, rows, results)
    val_loss = _val_loss(run, rows, results, state)
    why = (recorded.error if recorded is not None else None) or error
    minutes = _minutes(run, recorded, results)
    return JobStatus(name, what, state, progress, val_loss, minutes, log, why if state == "failed" else None)


def in_slurm(sweep: Path) -> set[str]:
    """The names of the run folders whose jobs SLURM runs or is to run."""
    numbers = submitted(sweep)
    queue = (states() or {}) if numbers else {}
    return {name for name, number in numbers.items() if queue.get(number, "COMPLETED") not in ENDED}


def table(found: Path | Sequence[Path], rows: Sequence[JobStatus]) -> Group:
    """What is shown: a line a job, then where the logs are, why jobs failed, and how many are in each state."""
    sweep = isinstance(found, Path)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("job", "what differs") if sweep else ("run",):
        shown.add_column(column, overflow="fold")
    for column in ("state", "progress"):
        shown.add_column(column, no_wrap=True)
    for column in ("best val/loss", "minutes"):
        shown.add_column(column, justify="right")
    if sweep:
        shown.add_column("log", no_wrap=True)
    for row in rows:
        loss = "" if row.val_loss is None else f"{row.val_loss:.5g}"
        minutes = "" if row.minutes is None else f"{row.minutes:.1f}"
        first, last = ([row.name, Text(row.what)], [row.log]) if sweep else ([row.name], [])
        shown.add_row(*first, Text(row.state, COLOURS[row.state]), row.progress, loss, minutes, *last)
    counts = Counter(row.state for row in rows)
    noun = "job" if sweep else "run"
    total = f"{len(rows)} {noun}{'s' * (len(rows) != 1)}"
    failed = [row for row in rows if row.state == "failed"]
    lines = [f"{noun} {row.name} failed: {row.error or 'its log says why'}" for row in failed]
    if sweep:
        lines.append(f"logs: {found}{os.sep}")
    lines.append(f"{total}: {', '.join(f'{counts[state]} {state}' for state in COLOURS if counts[state])}")
    return Group(shown, "", *map(Text, lines))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; exits with 1 if a job has failed."""
    summary, _, example = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m codec.sweeps.status",
        description=summary,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sweep", nargs="?", help="a sweep's folder or name, or a folder of runs; default: the newest sweep"
    )
    parser.add_argument("--runs", default="runs", type=Path, help="where the runs are; default: runs")
    parser.add_argument("--watch", action="store_true", help="show it anew every 2 seconds until none runs or will")
    options = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = 160
    try:
        found = find(options.sweep, options.runs)
        rows, goes_on = statuses(found)
        if not options.watch:
            console.print(table(found, rows))
        else:
            with Live(table(found, rows), console=console, auto_refresh=False) as live:
                while goes_on:
                    time.sleep(2)
                    if not isinstance(found, Path):
                        found = find(options.sweep, options.runs)
                    rows, goes_on = statuses(found)
                    live.update(table(found, rows), refresh=True)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        pass
    raise SystemExit(int(any(row.state == "failed" for row in rows)))


def _config(run: Path) -> dict[str, Any]:
    file = run / "config.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _progress(config: dict[str, Any], rows: Sequence[dict[str, str]], results: dict[str, Any] | None) -> str:
    if results is not None and "epochs" not in results:
        return number_of(results["images"], "image")
    reached = [row for row in rows if "epoch" in row]
    if not reached:
        return ""
    epoch, step = int(reached[-1]["epoch"]) + 1, int(reached[-1]["step"]) + 1
    return f"epoch {epoch}/{config['epochs'] + config.get('more_epochs', 0)}, step {step}"


def _val_loss(
    run: Path, rows: Sequence[dict[str, str]], results: dict[str, Any] | None, state: str
) -> float | None:
    if results is not None:
        return results.get("val_loss")
    logged = [float(row["val/loss"]) for row in rows if "val/loss" in row]
    if logged or state != "done":
        return min(logged, default=None)
    try:
        return RunFolder(run).val_loss  # of a training without a logger and a test
    except CheckpointError:
        return None


def _minutes(run: Path, recorded: RunState | None, results: dict[str, Any] | None) -> float | None:
    if recorded is None:
        return None if results is None else results.get("train_minutes")
    end = datetime.fromisoformat(recorded.updated)
    if recorded.state == "running":
        end = datetime.now(UTC)
    elif recorded.state == "killed":  # when, nobody wrote down
        touched = [file.stat().st_mtime for file in run.glob(FILES)]
        end = max([end, *(datetime.fromtimestamp(seconds, UTC) for seconds in touched)])
    return (end - datetime.fromisoformat(recorded.started)).total_seconds() / 60


if __name__ == "__main__":
    main()
