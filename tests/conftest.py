"""What tests share: photographs, small codecs, and the commands run as a user runs them."""

import atexit
import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from warm_python import Fork, WarmPython

from codec.checkpoint import build_codec
from codec.data.image_file import read_image
from codec.data.samples import SamplesSource
from codec.errors import install
from codec.image_codec import ImageCodec
from codec.learned_codec import LearnedCodec
from codec.losses import LossTerms, RateDistortionLoss

ROOT = Path(__file__).resolve().parents[1]
MODELS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))

# Nothing a test does may wait for a W&B key or a server.
os.environ["WANDB_MODE"] = "offline"


def composed(config_name: str, overrides: list[str], hydra: bool = False, conf: Path = ROOT / "conf") -> DictConfig:
    """The config that the command line would compose, with or without Hydra's own part."""
    if hydra or conf != ROOT / "conf":
        return _composed(config_name, tuple(overrides), hydra, conf)
    return copy.deepcopy(_composed_once(config_name, tuple(overrides), hydra, conf))


def _composed(config_name: str, overrides: tuple[str, ...], hydra: bool, conf: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose(config_name, list(overrides), return_hydra_config=hydra)


_composed_once = cache(_composed)  # a composition takes 0.1 s, and most are asked for by many tests


def make_codec(model: str, channels: int = 3, seed: int = 0, overrides: tuple[str, ...] = ()) -> ImageCodec:
    """The codec of `conf/model/<model>.yaml` with weights drawn from `seed`, ready to code."""
    if model.startswith("jpegxl"):
        pytest.importorskip("pillow_jxl", reason=install("jpegxl"))
    config = composed("train", [f"model={model}", f"data.channels={channels}", *overrides])
    torch.manual_seed(seed)
    codec = build_codec(OmegaConf.to_container(config.model, resolve=True))
    return codec.eval() if isinstance(codec, LearnedCodec) else codec


@cache
def lively_codec(model: str) -> ImageCodec:
    """As if trained: ends that start at zero get small weights, BatchNorm the statistics of some noise.

    Else every file might decode to one grey, whatever it holds.
    """
    codec = make_codec(model)
    if not isinstance(codec, LearnedCodec):
        return codec
    generator = torch.Generator().manual_seed(0)
    for module in codec.modules():
        if isinstance(module, nn.Conv2d) and not bool(module.weight.any()):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        codec.train()(torch.rand(4, codec.image_channels, 64, 64, generator=generator))
    return codec.eval()


def is_learned(model: str) -> bool:
    return composed("train", [f"model={model}"]).model._target_.startswith("codec.schemes.")


LEARNED = [model for model in MODELS if is_learned(model)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> Tensor:
    """Uniform noise in [0, 1], the same for the same seed."""
    return torch.rand(*shape, generator=generator(seed))


def noise(*shape: int, seed: int = 1) -> Tensor:
    """Gaussian noise, the same for the same seed."""
    return torch.randn(*shape, generator=generator(seed))


def to_tensor(samples: np.ndarray) -> Tensor:
    """An image `[H, W, C]` as `[C, H, W]`."""
    return torch.from_numpy(samples.copy()).permute(2, 0, 1).contiguous()


def crop(photograph: Tensor, height: int = 64, width: int = 64) -> Tensor:
    """Its pixels from row 100 and column 100 on."""
    return photograph[:, 100 : 100 + height, 100 : 100 + width].contiguous()


def run_python(
    *arguments: str | Path, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess:
    """A Python process in `cwd`, as a user would start it; its output is part of the failure if it fails.

    A script or module finds torch imported already; what is given with `-c` does not.
    """
    command = [*map(str, arguments)]
    environment = {**os.environ, **environment}
    if command[0] == "-c":
        done = subprocess.run(
            [sys.executable, *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    else:
        done = run_warm(command, cwd, environment)
    if check and done.returncode != 0:
        pytest.fail(f"{arguments} exited with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done


def terms(loss: RateDistortionLoss, codec: LearnedCodec, x: Tensor) -> LossTerms:
    """The loss of what `codec` makes of `x`."""
    output = codec(x)
    return loss(output.x_hat, output.total_bits, x)


@cache
def warm_python() -> WarmPython:
    python = WarmPython()
    atexit.register(python.stop)
    return python


def run_warm(command: list[str], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """`python COMMAND` where torch is imported already, with no more in its environment than is given."""
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        status = warm_python().start(command, cwd, environment, out.fileno(), err.fileno()).wait()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def start_script(*command: str | Path, cwd: Path, log: Path, **environment: str) -> Fork:
    """`python COMMAND` in the background, COMMAND being a script or module; all its output goes to `log`."""
    with log.open("a") as file:
        files = file.fileno(), file.fileno()
        return warm_python().start([*map(str, command)], cwd, {**os.environ, **environment}, *files)


def popen_warm(command: list[str | Path], env: dict[str, str], **_: object) -> Fork:
    """`subprocess.Popen` of a Python script, in the current folder and with the output of this process."""
    assert command[0] == sys.executable
    return warm_python().start([*map(str, command[1:])], Path.cwd(), env, 1, 2)


def untaught(codec: LearnedCodec, side: int) -> set[str]:
    """The parameters that no gradient has reached by the third step on images of `side`² pixels; it must be finite.

    Those that training leaves as they are do not count. An end that starts at zero lets nothing through to what is
    behind it in the first step.
    """
    codec.train()
    loss, optimizer = RateDistortionLoss(rate_weight=0.01), torch.optim.Adam(codec.parameters(), lr=1e-3)
    torch.manual_seed(0)
    learned = {name: parameter for name, parameter in codec.named_parameters() if parameter.requires_grad}
    left = set(learned)
    for seed in range(3):
        x = images(2, 3, side, side, seed=seed)
        optimizer.zero_grad()
        terms(loss, codec, x).loss.backward()
        for name, parameter in learned.items():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            if bool(parameter.grad.any()):
                left.discard(name)
        optimizer.step()
    return left


def folder_of(runs: Path, name: str) -> Path:
    """The folder of the only run in `runs` that is called `name`."""
    (found,) = runs.glob(f"{name}-*")
    return found


def wait_for(there: Callable[[], Any], process: subprocess.Popen | Fork, log: Path | None = None) -> Any:
    """What `there` gives as soon as that is true of what a process in the background does.

    If it ends before, or ten minutes pass, the test fails with its output, from its pipes or the file `log`.
    """
    deadline = time.monotonic() + 600
    while not (found := there()):
        ended = process.poll()
        if ended is not None or time.monotonic() > deadline:
            process.kill()
            said = [log.read_text()] if log is not None else process.communicate(timeout=60)
            how = "did not come so far in ten minutes" if ended is None else f"ended with {ended}"
            pytest.fail(f"{process.args} {how}:\n" + "\n".join(str(text)[-3000:] for text in said if text))
        time.sleep(0.02)
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def photographs() -> list[Tensor]:
    """Packaged photographs, uint8 `[3, H, W]`: 451×300, 600×400 and 640×427 pixels."""
    return [read_image(path, channels=3) for path in SamplesSource().images("test")]


@pytest.fixture(scope="session")
def photograph(photographs: list[Tensor]) -> Tensor:
    """One photograph of 300 rows and 451 columns."""
    return photographs[0]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For small tensors: threads that share a core would wait for each other most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
