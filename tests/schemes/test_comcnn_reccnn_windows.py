"""ComCNN and RecCNN see large images in windows: files and pixels are those of the whole."""

import pytest
import torch
from comcnn_codecs import lively, small
from conftest import images
from torch import Tensor

from codec.errors import ArgumentError
from codec.schemes.comcnn_reccnn import ComRec
from codec.windows import Crop

pytestmark = pytest.mark.usefixtures("one_thread")

# Every kind of network, and windows just large enough to be cut.
KINDS = {
    "half size": (64, ()),
    "pairs": (64, ("model.scale=1", "model.blocks=residual")),
    "pooled": (96, ("model.scale=1", "model.reduction=max_pooling")),
    "unshuffled": (96, ("model.scale=2", "model.reduction=unshuffle", "model.train_quality=[20,60]")),
    "U-Net": (256, ("model.scale=1", "model.blocks=unet", "model.train_quality=[20,60]")),
}


def make(name: str) -> ComRec:
    window, overrides = KINDS[name]
    codec = lively(small(*overrides))
    codec.window = window
    return codec


@pytest.fixture(scope="module")
def picture(photograph: Tensor) -> Tensor:
    """A photograph with noise below and beside it, of odd sides."""
    image = (255 * images(3, 421, 611)).byte()
    image[:, : photograph.shape[1], : photograph.shape[2]] = photograph[:, :421, :611]
    return image


@pytest.mark.parametrize("name", KINDS)
def test_a_file_and_its_image_are_those_of_the_whole(name: str, picture: Tensor) -> None:
    codec = make(name)
    size = codec.padded(421, 611)
    for reach in (codec.analysis_reach, codec.synthesis_reach):
        assert len(codec.tiles(Crop(0, 0, 611, 421).window(421, 611), size, reach)) > 3
    data = codec.encode(picture)
    decoded = codec.decode(data)
    part = codec.decode(data, Crop(300, 217, 31, 130))
    codec.window = 1 << 20
    assert data == codec.encode(picture)
    whole = codec.decode(data)
    assert int((decoded.int() - whole.int()).abs().max()) <= 1
    assert int((part.int() - whole[:, 217:347, 300:331].int()).abs().max()) <= 1


def test_a_crop_draws_no_more_than_lies_around_it(picture: Tensor) -> None:
    codec = make("half size")
    data = codec.encode(picture)
    drawn = []
    codec.rec.tail.register_forward_hook(lambda module, told, x_hat: drawn.append(x_hat[0, 0].numel()))
    codec.decode(data, Crop(100, 100, 40, 40))
    assert sum(drawn) < picture[0].numel() / 4


def test_a_cut_file_cannot_be_shown(picture: Tensor) -> None:
    codec = make("half size")
    data = codec.encode(picture)
    with pytest.raises(ArgumentError, match="a cut file of this codec cannot be shown in part"):
        codec.decode(data[:-20], partial=True)
    assert torch.equal(codec.decode(data, partial=True), codec.decode(data))
