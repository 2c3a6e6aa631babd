"""RecCNN without ComCNN, behind a codec with options of its own, and RecUNet in its place."""

import numpy as np
import pytest
import torch
from comcnn_codecs import CODECS, crop, small
from conftest import composed, images, terms
from torch import Tensor, nn

from codec import baselines, bitstream
from codec.baselines import Avif, Jpeg
from codec.data.codings import CodedCrop
from codec.data.image_formats import NO_AVIF
from codec.errors import MissingPackageError
from codec.losses import RateDistortionLoss
from codec.networks import RecUNet
from codec.schemes.comcnn_reccnn import ComRec
from codec.standards import STANDARDS
from codec.training.config import Builder, ConfigError

ALONE = ("model.com=false", "model.scale=1", "model.blocks=unet")
RANGE = "model.train_quality=[5,60]"


def alone(*overrides: str, channels: int = 3) -> ComRec:
    return small(*ALONE, *overrides, channels=channels)


def coded(*qualities: int) -> CodedCrop:
    """A batch as data loaders give it, of noise."""
    image = (255 * images(len(qualities), 3, 32, 32)).byte()
    decoded = torch.stack([Jpeg(q).decode(Jpeg(q).encode(x)) for q, x in zip(qualities, image, strict=True)])
    bpp, mse = torch.linspace(1, 2, len(qualities)), 10.0 ** -torch.arange(2.0, 2 + len(qualities))
    return CodedCrop(image, decoded, torch.tensor(qualities), bpp, mse)


# ---- files


@pytest.mark.parametrize("name", STANDARDS)
def test_it_starts_at_the_codec_and_its_section_is_the_codecs_file_of_the_image(
    name: str, photograph: Tensor
) -> None:
    codec, image = alone(f"model.codec={name}"), crop(photograph)
    data = codec.encode(image)
    stream = CODECS[name].encode(image)
    assert bitstream.unpack(data)[1] == [stream]
    assert torch.equal(codec.decode(data), CODECS[name].decode(stream))
    trained_out_of_zero(codec.rec)
    assert not torch.equal(codec.decode(codec.encode(image)), CODECS[name].decode(stream))


def test_the_codecs_options_reach_its_files(photograph: Tensor) -> None:
    image = crop(photograph)
    for name, options, standard in (
        ("jpeg", '{subsampling: "4:4:4"}', Jpeg(40, subsampling="4:4:4")),
        ("avif", '{speed: 9, subsampling: "4:4:4", tune: psnr}', Avif(40, 9, "4:4:4", "psnr")),
    ):
        codec = alone(f"model.codec={name}", f"model.codec_options={options}")
        for quality in (40, 20):
            codec.set_quality(quality)
            standard.set_quality(quality)
            assert bitstream.unpack(codec.encode(image))[1] == [standard.encode(image)]


@pytest.mark.parametrize("name", STANDARDS)
def test_numbers_of_the_quantiser_rise_as_quality_falls(name: str, photographs: list[Tensor]) -> None:
    standard = STANDARDS[name]
    numbers = sorted((10, 30, 60, 80), key=standard.log_step)
    image = crop(photographs[1], 128, 128)
    errors = []
    for number in numbers:
        codec = standard.make(number)
        errors.append(float((codec.decode(codec.encode(image)).float() - image).square().mean()))
    assert errors == sorted(set(errors))


# ---- training


def test_pairs_give_what_reccnn_makes_of_the_decoded_ones_and_the_bits_of_their_files() -> None:
    codec, batch = alone(RANGE).train(), coded(5, 40)
    trained_out_of_zero(codec.rec)
    x, output = codec.reconstruct(batch)
    log_steps = torch.tensor([STANDARDS["jpeg"].log_step(quality) for quality in (5, 40)])
    torch.testing.assert_close(x, batch.image / 255)
    torch.testing.assert_close(output.x_hat, codec.rec(batch.decoded / 255, log_steps / 4))
    torch.testing.assert_close(output.total_bits, batch.bpp * 32 * 32)


def test_pairs_count_relative_to_the_error_of_their_images() -> None:
    codec, batch = alone(RANGE).train(), coded(5, 40)
    given = []
    codec.rec.register_full_backward_hook(lambda module, into, out: given.append(out[0]))
    _, output = codec.reconstruct(batch)
    output.x_hat.sum().backward()
    sums = given[0].mean((1, 2, 3))
    assert float(sums[1] / sums[0]) == pytest.approx(10)
    assert float(sums.mean()) == pytest.approx(1)


