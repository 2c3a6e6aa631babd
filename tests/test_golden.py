"""Files written once are decoded for ever; they change only with the format version, or a part's `arithmetic`.

Each folder of tests/golden holds tiny weights, a file and what it decodes to. QUINTET_WRITE_GOLDEN=1 writes them
anew, which is right only together with a new `codec.bitstream.VERSION` or, of those that have such a part, with
what it tells the fingerprint, by which files of before are refused.
"""

import os

import pytest
import torch
from conftest import ROOT, make_codec
from torch import Tensor, nn

from codec.bitstream import VERSION
from codec.checkpoint import load_codec, save_weights
from codec.data.image_file import read_image, write_image

GOLDEN = ROOT / "tests/golden"
TINY = {
    "conv_baseline": ("model.widths=[4,4]", "model.latent_channels=2", "prior.filters=[2]", "quantization=4bit"),
    "conv_enhanced": (
        "model.widths=[4,4]",
        "model.latent_channels=2",
        "model.skip_channels=[1]",
        "prior.filters=[2]",
        "quantization=2bit",
    ),
    "diffusion_wavelet": (
        "data.channels=1",
        "model.decoder=none",
        "prior=channel_context",
        "prior.features=4",
        "bottleneck.variable_rate=true",
        "quantization=2bit",
    ),
}


@pytest.mark.parametrize("name", TINY)
def test_a_golden_file_decodes_to_its_image(name: str, photograph: Tensor) -> None:
    folder = GOLDEN / f"{name}-v{VERSION}"
    if os.environ.get("QUINTET_WRITE_GOLDEN") == "1":
        folder.mkdir(parents=True, exist_ok=True)
        codec = make_codec(name, overrides=TINY[name])
        for module in codec.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data *= 3  # or the picture would be one flat grey
        image = photograph[: codec.image_channels, 100:133, 100:141].contiguous()
        save_weights(codec, folder / "codec.safetensors")
        (folder / "file.qnt").write_bytes(codec.encode(image))
        write_image(folder / "decoded.png", codec.decode(codec.encode(image)))
    codec = load_codec(folder / "codec.safetensors")
    data = (folder / "file.qnt").read_bytes()
    decoded, expected = codec.decode(data), read_image(folder / "decoded.png")
    assert len(data) < 1000
    assert decoded.shape == expected.shape
    assert int((decoded.int() - expected.int()).abs().max()) <= 1


def test_every_golden_file_of_this_version_is_tested() -> None:
    assert {path.name for path in GOLDEN.glob(f"*-v{VERSION}")} == {f"{name}-v{VERSION}" for name in TINY}


@pytest.mark.parametrize("name", TINY)
def test_a_golden_file_s_tables_are_read_and_not_remade(name: str) -> None:
    codec = load_codec(GOLDEN / f"{name}-v{VERSION}" / "codec.safetensors")
    tables = {key: value.clone() for key, value in codec.state_dict().items() if key.endswith("tables")}
    codec.decode((GOLDEN / f"{name}-v{VERSION}" / "file.qnt").read_bytes())
    assert tables
    assert all(torch.equal(codec.state_dict()[key], value) for key, value in tables.items())
