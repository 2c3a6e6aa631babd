"""Several images encoded together: their files are those of each by itself."""

import copy

import pytest
import torch
from conftest import LEARNED, lively_codec, make_codec
from torch import Tensor
from traces import trace_of

from codec.bitstream import metadata_of
from codec.learned_codec import LearnedCodec
from codec.metadata import Metadata
from codec.metrics import psnr

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=LEARNED)
def learned(request: pytest.FixtureRequest) -> LearnedCodec:
    return lively_codec(request.param)


@pytest.fixture(scope="module")
def batch(photograph: Tensor) -> list[Tensor]:
    """Four of one size, one of them grey, and one of another among them."""
    equal = [photograph[:, top : top + 40, 60:131] for top in (0, 70, 140, 210)]
    return [*equal[:2], photograph[:, :33, :64], equal[2], equal[3][:1]]


def test_files_are_those_of_each_image(learned: LearnedCodec, batch: list[Tensor]) -> None:
    kept = [Metadata(exif=bytes([n])) for n in range(len(batch))]
    files = learned.encode_batch(batch, kept)
    assert [metadata_of(data) for data in files] == kept
    assert files == [learned.encode(image, own) for image, own in zip(batch, kept, strict=True)]
    assert learned.encode_batch(batch[:2]) == list(map(learned.encode, batch[:2]))


def test_equal_sizes_are_analysed_at_once(batch: list[Tensor]) -> None:
    codec, seen = make_codec("conv_enhanced"), []
    codec.project["3"].register_forward_pre_hook(lambda _, told: seen.append(len(told[0])))
    codec.encode_batch(batch)
    assert sorted(seen) == [1, 1, 3]
    assert list(codec.together(batch)) == [[0, 1, 3], [2], [4]]
    assert codec.encode_batch([]) == []


def test_progress_is_of_all_images(batch: list[Tensor]) -> None:
    codec, shares = make_codec("conv_baseline"), []
    codec.progress = shares.append
    codec.encode_batch(batch)
    assert shares == sorted(shares)
    for n in range(1, len(batch) + 1):
        assert min(abs(share - n / len(batch)) for share in shares) < 1e-6


def test_no_more_is_analysed_at_once_than_memory_is_for() -> None:
    codec = make_codec("conv_baseline")
    megapixel, larger = torch.zeros(3, 1, 1).expand(3, 1024, 1024), torch.zeros(3, 1, 1).expand(3, 16, 1025)
    assert list(codec.together([megapixel] * 6)) == [[0, 1, 2, 3], [4, 5]]
    assert list(codec.together([larger] * 2)) == [[0], [1]]


def test_a_scheme_that_writes_in_its_own_way_says_that_it_takes_images_one_by_one(learned: LearnedCodec) -> None:
    assert learned.analyses_batches == (type(learned).write is LearnedCodec.write)


def test_one_that_is_no_image_is_refused_before_any_is_encoded(batch: list[Tensor]) -> None:
    codec, seen = make_codec("conv_baseline"), []
    codec.encoder.register_forward_pre_hook(lambda *_: seen.append(1))
    with pytest.raises(ValueError, match="expected an image"):
        codec.encode_batch([*batch, batch[0].float()])
    assert not seen


@pytest.mark.gpu
def test_files_of_a_gpu_s_batch_decode_as_each_image_s_own(learned: LearnedCodec, batch: list[Tensor]) -> None:
    """But for levels next to a tie, of which there are few."""
    learned.fingerprint()  # which makes the tables; the GPU would make others
    on_gpu = copy.deepcopy(learned).to("cuda")
    together, alone = on_gpu.encode_batch(batch), list(map(on_gpu.encode, batch))
    assert [trace_of(on_gpu, data) for data in together] == [trace_of(learned, data) for data in together]
    for data, own, image in zip(together, alone, batch, strict=True):
        assert psnr(learned.decode(data), image) == pytest.approx(psnr(learned.decode(own), image), abs=0.05)