def test_images_are_coded_in_the_step_where_none_are_given_coded() -> None:
    codec, x = alone(RANGE).train(), (255 * images(2, 3, 32, 32)).byte()
    padded, output = codec.reconstruct(x)
    assert torch.equal(padded, x / 255)
    assert output.total_bits.min() > 0
    output.x_hat.sum().backward()
    assert codec.rec.tail.weight.grad.any()


def test_qualities_met_are_those_of_the_range_evenly_by_octaves() -> None:
    coding = alone(RANGE).training_coding()
    steps = np.array([STANDARDS["jpeg"].log_step(quality) for quality in coding.qualities])
    assert set(coding.qualities) == set(range(5, 61))
    assert np.abs(steps - np.linspace(steps[0], steps[-1], len(steps))).max() < 0.2
    assert coding.make(20).quality == 20
    assert small().training_coding() is None, "ComCNN's images are known in the step"


def test_training_takes_it_below_the_codecs_error(photographs: list[Tensor]) -> None:
    codec = alone("model.quality=10", "model.width=16").train()
    optimizer, loss = torch.optim.Adam(codec.parameters(), lr=3e-3), RateDistortionLoss()
    crops = torch.stack([crop(image, 64, 64) for image in photographs]) / 255
    errors = []
    for _ in range(50):
        optimizer.zero_grad()
        value = terms(loss, codec, crops)
        value.loss.backward()
        optimizer.step()
        errors.append(value.distortion.item())
    assert np.mean(errors[-5:]) < 0.95 * errors[0]


# ---- RecUNet


@pytest.mark.parametrize("scale", [1, 2])
def test_recunet_takes_any_size_and_images_of_a_batch_do_not_meet(scale: int) -> None:
    net = trained_out_of_zero(RecUNet(3, 12, scale))
    condition = torch.tensor([-0.7, 0.9])
    for height, width in ((1, 1), (3, 17), (16, 8)):
        y_hat = images(2, 3, height, width)
        together = net(y_hat, condition)
        assert together.shape == (2, 3, scale * height, scale * width)
        torch.testing.assert_close(net(y_hat[1:], condition[1:]), together[1:])


def test_recunet_does_more_where_the_step_is_coarse() -> None:
    net, y_hat = trained_out_of_zero(RecUNet(1, 12, 1)), images(1, 1, 32, 32)
    changes = [float((net(y_hat, torch.tensor([told])) - y_hat).std()) for told in (-1.0, 0.0, 1.0)]
    assert changes == sorted(changes)
    assert changes[2] > 3 * changes[0] > 0
    torch.testing.assert_close(net(y_hat, None), net(y_hat, torch.zeros(1)))


def trained_out_of_zero(net: RecUNet) -> RecUNet:
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return net.requires_grad_(False)


# ---- what is refused


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.com=1"], "model.com=1: allowed are true and false"),
        (
            ["model.com=false"],
            "model.scale=2: allowed is 1, with com=false, which leaves the image as it is",
        ),
        (
            ["model.com=false", "model.scale=1", "model.gradient=alternate"],
            "model.gradient=alternate: com=false leaves one network: allowed is straight_through",
        ),
        (
            ["model.codec_options={speed: 4}"],
            "codec_options={'speed': 4}: allowed are null and values of subsampling, progressive",
        ),
        (
            ["model.codec=webp", "model.codec_options={speed: 4}"],
            "codec_options={'speed': 4}: allowed are null, of this codec",
        ),
        (
            ["model.codec_options=4"],
            "model.codec_options=4: allowed are null and values of subsampling, progressive",
        ),
        (
            ["model.codec=avif", "model.codec_options={speed: 11}"],
            "model.codec_options.speed=11: allowed are the integers 0 to 10",
        ),
    ],
)
def test_a_wrong_argument_is_one_line_that_says_what_is_allowed(overrides: list[str], line: str) -> None:
    config = composed("train", ["model=comcnn_reccnn", *overrides])
    with pytest.raises(ConfigError) as raised, Builder(config) as build:
        build.codec("model")
    assert str(raised.value).endswith(line)


def test_a_pillow_without_avif_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines.features, "check", lambda feature: False)
    with pytest.raises(MissingPackageError) as raised:
        alone("model.codec=avif")
    assert str(raised.value) == NO_AVIF
