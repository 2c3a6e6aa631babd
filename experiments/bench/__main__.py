"""Speed: images/s in training, megapixels/s in coding, and which part of coding takes the time.

  python -m experiments.bench                                     every learned codec in conf/model
  python -m experiments.bench model=conv_baseline,conv_enhanced   these; train.py's other overrides work too
  python -m experiments.bench data.crop_size=256 data.batch_size=16 --device cuda --size 1024 --seconds 5

Training is `Trainer.fit` as train.py runs it, on batches from memory: in fp32, and as strategy=cpu or gpu trains
here, channels last and in the precision that this machine is fast in. Coding is the codec's own encode and decode
of one photograph. Weights are random, so files, and with them the coder's time, are not those of a trained codec.
"""

import argparse
import inspect
import itertools
import json
import os
import platform
import re
import shlex
import statistics
import sys
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import DictConfig
from torch import Tensor
from torchvision.transforms.functional import resize

from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.entropy import EntropyBottleneck, coder, tables, unbounded
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.training.config import Builder
from codec.training.faults import user_errors
from codec.training.paths import conf_folder
from codec.training.precision import choose_precision
from codec.training.provenance import commit
from experiments.bench.training_speed import WARM_UP, clock, enough, training_speed, ways_to_train

CONF = conf_folder()
REFERENCES = ("jpeg", "webp")
# network: the scheme's transforms; quantiser: rounding; prior: what is predicted between two passes; tables: CDFs,
# and the check that they are current; format: what else a file needs - 8-bit conversion, padding, header, checksum,
# fingerprint.
PARTS = ("network", "quantiser", "prior", "tables", "coder", "format")


class Parts:
    """Seconds by part, by the clock `now`; of a part inside another, the time is the inner one's only."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Around a block, or decorating a function: its time is `part`'s."""
        self._charge()
        self._running.append(part)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def _charge(self) -> None:
        now = self.now()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def device_of(codec: ImageCodec) -> torch.device:
    """Where a codec computes: standard ones do on the CPU."""
    return codec.device if isinstance(codec, LearnedCodec) else torch.device("cpu")


@contextmanager
def parts_of(codec: ImageCodec, now: Callable[[], float] | None = None) -> Iterator[Parts]:
    """Inside, every call of `codec`'s encode and decode is taken apart, by its device's wall clock or another."""
    parts = Parts(now or partial(clock, device_of(codec)))
    places: list[tuple[Any, str, str]] = [(tables.CodingTables, "refresh", "tables")]
    places += [
        (EntropyBottleneck, name, "quantiser")
        for name in (
            "compress_levels",
            "choose_and_compress",
            "choose",
            "compress",
            "decompress_levels",
            "decompress",
        )
    ]
    if isinstance(codec, LearnedCodec):
        places += [(codec, name, "network") for name in ("write", "read", "draw")]
        places += [(bottleneck.prior, "visit", "prior") for bottleneck in codec.bottlenecks()]
    for one in (codec, *vars(codec).values()):
        if isinstance(one, ImageCodec):  # JPEG inside a scheme is that scheme's coder
            part = "format" if isinstance(one, LearnedCodec) else "coder"
            places += [(one, name, part) for name in ("encode", "decode")]
    functions = dict.fromkeys((coder.encode, coder.decode, unbounded.encode, unbounded.decode), "coder")
    functions |= {f: "tables" for f in vars(tables).values() if inspect.isfunction(f)}
    for module in [module for name, module in sys.modules.items() if name.startswith("codec.")]:
        found = {name: f for name, f in vars(module).items() if inspect.isfunction(f) and f in functions}
        places += [(module, name, functions[f]) for name, f in found.items()]
    with ExitStack() as stack:
        for owner, name, part in places:
            stack.enter_context(patch.object(owner, name, parts.timed(part)(getattr(owner, name))))
        yield parts


