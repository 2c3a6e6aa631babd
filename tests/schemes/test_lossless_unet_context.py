"""What the lossless U-Net's distributions have seen, and training for their bits alone."""

import pytest
import torch
from conftest import ROOT, crop, generator, images, make_codec, run_python, terms
from torch import Tensor
from unet_codecs import NONE, POLYPHASE, SMALL, lossless

from codec import bitstream
from codec.entropy.trace import Pass, traced
from codec.losses import RateDistortionLoss
from codec.networks.samples import to_integers
from codec.schemes.lossless_unet import LosslessUNet

RATE = RateDistortionLoss(mse_weight=0.0, rate_weight=1.0)


@pytest.fixture(scope="module", params=[NONE, POLYPHASE])
def codec(request: pytest.FixtureRequest) -> LosslessUNet:
    return lossless(request.param)


def seen(codec: LosslessUNet, image: Tensor, y_hat: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """(means, pixels) of every plane of `image` `[1, C, H, W]`, in coding order."""
    with torch.no_grad():
        if y_hat is None:
            (y_hat,), _ = codec.bottleneck([codec.g_a(image)])
        return [(mixture.means.clone(), pixels.clone()) for mixture, pixels, _ in codec._visit(image, y_hat)]


# ---- what is known when


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 4), (64, 48)])
def test_every_pixel_is_coded_exactly_once(codec: LosslessUNet, size: tuple[int, int]) -> None:
    values = torch.randperm(3 * size[0] * size[1], generator=generator()).float().view(1, 3, *size) % 256
    coded = torch.cat([plane.flatten() for _, plane in seen(codec, values)])
    assert torch.equal(coded.sort().values, values.flatten().sort().values)


def test_no_distribution_depends_on_pixels_coded_later(photograph: Tensor) -> None:
    codec, image = lossless(POLYPHASE), crop(photograph, 32, 32)[None].float()
    with torch.no_grad():
        (y_hat,), _ = codec.bottleneck([codec.g_a(image)])
    before = seen(codec, image, y_hat)
    for n in range(0, len(before), 5):
        marked = mark(codec, image, y_hat, n)
        after = seen(codec, marked, y_hat)
        assert all(torch.equal(after[k][0], before[k][0]) for k in range(n + 1))
        changed = [k for k in range(n + 1, len(before)) if not torch.equal(after[k][0], before[k][0])]
        assert changed or n == len(before) - 1  # ... and those after it do see them


def mark(codec: LosslessUNet, image: Tensor, y_hat: Tensor, n: int) -> Tensor:
    """`image` with all pixels of its plane `n`, in coding order, inverted."""
    marked = image.clone()
    with torch.no_grad():
        for count, (_, pixels, _) in enumerate(codec._visit(marked, y_hat)):
            if count == n:
                pixels.copy_(255 - pixels)
    return marked


def test_without_context_a_pixel_depends_on_z_and_the_channels_before_it(photograph: Tensor) -> None:
    codec, image = lossless(NONE), crop(photograph, 32, 32)[None].float()
    with torch.no_grad():
        (y_hat,), _ = codec.bottleneck([codec.g_a(image)])
    (green, _), (red, _), (blue, _) = seen(codec, image, y_hat)
    other = image.clone()
    other[:, 0] = 255 - other[:, 0]
    (green_2, _), (red_2, _), (blue_2, _) = seen(codec, other, y_hat)
    assert torch.equal(green, green_2)
    assert torch.equal(red, red_2)
    assert not torch.equal(blue, blue_2)
    assert not torch.equal(green, seen(codec, image, torch.rand(y_hat.shape, generator=generator()) - 0.5)[0][0])


