"""What tests of `codec` share: a tiny checkpoint, the commands run, and files for them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_codec
from PIL import Image

from codec import bitstream
from codec.bitstream import Header
from codec.checkpoint import save_weights
from codec.cli import main
from codec.pretrained import Weights

NARROW = ("model.widths=[8,8]", "model.latent_channels=4")

POINT = {"images": 3, "bpp": 0.5, "bpsp": 0.17, "psnr": 30.0}
# What test models are, but for their weights.
ABOUT = Weights(
    name="",
    quality=None,
    accepts=None,
    own_quality=None,
    scheme="",
    description="for tests.",
    source="",
    image_channels=3,
    lossless=False,
    fingerprint="",
    sha256="",
    size=0,
    parameters=1_234_000,
    encode_macs=4_510,
    decode_macs=67_000,
    training={},
    measured={"kodak": [POINT]},
    per_image={},
)


def tiny_checkpoint(folder: Path) -> Path:
    """A tiny untrained codec for colour, saved in `folder`."""
    path = folder / "tiny.safetensors"
    codec = make_codec("conv_baseline", overrides=NARROW)
    codec.encode(torch.zeros(3, 4, 4, dtype=torch.uint8))  # compiles the coder where that has not been done
    save_weights(codec, path)
    return path


def runner(capsys: pytest.CaptureFixture, checkpoint: Path | None = None) -> Callable[..., tuple[int, str, str]]:
    """Runs a command, with `checkpoint` where it takes one; gives the exit status and what it printed."""

    def run(command: str, *arguments: object) -> tuple[int, str, str]:
        without = checkpoint is None or command in ("info", "models") or "--checkpoint" in arguments
        model = () if without else ("--checkpoint", checkpoint)
        try:
            status = main([*map(str, (command, *arguments, *model))])
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return run


def picture(
    path: str | Path, size: tuple[int, int] = (23, 17), mode: str = "RGB", seed: int = 0, **options
) -> Path:
    """An image file of smooth random content; `size` is (width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    few = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(few).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, **options)
    return path


def pictures(*paths: str) -> None:
    for seed, path in enumerate(paths):
        picture(path, seed=seed)


def files(folder: str | Path = ".") -> list[str]:
    """Every file below `folder`, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir())


def foreign(path: str | Path, data: bytes | None = None, **changes: object) -> Path:
    """A whole file that no codec of ours wrote."""
    fields = {"scheme": "cvb1", "fingerprint": bytes(4), "height": 16, "width": 16, "channels": 3, **changes}
    path = Path(path)
    path.write_bytes(bitstream.pack(Header(**fields), [b"abc"]) if data is None else data)
    return path


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line