def coding_speed(codec: ImageCodec, image: Tensor, seconds: float) -> dict[str, Any]:
    """Megapixels/s of encode and decode; of a learned codec also the parts, in ms, of the median call."""
    device = device_of(codec)
    with parts_of(codec) as parts:
        data = codec.encode(image)
        # Made once after training, and found made by the calls below.
        result: dict[str, Any] = {"bytes": len(data), "making_tables_ms": 1000 * parts.seconds["tables"]}
        for way, argument in (("encode", image), ("decode", data)):
            calls: list[tuple[float, dict[str, float]]] = []
            while not enough([whole for whole, _ in calls[WARM_UP:]], seconds):
                parts.seconds.clear()
                started = clock(device)
                getattr(codec, way)(argument)
                calls.append((clock(device) - started, dict(parts.seconds)))
            whole, split = sorted(calls[WARM_UP:], key=lambda call: call[0])[(len(calls) - WARM_UP) // 2]
            result[way] = {"megapixels_per_s": image[0].numel() / 1e6 / whole, "ms": 1000 * whole}
            if isinstance(codec, LearnedCodec):
                result[way]["parts_ms"] = {part: 1000 * split.get(part, 0.0) for part in PARTS}
    return result


def coder_speed(count: int = 1 << 14) -> dict[str, dict[str, float]]:
    """Million symbols/s of both arithmetic coders, on `count` symbols of a bell-shaped 6-bit distribution.

    `default` is torchac, or NumPy's again where torchac cannot be compiled.
    """
    pmf = torch.exp(-(((torch.arange(65) - 32) / 4) ** 2))
    symbols = torch.multinomial(pmf, count, replacement=True)
    model = (torch.zeros(count, dtype=torch.int64), tables.cdf_from_pmf(pmf[None]))
    speed = {}
    for name, chosen in {"default": coder.default_coder(), "numpy": coder.NUMPY}.items():
        data = coder.encode(symbols, *model, chosen)
        encode = timeit.repeat(partial(coder.encode, symbols, *model, chosen), number=1)
        decode = timeit.repeat(partial(coder.decode, data, *model, chosen), number=1)
        speed[name] = {"encode": count / 1e6 / statistics.median(encode)}
        speed[name]["decode"] = count / 1e6 / statistics.median(decode)
    return speed


def report(results: dict[str, Any]) -> str:
    """The tables for the terminal."""
    rows: list[tuple] = [("training", "", "images/s", "MP/s", "steps/s")]
    for name, speeds in results["training"].items():
        rows += [(name, way, *list(speed.values())[:3]) for way, speed in speeds.items()]
    rows += [(), ("coding", "", "MP/s", "ms", *PARTS)]
    for name, speeds in results["coding"].items():
        for way in ("encode", "decode"):
            speed = dict(speeds[way])
            parts = speed.pop("parts_ms", {})
            rows.append((name, way, *speed.values(), *parts.values()))
    rows += [(), ("arithmetic coder", "", "Msym/s", "×NumPy")]
    for way, speed in results["coder"]["default"].items():
        rows.append(("", way, speed, speed / results["coder"]["numpy"][way]))
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*cells, fillvalue="")]
    lines = [
        [c.rjust(w) if n > 1 else c.ljust(w) for n, (c, w) in enumerate(zip(row, widths, strict=False))]
        for row in cells
    ]
    return "\n".join("  ".join(line) for line in lines)


def chosen_models(overrides: Sequence[str], device: str) -> dict[str, DictConfig]:
    """The configs of the models that `model=A,B` names, or of all that build a LearnedCodec; then REFERENCES."""
    names = [name for item in overrides if item.startswith("model=") for name in item[6:].split(",")]
    wanted = {*names, *REFERENCES}
    names = names or sorted(file.stem for file in (CONF / "model").glob("*.yaml") if file.stem not in REFERENCES)
    # A batch of 8, since a measurement is to hold some steps on a slow machine.
    others = [f"strategy.accelerator={device}", "data.batch_size=8"]
    others += [item for item in overrides if not item.startswith("model=")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = {name: compose("train", [*others, f"model={name}"]) for name in [*names, *REFERENCES]}
    learned = {name for name, c in configs.items() if issubclass(get_class(c.model._target_), LearnedCodec)}
    return {name: config for name, config in configs.items() if name in wanted | learned}


@user_errors()
def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures, prints tables, writes JSON below bench/; returns what the JSON file holds."""
    arguments = sys.argv[1:] if arguments is None else arguments
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m experiments.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long one measurement repeats (default: 1)")
    parser.add_argument("--size", type=int, help="scale the photograph's shorter side to so many pixels")
    options = parser.parse_intermixed_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no usable GPU")
    device = torch.device("cuda" if options.device != "cpu" and torch.cuda.is_available() else "cpu")
    models = chosen_models(options.overrides, device.type)
    precision = choose_precision("auto", device.type)
    file = SamplesSource().images("test")[0]
    image = resize(read_image(file), [options.size]) if options.size else read_image(file)
    about = {
        "command": shlex.join(["python", "-m", "experiments.bench", *arguments]),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],  # near or above `cores`: something else was running too
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "torch": torch.__version__,
        "precision": f"{precision.name}, {precision.reason}",
        "image": f"{file.name}, {image.shape[2]}x{image.shape[1]}",
    }
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    results = {"about": about, "training": {}, "coding": {}, "coder": coder_speed()}
    for name, config in models.items():
        with Builder(config) as build:
            codec = build.codec("model")
        print(f"{name}: coding ...", file=sys.stderr, flush=True)
        if isinstance(codec, LearnedCodec):
            codec.to(device).eval()
        results["coding"][name] = coding_speed(codec, image, options.seconds)
        for way, settings in ways_to_train(precision.name).items() if isinstance(codec, LearnedCodec) else ():
            print(f"{name}: training, {way} ...", file=sys.stderr, flush=True)
            speed = training_speed(codec.train(), config, *settings, options.seconds)
            results["training"].setdefault(name, {})[way] = speed
    print(f"\n{report(results)}\n")
    title = re.sub(r"[^\w.,=+-]", "-", "_".join([*options.overrides, device.type]))
    output = Path("bench") / f"{title}.json"
    output.parent.mkdir(exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n")
    print(output)
    return results


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", info.read_text()) if info.is_file() else None
    return named[1] if named else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
