"""The lossless U-Net: exact for every image, coded tile by tile; what is not its own is refused."""

import copy
import dataclasses
import json
from typing import Any

import pytest
import torch
from conftest import ROOT, composed, crop, generator, make_codec, noise, run_python
from torch import Tensor
from unet_codecs import NONE, POLYPHASE, SMALL, lossless

from codec import bitstream
from codec.bitstream import BitstreamError
from codec.checkpoint import CheckpointError, load_codec, save_weights
from codec.data.image_file import NamedImage
from codec.entropy import EntropyBottleneck, FactorizedPrior
from codec.measure import measure
from codec.schemes.lossless_unet import LosslessUNet


@pytest.fixture(scope="module", params=[(NONE,), (NONE, "model.adaptation=mixing"), (POLYPHASE,)])
def codec(request: pytest.FixtureRequest) -> LosslessUNet:
    return lossless(*request.param)


# ---- exactness


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (15, 16), (17, 33), (64, 65)])
def test_every_size_comes_back(codec: LosslessUNet, photograph: Tensor, size: tuple[int, int]) -> None:
    image = crop(photograph, *size)
    assert torch.equal(codec.decode(codec.encode(image)), image)


@pytest.mark.parametrize("model", [NONE, POLYPHASE])
def test_noise_black_and_white_come_back(model: str) -> None:
    codec = lossless(model)
    for image in (
        torch.randint(0, 256, (3, 33, 41), generator=generator()),
        torch.zeros(3, 9, 9),
        torch.full((3, 9, 9), 255),
    ):
        image = image.to(torch.uint8)
        assert torch.equal(codec.decode(codec.encode(image)), image)


@pytest.mark.parametrize("model", [NONE, POLYPHASE])
def test_tiles_that_do_not_divide_the_image_come_back(model: str, photograph: Tensor) -> None:
    codec, image = lossless(model, "model.tile=32"), crop(photograph, 65, 97)
    assert torch.equal(codec.decode(codec.encode(image)), image)


@pytest.mark.parametrize("model", [NONE, POLYPHASE])
def test_a_greyscale_codec_is_exact(model: str, photograph: Tensor) -> None:
    codec, image = lossless(model, channels=1), crop(photograph, 33, 41)[:1]
    assert torch.equal(codec.decode(codec.encode(image)), image)


def test_a_grey_image_costs_a_colour_codec_one_channel(codec: LosslessUNet, photograph: Tensor) -> None:
    coloured = crop(photograph, 64, 64)
    grey = coloured[:1]
    data = codec.encode(grey)
    assert torch.equal(codec.decode(data), grey)
    channels = [bitstream.unpack(each)[1][1][3] for each in (data, codec.encode(coloured))]
    assert channels == [1, 3]
    assert len(data) < len(codec.encode(coloured))
    assert codec.estimated_bits(grey) == pytest.approx(8 * len(data), rel=0.1)


def test_files_do_not_depend_on_the_number_of_threads(codec: LosslessUNet, photograph: Tensor) -> None:
    image, before = crop(photograph, 130, 140), torch.get_num_threads()
    files = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            files.append(codec.encode(image))
            assert torch.equal(codec.decode(files[0]), image)
    finally:
        torch.set_num_threads(before)
    # The encoder's z may differ, which any decoder copes with; where it does not, nothing else does.
    sections = [bitstream.unpack(file)[1] for file in files]
    if sections[0][0] == sections[1][0]:
        assert files[0] == files[1]


