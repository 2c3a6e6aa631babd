"""Training images as a standard codec decodes them: whose files are kept, and what crops are cut from them."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import horizontal_flip

from codec.baselines import Jpeg
from codec.data.codings import ALIGNED, Coding, KeptCodings
from codec.data.dataset import Draw, ImageReader, TrainingCrops
from codec.data.module import ImageDataModule
from codec.data.samples import SamplesSource
from codec.errors import ArgumentError, ConfigError

QUALITIES = range(10, 90)


def kept(folder: Path, count: int = 4, **options) -> KeptCodings:
    return KeptCodings(Coding(partial(Jpeg, **options), QUALITIES), count, folder)


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_an_image_is_what_its_file_decodes_to(photograph: Tensor, tmp_path: Path) -> None:
    coded = kept(tmp_path).coded(photograph, np.random.default_rng(0))
    codec = Jpeg(coded.quality)
    data = codec.encode(photograph)
    assert [path.read_bytes() for path in files(tmp_path)] == [data]
    assert torch.equal(coded.image, photograph)
    assert torch.equal(coded.decoded, codec.decode(data))
    assert float(coded.bpp) == pytest.approx(8 * len(data) / (300 * 451))
    error = np.square((codec.decode(data).numpy() / 255.0) - photograph.numpy() / 255.0).mean()
    assert float(coded.mse) == pytest.approx(error, rel=1e-4)


def test_so_many_files_of_an_image_are_spread_evenly_over_the_qualities(
    photographs: list[Tensor], tmp_path: Path
) -> None:
    qualities = []
    for image in photographs:
        codings, random = kept(tmp_path, count=4), np.random.default_rng(0)
        drawn = sorted({codings.coded(image, random).quality for _ in range(40)})
        assert len(drawn) == 4
        assert [(quality - 10) // 20 for quality in drawn] == [0, 1, 2, 3]
        qualities.append(drawn)
    assert qualities[0] != qualities[-1], "each image has its own"
    assert len(files(tmp_path)) == 4 * len(photographs)


def test_what_is_coded_is_read_again(photograph: Tensor, tmp_path: Path) -> None:
    before = kept(tmp_path, count=1).coded(photograph, np.random.default_rng(0))
    again = kept(tmp_path, count=1).coded(photograph, np.random.default_rng(1))
    assert torch.equal(again.decoded, before.decoded)
    (path,) = files(tmp_path)
    written = path.stat().st_mtime_ns
    kept(tmp_path, count=1).coded(photograph, np.random.default_rng(0))
    assert path.stat().st_mtime_ns == written


def test_a_damaged_file_is_coded_anew(photograph: Tensor, tmp_path: Path) -> None:
    before = kept(tmp_path, count=1).coded(photograph, np.random.default_rng(0))
    (path,) = files(tmp_path)
    data = path.read_bytes()
    path.write_bytes(b"")
    again = kept(tmp_path, count=1).coded(photograph, np.random.default_rng(0))
    assert torch.equal(again.decoded, before.decoded)
    assert path.read_bytes() == data


def test_a_folder_that_cannot_be_written_to_is_named(photograph: Tensor, tmp_path: Path) -> None:
    (tmp_path / "codings").write_text("a file")
    with pytest.raises(ConfigError, match="^data.codings_folder=.*codings: cannot be written to"):
        kept(tmp_path / "codings", count=1).coded(photograph, np.random.default_rng(0))


def test_other_options_of_the_codec_have_other_files(photograph: Tensor, tmp_path: Path) -> None:
    for subsampling in ("4:2:0", "4:4:4"):
        kept(tmp_path, count=1, subsampling=subsampling).coded(photograph, np.random.default_rng(0))
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("flip", [False, True])
def test_crops_of_the_two_are_of_one_place_on_the_codecs_grid(
    flip: bool, photograph: Tensor, tmp_path: Path
) -> None:
    codings = kept(tmp_path, count=1)
    path = SamplesSource().images("test")[0]
    crops = TrainingCrops([path], ImageReader(3, None), 64, flip, False, 1.0, 0, None, codings)
    decoded = codings.coded(photograph, np.random.default_rng(0)).decoded
    places, flipped = set(), 0
    for position in range(12):
        crop = crops[Draw(0, position, 0)]
        assert crop.image.shape == crop.decoded.shape == (3, 64, 64)
        for pair in ((crop.image, crop.decoded), map(horizontal_flip, (crop.image, crop.decoded))):
            image, coded = pair
            for top in range(0, 300 - 63, ALIGNED):
                for left in range(0, 451 - 63, ALIGNED):
                    at = np.s_[:, top : top + 64, left : left + 64]
                    if torch.equal(image, photograph[at]):
                        assert torch.equal(coded, decoded[at])
                        places.add((position, top, left))
                        flipped += image is not crop.image
    assert len(places) == 12
    assert (flipped > 0) is flip


def module(folder: Path, **options) -> ImageDataModule:
    fixed = {"crop_size": 32, "batch_size": 5, "num_workers": 0, "codings_folder": str(folder)}
    return ImageDataModule(SamplesSource(), SamplesSource(), **fixed, **options)


def test_batches_hold_pairs(tmp_path: Path) -> None:
    data = module(tmp_path, codings=2)
    data.code_by(Coding(Jpeg, QUALITIES))
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    for batch in batches:
        assert batch.image.shape == batch.decoded.shape == (5, 3, 32, 32)
        assert batch.image.dtype == batch.decoded.dtype == torch.uint8
        assert batch.quality.dtype == torch.int64
        assert (batch.bpp.dtype, batch.mse.dtype, batch.mse.shape) == (torch.float32, torch.float32, (5,))


def test_codings_are_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^codings=2: this model takes images as they are:"):
        module(tmp_path, codings=2).code_by(None)
    for option in ({"shuffle_channels": True}, {"smallest_scale": 0.5}):
        with pytest.raises(ArgumentError, match=r"^codings=2: images are coded whole: data\.shuffle"):
            module(tmp_path, codings=2, **option).code_by(Coding(Jpeg, QUALITIES))
        module(tmp_path, **option).code_by(None)
    with pytest.raises(ArgumentError, match=r"^codings=0: allowed are the integers from 1$"):
        module(tmp_path, codings=0)
