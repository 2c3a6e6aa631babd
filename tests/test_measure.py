"""Measuring: one row an image, by whichever way it is asked for."""

import re
from pathlib import Path

import pytest
import torch
from conftest import crop, make_codec
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from codec import measure as measuring
from codec.baselines import Jpeg, Png
from codec.checkpoint import load_pretrained
from codec.data.image_file import NamedImage, read_image
from codec.errors import EncodeError
from codec.image_codec import ImageCodec
from codec.measure import evaluate, is_out_of_memory, keep_files, measure
from codec.metrics import mean_of_rows

TIMES = ("encode_ms", "decode_ms")


@pytest.fixture
def items(photographs: list[Tensor]) -> list[NamedImage]:
    sizes = [(64, 64), (65, 97), (180, 180)]
    return [
        NamedImage(f"{n}.png", crop(p, *size)) for n, (p, size) in enumerate(zip(photographs, sizes, strict=True))
    ]


@pytest.mark.parametrize("model", ["conv_enhanced", "diffusion_dct"])
def test_lightnings_test_gives_the_same_figures(model: str, items: list[NamedImage]) -> None:
    options = ("model.shortcut=dct",) if model == "diffusion_dct" else ()
    codec = make_codec(model.removesuffix("_dct"), overrides=options)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (logged,) = trainer.test(codec, DataLoader(items, batch_size=None), verbose=False)
    means = mean_of_rows([measured.row for measured in evaluate(codec, items)])
    assert logged.keys() == {f"test/{name}" for name in means}
    for name, mean in means.items():
        if name not in TIMES:
            assert logged[f"test/{name}"] == pytest.approx(mean, rel=1e-6), name


def test_a_codec_is_no_network_unless_it_is_learned() -> None:
    assert not isinstance(Jpeg(50), nn.Module)
    with pytest.raises(TypeError, match="abstract"):
        ImageCodec()


def test_what_is_measured_is_what_the_file_decodes_to(items: list[NamedImage], tmp_path: Path) -> None:
    codec = Jpeg(30)
    measured = measure(codec, items[1])
    assert measured.data == codec.encode(items[1].image)
    assert torch.equal(measured.decoded, codec.decode(measured.data))
    assert (measured.row["name"], measured.row["bytes"]) == ("1.png", len(measured.data))
    keep_files(tmp_path, measured, codec.suffix)
    assert (tmp_path / "files/1.png.jpg").read_bytes() == measured.data
    assert torch.equal(read_image(tmp_path / "decoded/1.png"), measured.decoded)


def test_images_are_measured_one_by_one_as_they_are_asked_for(items: list[NamedImage]) -> None:
    taken = []
    rows = evaluate(Png(), (taken.append(item.name) or item for item in items))
    assert taken == []
    assert next(rows).row["name"] == "0.png"
    assert taken == ["0.png"]
    assert [measured.row["name"] for measured in rows] == ["1.png", "2.png"]


def test_an_image_that_does_not_fit_into_memory_is_left_out_where_that_can_be_told(
    items: list[NamedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(codec: ImageCodec, item: NamedImage, *options: object) -> measuring.Measured:
        if item.name == "1.png":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return measure(codec, item, *options)

    monkeypatch.setattr(measuring, "measure", scarce)
    skipped = {}
    assert [measured.row["name"] for measured in evaluate(Png(), items, None, skipped)] == ["0.png", "2.png"]
    assert skipped == {"1.png": "it does not fit into memory"}
    with pytest.raises(RuntimeError, match="can't allocate"):
        list(evaluate(Png(), items))
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


@pytest.mark.parametrize("target", [0.4, 1.0])
def test_at_a_target_the_best_quality_below_it_is_measured(photograph: Tensor, target: float) -> None:
    codec = Jpeg(50)
    measured = measure(codec, NamedImage("a", photograph), target_bpp=target)
    quality = measured.row["quality"]
    better = 8 * len(Jpeg(quality + 1).encode(photograph)) / photograph[0].numel()
    assert measured.row["bpp"] <= target < better
    assert measured.data == Jpeg(quality).encode(photograph)
    assert codec.quality == 50


def test_a_learned_codec_at_a_target_is_measured_with_the_estimate_of_that_quality(photograph: Tensor) -> None:
    codec = load_pretrained("diffusion_wavelet")
    image = photograph[:, :96, :96]
    row = measure(codec, NamedImage("a", image), target_bpp=2.0).row
    codec.set_quality(row["quality"])
    alone = measure(codec, NamedImage("a", image)).row
    same = ("bytes", "psnr", "estimated_bpp")
    assert [row[key] for key in same] == [alone[key] for key in same]


def test_an_image_without_a_file_as_small_is_left_out_and_told(photograph: Tensor) -> None:
    noise = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    items = [NamedImage("noise", noise), NamedImage("photograph", photograph)]
    skipped: dict[str, str] = {}
    rows = [measured.row["name"] for measured in evaluate(Jpeg(50), items, None, skipped, target_bpp=0.5)]
    assert rows == ["photograph"]
    assert re.fullmatch(r"\d\.\d+ bpp even at quality 1: 0\.5 bpp is out of reach", skipped["noise"])
    with pytest.raises(EncodeError):
        list(evaluate(Jpeg(50), items, target_bpp=0.5))
