"""Ours and CompressAI's in turns: the times of both, and what one is of the other, round by round."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codec.errors import ConfigError

_OURS = ("PYTHONPATH", "OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE")
# Names the Python that has CompressAI, which wants an environment of its own: it holds NumPy below 2.
VARIABLE = "QUINTET_COMPRESSAI"
PEER = "bmshj2018-hyperprior"


class Times(NamedTuple):
    """Seconds: of the processor, on which other work on the machine counts least, and by the clock."""

    cpu: float
    wall: float

    @classmethod
    def now(cls, device: torch.device | None = None) -> "Times":
        """Once all is done that was asked of the device, if one is named."""
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)
        return cls(time.process_time(), time.perf_counter())

    def until(self, end: "Times", count: int = 1) -> "Times":
        """What has passed from here to `end`, divided by `count`."""
        return Times((end.cpu - self.cpu) / count, (end.wall - self.wall) / count)


def timed(step: Callable[[], Any]) -> tuple[Any, Times]:
    """What `step` gives, and how long it took."""
    start = Times.now()
    result = step()
    return result, start.until(Times.now())


class Peer:
    """CompressAI's codec, in a process of its own; `image` uint8 `[3, H, W]` is what it codes.

    Raises ConfigError where that Python cannot import it.
    """

    def __init__(self, python: str, image: Tensor) -> None:
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name, "image.pt")
        torch.save(image, file)
        command = [python, str(Path(__file__).with_name("compressai_worker.py")), str(file)]
        # Modules of ours are not for it to import, and what importing codec sets its users work without.
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**environment, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise ConfigError(VARIABLE, python, f"this cannot be run: {error.strerror}") from error
        self.version = self._answer()["version"]
        self.bytes = 0

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def ask(self, do: str, **task: int) -> Times:
        """How long it takes to `encode`, `decode`, or `train` (`batch`, `side`, `steps`)."""
        print(json.dumps({"do": do, **task}), file=self._process.stdin, flush=True)
        answer = self._answer()
        if do == "encode":
            self.bytes = answer["bytes"]
        return Times(answer["cpu"], answer["wall"])

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read().strip().splitlines() or ["it ended"]
            self._process.wait()
            self._folder.cleanup()
            raise ConfigError(
                VARIABLE, self._process.args[0], f'{said[-1]}: pip install compressai==1.2.8 "numpy<2" there'
            )
        return json.loads(line)


def median(times: Sequence[Times], clock: str) -> float:
    """Seconds by one of the clocks."""
    return statistics.median(getattr(t, clock) for t in times)


def ratios(over: Sequence[Times], under: Sequence[Times], clock: str) -> list[float]:
    """Of each round; none where one of the two was not measured."""
    if not over or not under:
        return []
    return [getattr(a, clock) / getattr(b, clock) for a, b in zip(over, under, strict=True)]


def spread(values: Sequence[float]) -> str:
    """The median, the least and the greatest."""
    if not values:
        return "not measured"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its numbers to the right; the first column holds names."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
