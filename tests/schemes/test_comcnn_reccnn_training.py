"""ComCNN and RecCNN in training: bits that are those of the file, and what each way of training teaches."""

import math

import numpy as np
import pytest
import torch
from comcnn_codecs import CODECS, crop, lively, small
from conftest import images, terms
from torch import Tensor, nn

from codec import bitstream
from codec.baselines import Jpeg
from codec.losses import RateDistortionLoss
from codec.networks import DCTRate
from codec.schemes import comcnn_reccnn
from codec.schemes.comcnn_reccnn import ComRec

# ---- bits


def test_bits_are_those_of_the_file_in_training_and_in_evaluation(photograph: Tensor) -> None:
    image = crop(photograph)
    for options in ((), ("model.train_quality=[40,40]",)):
        codec = small("model.scale=1", *options)
        sections = bitstream.unpack(codec.encode(image))[1]
        assert codec.estimated_bits(image) == 8 * sum(map(len, sections))
        with torch.no_grad():
            bits = codec.train()(codec.prepared(image)).total_bits
        assert bits.tolist() == [8 * sum(map(len, sections))]


def test_the_gradient_of_the_bits_makes_smaller_files(photographs: list[Tensor]) -> None:
    """Descent on the pixels themselves, as ComCNN would have it."""
    rate, standard = DCTRate(), Jpeg(40)
    for channels in (1, 3):
        image = crop(photographs[1])[:channels].contiguous()
        x = (image[None] / 255).requires_grad_()
        step = torch.zeros(1)
        before = rate(x, step)
        before.sum().backward()
        smaller = (x - 0.02 * x.grad / x.grad.abs().max()).detach()
        assert rate(smaller, step) < before
        coded = standard.encode((smaller[0].clamp(0, 1) * 255).round().byte())
        assert len(coded) < len(standard.encode(image))


def test_the_estimate_of_the_rate_falls_with_the_step_and_is_nothing_for_nothing() -> None:
    rate, x = DCTRate(), images(1, 3, 19, 30)
    bits = [float(rate(x, torch.tensor([step]))) for step in (-1.0, 0.0, 1.0, 3.0)]
    assert bits == sorted(bits, reverse=True)
    for level in (0.1, 0.5):
        assert float(rate(torch.full((1, 1, 8, 8), level), torch.zeros(1))) < 1e-3


# ---- training


def test_bits_that_count_for_nothing_teach_nothing() -> None:
    """With rate_weight 0 the loss adds the bits all the same, to fit the priors of other schemes."""
    codec, x = lively(small()).train(), images(1, 3, 32, 32)
    for rate_weight in (0.0, 0.01):
        codec.prepare_training(RateDistortionLoss(rate_weight=rate_weight), torch.optim.Adam)
        assert codec(x).total_bits.requires_grad is (rate_weight > 0)


def gradients(codec: ComRec, x: Tensor, loss: RateDistortionLoss) -> tuple[set[str], set[str]]:
    """Which network's parameters a step reaches: of those that have a gradient, and of those whose is not zero."""
    codec.zero_grad()
    terms(loss, codec, x).loss.backward()
    reached = {name: p.grad for name, p in codec.named_parameters() if p.grad is not None}
    return {name.split(".")[0] for name in reached}, {name.split(".")[0] for name, g in reached.items() if g.any()}


def test_straight_through_teaches_both_networks_in_every_step() -> None:
    codec = lively(small("model.gradient=straight_through")).train()
    for rate_weight in (0.0, 0.01):
        loss = RateDistortionLoss(rate_weight=rate_weight)
        assert gradients(codec, images(2, 3, 32, 32), loss) == ({"com", "rec"}, {"com", "rec"})


