"""What further processes bring and what a job costs: images/s of 1 and 2 processes, and the way to the first step.

  python -m experiments.bench.scaling                                      on GPUs if there are enough, else the CPU
  python -m experiments.bench.scaling model=diffusion --processes 1 2 4    any overrides of train.py

Every measurement is a `python train.py strategy=ddp …` of its own, in a temporary folder; the clock starts before
the process does. A job of a sweep is such a process, so the way to its first step is what a sweep pays for it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from hydra.experimental.callback import Callback as HydraCallback
from lightning import Callback, LightningModule, Trainer

from codec.errors import ConfigError, FaultsError
from codec.training.faults import user_errors
from codec.training.paths import checkout
from codec.training.provenance import hardware
from experiments.compose import composed

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4  # the first is not counted
PHASES = {
    "python, torch, lightning": "python starts and imports these two",
    "other imports": "Hydra, W&B, torchmetrics, …, and ours",
    "compose": "the config, by Hydra",
    "data": "codec and data are made, the folder is begun",
    "fit": "to the end of the first step: further processes, a look at validation, workers",
}
# Training, with a look at the clock between its imports; further processes are started from its file itself.
PROGRAM = """
import sys, time
import torch, lightning
libraries = time.time()
from codec.training import fitting, train
imports = time.time()
from experiments.bench.scaling import Marks
marks = Marks(sys.argv.pop(1))
marks.set("libraries", libraries)
marks.set("imports", imports)
sys.argv[0] = train.__file__
train.main()
"""


class Marks:
    """Appends `{"mark": name, "time": when}` to a file, from the first process only."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def set(self, mark: str, when: float | None = None) -> None:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            with self.file.open("a") as out:
                out.write(json.dumps({"mark": mark, "time": when or time.time()}) + "\n")


class ComposeMark(HydraCallback):
    """Marks when the config is composed and the job begins."""

    def __init__(self, file: str) -> None:
        self.marks = Marks(file)

    def on_job_start(self, config: Any, **_: Any) -> None:
        self.marks.set("composed")


class FitMarks(Callback):
    """Marks the beginning of the fit, the end of its first step, and both ends of every epoch's batches."""

    def __init__(self, file: str) -> None:
        self.marks = Marks(file)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.marks.set("fit")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0:
            self.marks.set("epoch begins")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 1:
            self.marks.set("first step")
        if trainer.is_last_batch:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize(trainer.strategy.root_device)
            self.marks.set("epoch ends")


def measured(processes: int, accelerator: str, steps: int, overrides: Sequence[str]) -> dict[str, float]:
    """Seconds of every phase of PHASES, and images/s, of one training. Raises ConfigError if it fails."""
    with composed("train", list(overrides)) as config:
        batch = config.data.batch_size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "marks")
        command = [
            *(sys.executable, "-c", PROGRAM, str(file), *overrides),
            *("strategy=ddp", f"strategy.accelerator={accelerator}", f"strategy.devices={processes}"),
            *(f"epochs={EPOCHS}", "test=false", "logger=none", f"trainer.limit_train_batches={steps}"),
            *("trainer.limit_val_batches=1", f"trainer.check_val_every_n_epoch={EPOCHS}", "~callbacks.progress"),
            *("+hydra.callbacks.marks._target_=experiments.bench.scaling.ComposeMark",),
            *(f"+hydra.callbacks.marks.file={file}", f"+callbacks.marks.file={file}"),
            *("+callbacks.marks._target_=experiments.bench.scaling.FitMarks",),
            *(f"data.crops_per_image={batch * steps * processes}", f"runs={folder}/runs"),
        ]
        started = time.time()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        done = subprocess.run(command, cwd=checkout(), env=environment, capture_output=True, text=True, check=False)
        ended = time.time()
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            faults = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
            raise FaultsError(
                [ConfigError(line) for line in faults or said[-1:] or [f"exit status {done.returncode}"]]
            )
        lines = [json.loads(line) for line in file.read_text().splitlines()]
    at = {line["mark"]: line["time"] for line in reversed(lines)}  # of each the first
    begins = [line["time"] for line in lines if line["mark"] == "epoch begins"]
    ends = [line["time"] for line in lines if line["mark"] == "epoch ends"]
    epochs = [end - begin for begin, end in zip(begins, ends, strict=True)][1:]
    return {
        "python, torch, lightning": at["libraries"] - started,
        "other imports": at["imports"] - at["libraries"],
        "compose": at["composed"] - at["imports"],
        "data": at["fit"] - at["composed"],
        "fit": at["first step"] - at["fit"],
        "first step": at["first step"] - started,
        "after the last step": ended - ends[-1],
        "images/s": processes * batch * steps / median(epochs),
    }


@user_errors()
def main(arguments: Sequence[str] | None = None) -> dict[int, dict[str, float]]:
    """Measures and prints a table; returns `{processes: what measured() gives}`."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m experiments.bench.scaling", description=__doc__, formatter_class=raw
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of train.py, before any --processes")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="of a training; default: 1 2")
    parser.add_argument("--steps", type=int, default=20, help=f"of each of {EPOCHS} epochs; default: 20")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")
    options = parser.parse_intermixed_args(arguments)
    for name, least in (("processes", min(options.processes)), ("steps", options.steps)):
        if least < 1:
            parser.error(f"--{name} {least}: allowed are the integers from 1")
    enough = torch.cuda.device_count() >= max(options.processes)
    cuda = options.device == "cuda" or (options.device == "auto" and enough)
    accelerator = "gpu" if cuda else "cpu"
    results = {n: measured(n, accelerator, options.steps, options.overrides) for n in options.processes}
    about = hardware(torch.device("cuda" if cuda else "cpu"))
    print(f"{accelerator}: {about}; load {os.getloadavg()[0]:.1f}\n\n{report(results)}")
    return results


def report(results: dict[int, dict[str, float]]) -> str:
    """A Markdown table, a column for every number of processes."""
    names = next(iter(results.values()))
    rows = [["s", *(f"{n} process{'es' * (n > 1)}" for n in results), ""]]
    rows += [[name, *(f"{r[name]:.1f}" for r in results.values()), PHASES.get(name, "")] for name in names]
    first, *others = (result["images/s"] for result in results.values())
    if others:
        rows.append(["images/s, times the first", "1.00", *(f"{other / first:.2f}" for other in others), ""])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    main()