def test_pixels_of_one_tile_change_nothing_in_another(photograph: Tensor) -> None:
    codec, image = lossless(POLYPHASE, "model.tile=32", "model.adaptation=none"), crop(photograph, 64, 64)
    other = image.clone()
    other[:, :32, :32] = 255 - other[:, :32, :32]
    files = [bitstream.unpack(codec.encode(x))[1] for x in (image, other)]
    readers = [bitstream.StringReader(sections[1][8:]) for sections in files]
    strings = [
        [reader.next() for _ in range(4 * 13 * 3 * 2)] for reader in readers
    ]  # tiles, planes, channels, digits
    of_first = [n < len(strings[0]) // 2 and n // 2 % 2 == 0 for n in range(len(strings[0]))]  # two take turns
    changed = [one != other for one, other in zip(*strings, strict=True)]
    assert any(changed)
    assert not any(change for change, first in zip(changed, of_first, strict=True) if not first)


def test_a_trace_shows_the_planes_of_two_tiles_in_turns(photograph: Tensor) -> None:
    codec, image = lossless(POLYPHASE, "model.tile=32", "model.adaptation=none"), crop(photograph, 32, 56)
    shown: list[Pass] = []
    data = codec.encode(image)
    with traced(shown.append):
        assert torch.equal(codec.decode(data), image)
    sizes = [step.symbols for step in shown if step.part == "x"]
    assert len(sizes) == 2 * 13 * 3
    assert sizes[::2] == sizes[1::2]  # of two tiles 32×28
    assert sum(sizes) == image.numel()


def test_no_network_sees_more_than_a_tile(photograph: Tensor) -> None:
    codec = lossless(NONE, "model.tile=32")
    sizes = []
    codec.base.register_forward_hook(lambda module, arguments, output: sizes.append(arguments[0].shape[-2:]))
    codec.encode(crop(photograph, 70, 100))
    assert {side for size in sizes for side in size} == {23, 24, 25}


def test_the_parameters_do_not_depend_on_what_else_is_in_the_batch(codec: LosslessUNet, photograph: Tensor) -> None:
    batch = torch.stack([crop(photograph, 32, 48).float(), crop(photograph.flip(2), 32, 48).float()])
    with torch.no_grad():
        (y_hat,), _ = codec.bottleneck([codec.g_a(batch)])
    together = seen(codec, batch, y_hat)
    alone = seen(codec, batch[1:], y_hat[1:])
    assert all(torch.equal(means[1:], mine) for (means, _), (mine, _) in zip(together, alone, strict=True))


# ---- training


@pytest.mark.parametrize("model", [NONE, POLYPHASE])
def test_the_bits_teach_every_parameter(model: str, photograph: Tensor) -> None:
    codec = lossless(model).train()
    x = torch.stack([crop(photograph, 64, 64), crop(photograph.flip(2), 64, 64)]).float() / 255
    codec(x).total_bits.mean().backward()
    untaught = [name for name, p in codec.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert untaught == []


@pytest.mark.parametrize("model", [NONE, POLYPHASE])
def test_a_few_steps_lower_the_bits_of_the_file(model: str, photograph: Tensor) -> None:
    codec, image = make_codec(model, overrides=SMALL), crop(photograph, 96, 96)
    before = len(codec.encode(image))
    codec.train().prepare_training(RATE, lambda parameters: torch.optim.Adam(parameters, 2e-3), prior_lr_factor=10)
    optimizer = codec.configure_optimizers()["optimizer"]
    x = image[None].float() / 255
    for _ in range(40):
        optimizer.zero_grad()
        terms(RATE, codec, x).loss.backward()
        optimizer.step()
    assert len(codec.eval().encode(image)) < 0.98 * before


def test_the_reconstruction_is_the_image_and_the_loss_its_bits(codec: LosslessUNet) -> None:
    x = to_integers(images(2, 3, 32, 32)) / 255
    for training in (True, False):
        codec.train(training)
        found = terms(RATE, codec, x)
        assert found.distortion == 0
        assert found.loss == found.bpp > 0
    codec.eval()


def test_training_for_anything_but_the_rate_is_refused_before_data_is_read(tmp_path) -> None:
    done = run_python(
        ROOT / "train.py",
        "model=lossless_unet",
        "loss=mse",
        "data=bsd300",
        "data.train.root=.",
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "error: loss.rate_weight=0: a lossless codec trains for its rate alone: loss=rate" in done.stderr