def test_arithmetic_that_is_not_exact_is_noticed(photograph: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, image = lossless(POLYPHASE, "model.adaptation=none"), crop(photograph, 20, 20)
    good = codec.encode(image)
    decode = codec.mixture.decode

    def wrong(mixture, strings):
        plane = decode(mixture, strings)
        plane[0, 0, 0] = (plane[0, 0, 0] + 1) % 256
        return plane

    monkeypatch.setattr(codec.mixture, "decode", wrong)
    with pytest.raises(ValueError, match="does not give back what it wrote"):
        codec.encode(image)
    with pytest.raises(BitstreamError, match="checksum"):
        codec.decode(good)


def test_a_test_image_that_does_not_come_back_ends_the_test(
    photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, image = lossless(NONE), crop(photograph, 16, 16)
    assert measure(codec, NamedImage("a", image)).row["psnr"] == float("inf")
    monkeypatch.setattr(codec, "decode", lambda data: image ^ 1)
    with pytest.raises(RuntimeError, match="a: .*lossless"):
        measure(codec, NamedImage("a", image))


def test_another_implementation_of_convolution_decodes_the_same(codec: LosslessUNet, photograph: Tensor) -> None:
    image = crop(photograph, 70, 90)
    data = codec.encode(image)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(codec.decode(data), image)


@pytest.mark.parametrize("model", [NONE, POLYPHASE])
def test_a_deeper_or_shallower_one_is_exact(model: str, photograph: Tensor) -> None:
    shapes = [("model.depth=1", "model.tile=3"), ("model.depth=6", "model.tile=64"), ("model.gates=32",)]
    for shape in shapes:
        levels = ("model.levels=1",) if "model.depth=1" in shape else ()
        codec, image = lossless(model, *shape, *levels), crop(photograph, 7, 10)
        assert torch.equal(codec.decode(codec.encode(image)), image)


def test_gated_sums_are_exact_with_the_most_gates() -> None:
    predictor = lossless(NONE, "model.gates=32").base.eval()
    gates, differences = 3 * noise(1, 32, 40, 40), 200 * noise(1, 32, 40, 40, seed=2)
    order = torch.randperm(32, generator=generator())
    assert torch.equal(
        predictor._gated(gates, differences), predictor._gated(gates[:, order], differences[:, order])
    )


# ---- files and arguments


def test_the_contexts_are_one_module_whose_defaults_are_the_paper_s() -> None:
    assert composed("train", [f"model={NONE}"]).model.context == "none"
    codec = make_codec(NONE, overrides=("model.context=polyphase", "model.shortcut=none", *SMALL))
    assert type(codec) is type(make_codec(POLYPHASE, overrides=SMALL))
    assert LosslessUNet(codec_bottleneck).levels == 0


def codec_bottleneck(channels: list[int], **options: Any) -> EntropyBottleneck:
    return EntropyBottleneck(channels, prior=FactorizedPrior, **options)


def test_a_file_of_another_adaptation_is_refused(photograph: Tensor) -> None:
    codec = lossless(POLYPHASE)
    data = codec.encode(crop(photograph, 20, 20))
    other = lossless(POLYPHASE, "model.adaptation=none")
    other.load_state_dict(codec.state_dict())
    with pytest.raises(BitstreamError, match="levels and adaptation 132, .* this codec has 512, 4 and"):
        other.decode(data)


def test_a_file_of_other_tiles_is_refused(codec: LosslessUNet, photograph: Tensor) -> None:
    data = codec.encode(crop(photograph, 20, 20))
    other = copy.deepcopy(codec)
    other.tile = 64
    with pytest.raises(BitstreamError, match="tiles of 512 pixels, .* this codec has 64"):
        other.decode(data)


@pytest.mark.parametrize("section", [0, 1])
def test_sections_that_go_on_are_refused(codec: LosslessUNet, photograph: Tensor, section: int) -> None:
    header, sections = bitstream.unpack(codec.encode(crop(photograph, 20, 20)))
    sections[section] += b"\0"
    with pytest.raises(BitstreamError, match="goes on"):
        codec.decode(bitstream.pack(header, sections))


def test_a_section_too_short_for_the_image_is_refused_before_anything_is_decoded(
    codec: LosslessUNet, photograph: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, sections = bitstream.unpack(codec.encode(crop(photograph, 20, 20)))
    large = dataclasses.replace(header, height=8000, width=8000)
    monkeypatch.setattr(codec, "_visit", None)
    with pytest.raises(BitstreamError, match="too short a section for 8000×8000 pixels"):
        codec.decode(bitstream.pack(large, sections))


def test_a_header_of_one_channel_before_three_that_are_coded_is_refused(
    codec: LosslessUNet, photograph: Tensor
) -> None:
    header, sections = bitstream.unpack(codec.encode(crop(photograph, 20, 20)))
    with pytest.raises(BitstreamError, match="claims 1 channel, but 3 are coded"):
        codec.decode(bitstream.pack(dataclasses.replace(header, channels=1), sections))


def test_of_a_colour_image_without_colour_one_channel_is_coded(codec: LosslessUNet, photograph: Tensor) -> None:
    grey = crop(photograph, 20, 20)[:1]
    data = codec.encode(grey.expand(3, -1, -1))
    assert torch.equal(codec.decode(data), grey.expand(3, -1, -1))
    header, sections = bitstream.unpack(data)
    assert bitstream.pack(dataclasses.replace(header, channels=1), sections) == codec.encode(grey)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_checkpoint_with_unusable_weights_is_refused(codec: LosslessUNet, value: float, tmp_path) -> None:
    for name in ("base.heads.0.bias", "base.linear.0.weight", "expand.weight", "ups.0.bias"):
        forged = copy.deepcopy(codec)
        forged.get_parameter(name).data.view(-1)[0] = value
        save_weights(forged, tmp_path / "forged.safetensors")
        with pytest.raises(CheckpointError, match="not usable"):
            load_codec(tmp_path / "forged.safetensors")


def test_a_checkpoint_with_other_tables_is_refused(codec: LosslessUNet, tmp_path) -> None:
    forged = copy.deepcopy(codec)
    forged.mixture.rises[3, 5] += 100
    save_weights(forged, tmp_path / "forged.safetensors")
    with pytest.raises(CheckpointError, match="tables are not the logistic"):
        load_codec(tmp_path / "forged.safetensors")


@pytest.mark.parametrize("section", [0, 1])
def test_sections_that_were_tampered_with_are_refused_unless_it_changes_no_symbol(
    codec: LosslessUNet, photograph: Tensor, section: int
) -> None:
    image, same = crop(photograph, 40, 40), 0
    header, sections = bitstream.unpack(codec.encode(image))
    for position in range(0, len(sections[section]), max(1, len(sections[section]) // 25)):
        changed = bytearray(sections[section])
        changed[position] ^= 0x55
        forged = [bytes(changed) if n == section else part for n, part in enumerate(sections)]
        try:
            assert torch.equal(codec.decode(bitstream.pack(header, forged)), image)
            same += 1
        except BitstreamError:
            pass
        forged[section] = sections[section][:position]
        with pytest.raises(BitstreamError):
            codec.decode(bitstream.pack(header, forged))
    assert same <= 1  # the last bits of a string may be any


def test_an_evaluated_run_reports_bits_per_subpixel(tmp_path) -> None:
    small = (
        "data=samples",
        "data.crop_size=32",
        "data.crops_per_image=2",
        "data.eval_crop=40",
        "data.num_workers=0",
    )
    run_python(
        ROOT / "train.py",
        f"model={POLYPHASE}",
        "loss=rate",
        "epochs=1",
        "logger=csv",
        "name=t",
        *small,
        *SMALL,
        cwd=tmp_path,
    )
    (run,) = (tmp_path / "runs").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert results["psnr"] == "inf"
    assert results["bpsp"] == pytest.approx(results["bpp"] / 3)
    assert results["estimated_bpp"] == pytest.approx(results["bpp"], rel=0.2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.context=raster", "context=raster: allowed are none, polyphase"),
        ("model.adaptation=linear", "adaptation=linear: allowed are none, mixing"),
        ("model.levels=9", "levels=9"),
        ("model.depth=0", "depth=0"),
        ("model.features=6", "features=6: allowed are multiples of 4"),
        ("model.components=0", "components=0"),
        ("model.gates=-1", "gates=-1"),
        ("model.width=4", "width=4: allowed are the integers from 5"),
        ("model.tile=2", "tile=2"),
        ("model.shortcut=dct", "shortcut=dct: allowed with context=none only"),
        ("model.shortcut_step=0", "shortcut_step=0"),
    ],
)
def test_a_wrong_argument_is_named(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        make_codec(POLYPHASE, overrides=(override,))
