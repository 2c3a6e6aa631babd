"""What a learned codec logs of its rate, and what it leaves out of the loss."""

import pytest
import torch
from conftest import images, make_codec
from lightning import Trainer
from torch.utils.data import DataLoader

from codec.data.image_file import NamedImage
from codec.learned_codec import LearnedCodec
from codec.losses import RateDistortionLoss
from codec.rate_distortion_module import Reconstruction

SMALL = {
    "conv_baseline": ("model.widths=[8,8]", "model.latent_channels=4"),
    "conv_enhanced": ("model.widths=[8,8,8]", "model.latent_channels=4", "model.skip_channels=[1,2]"),
}


def logged(model: str) -> dict[str, float]:
    """All that is logged of one training step and two validation images."""
    codec = make_codec(model, overrides=SMALL[model]).train()
    codec.prepare_training(RateDistortionLoss(rate_weight=0.01), torch.optim.Adam)
    settings = ("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary")
    trainer = Trainer(accelerator="cpu", max_epochs=1, log_every_n_steps=1, **dict.fromkeys(settings, False))
    batch = (255 * images(2, 3, 32, 32)).byte()
    val = [NamedImage(str(n), (255 * images(3, *size)).byte()) for n, size in enumerate([(16, 16), (21, 35)])]
    trainer.fit(codec, DataLoader(batch, batch_size=2), DataLoader(val, batch_size=None))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_the_rate_of_every_part_is_logged_where_there_are_several() -> None:
    seen = logged("conv_enhanced")
    for stage in ("train", "val"):
        parts = [seen[f"{stage}/bpp_{part}"] for part in ("y", "y_1", "y_2")]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(seen[f"{stage}/bpp"])
    assert not [name for name in logged("conv_baseline") if "bpp_" in name]


def test_the_bits_of_a_reconstruction_are_summed_for_every_image() -> None:
    output = Reconstruction(
        torch.zeros(2, 3, 4, 8), {"y": torch.tensor([10.0, 20.0]), "z": torch.tensor([1.0, 3.0])}
    )
    assert output.total_bits.tolist() == [11, 23]
    assert output.bpp_by_part() == {"bpp_y": 15 / 32, "bpp_z": 2 / 32}


def test_a_scheme_without_its_parts_codes_nothing() -> None:
    scheme = LearnedCodec(3)
    for part, given in (("g_a", images(1, 3, 8, 8)), ("g_s", []), ("latent_sizes", (8, 8))):
        with pytest.raises(NotImplementedError):
            getattr(scheme, part)(given)


def test_a_file_is_coded_by_tables_of_the_weights_as_they_are() -> None:
    """However they came to be so: weight averaging swaps them behind autograd's counters."""
    # Of a codec in training, what is kept is forgotten before every file.
    codec = make_codec("conv_baseline", overrides=SMALL["conv_baseline"]).eval()
    image = (255 * images(3, 32, 32)).byte()
    codec.encode(image)
    for parameter in codec.bottleneck.prior.parameters():
        parameter.data.mul_(1.5)
    data = codec.encode(image)
    other = make_codec("conv_baseline", overrides=SMALL["conv_baseline"])
    other.load_state_dict(codec.state_dict())
    assert torch.equal(other.decode(data), codec.decode(data))
    assert other.encode(image) == data