@pytest.mark.parametrize("rate_weight", [0.0, 0.01])
def test_alternation_teaches_one_network_in_a_step_and_leaves_the_other_as_it_is(
    rate_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, x = lively(small("model.gradient=alternate")).train(), images(2, 3, 32, 32)
    loss = RateDistortionLoss(rate_weight=rate_weight)
    optimizer = torch.optim.Adam(codec.parameters(), lr=1e-2)
    for step, (mine, other) in enumerate([("rec", "com"), ("com", "rec"), ("rec", "com")]):
        monkeypatch.setattr(ComRec, "global_step", step)
        before = {name: value.clone() for name, value in codec.state_dict().items()}
        assert gradients(codec, x, loss)[0] == {mine}
        optimizer.step()
        changed = {
            name.split(".")[0] for name, value in codec.state_dict().items() if not value.equal(before[name])
        }
        assert changed == {mine}, f"{other} is fixed, its BatchNorm statistics too"
        assert all(module.training for module in codec.rec.modules())


@pytest.mark.parametrize("gradient", ["straight_through", "alternate"])
def test_comcnn_waits_until_its_step(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = lively(small(f"model.gradient={gradient}", "model.com_after=3")).train()
    x, loss = images(2, 3, 32, 32), RateDistortionLoss(rate_weight=0.01)
    taught = []
    for step in range(4):
        monkeypatch.setattr(ComRec, "global_step", step)
        taught.append("com" in gradients(codec, x, loss)[1])
    assert taught == [False, False, False, True]


def test_comcnn_changes_no_pixel_by_more_than_its_reach() -> None:
    codec, x = small("model.scale=1"), images(1, 3, 16, 16)
    nn.init.constant_(codec.com.layers[-1].bias, 1e6)
    with torch.no_grad():
        assert float((codec.com(x, None) - x).max()) == pytest.approx(0.1)
        assert float(codec.com(x, None).max()) <= 1


def test_comcnns_turn_bypasses_the_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, x = lively(small("model.gradient=alternate", "model.blocks=residual")).train(), images(1, 3, 32, 32)
    monkeypatch.setattr(ComRec, "global_step", 1)
    with torch.no_grad():
        torch.testing.assert_close(codec(x).x_hat, codec.rec(codec.com(x, None), None))


@pytest.mark.parametrize("gradient", ["straight_through", "alternate"])
def test_reccnn_is_trained_on_what_the_real_codec_decodes(gradient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, seen = small(f"model.gradient={gradient}", "model.scale=1", "model.blocks=residual").train(), []
    monkeypatch.setattr(ComRec, "global_step", 0)
    codec.rec.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    x = images(2, 3, 32, 32)
    codec(x)
    standard = CODECS["jpeg"]
    decoded = [standard.decode(standard.encode((image * 255).round().byte())) for image in x]
    torch.testing.assert_close(seen[0], torch.stack(decoded) / 255)


@pytest.mark.parametrize("gradient", ["straight_through", "alternate"])
def test_training_lowers_the_loss_below_the_standard_codecs(
    gradient: str, photographs: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("model.scale=1", "model.blocks=residual", "model.width=16", "model.quality=10")
    codec = small(f"model.gradient={gradient}", *options, channels=1).train()
    loss = RateDistortionLoss(rate_weight=0.003)
    optimizer = torch.optim.Adam(codec.parameters(), lr=2e-3)
    crops = torch.stack([crop(image, 64, 64)[:1] for image in photographs]) / 255
    losses = []
    for step in range(60):
        monkeypatch.setattr(ComRec, "global_step", step)
        optimizer.zero_grad()
        terms(loss, codec, crops).loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(float(terms(loss, codec.eval(), crops).total))
        codec.train()
    assert np.mean(losses[-5:]) < 0.99 * losses[0]


@pytest.mark.parametrize("threads", [2, 7])
def test_worker_threads_give_what_one_gives(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, y = small("model.train_quality=[5,60]"), images(6, 3, 40, 56)
    qualities = [5, 60, 17, 33, 5, 48]
    monkeypatch.setattr(comcnn_reccnn, "THREADS", 1)
    alone = codec._coded(y, qualities)
    monkeypatch.setattr(comcnn_reccnn, "THREADS", threads)
    for one, other in zip(alone, codec._coded(y, qualities), strict=True):
        assert torch.equal(one, other)


def test_images_of_a_batch_do_not_meet() -> None:
    codec = lively(small("model.train_quality=[5,60]", "model.blocks=residual"))
    x = images(3, 3, 32, 32)
    with torch.no_grad():
        together = codec(x)
        for n in range(3):
            alone = codec(x[n : n + 1])
            torch.testing.assert_close(alone.x_hat, together.x_hat[n : n + 1])
            assert torch.equal(alone.total_bits, together.total_bits[n : n + 1])


def test_weights_on_qualities_change_gradients_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, x = lively(small("model.train_quality=[5,60]", "model.blocks=residual")).train(), images(2, 3, 32, 32)
    monkeypatch.setattr(codec, "_drawn_qualities", lambda count: [5, 50])
    output = codec(x)
    coded, real = codec._coded(codec.com(x, codec._condition(torch.tensor([math.log2(10), 0]))), [5, 50])
    torch.testing.assert_close(output.x_hat, codec.rec(coded, codec._condition(torch.tensor([math.log2(10), 0]))))
    assert torch.equal(output.total_bits, real)
