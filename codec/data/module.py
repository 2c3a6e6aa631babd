"""ImageDataModule: training crops, validation images and test images, each from a source."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codec.checks import check_data
from codec.data.codings import Coding, KeptCodings
from codec.data.dataset import (
    EpochSampler,
    ImageReader,
    TrainingCrops,
    WholeImages,
    check_size,
    distributed_rank,
)
from codec.data.image_file import ImageFileError
from codec.data.several import named_images
from codec.data.source import ImageSource, SourceError, hold_out, map_in_threads
from codec.errors import ArgumentError, ConfigError, number_of

Result = TypeVar("Result")


class ImageDataModule(LightningDataModule):
    """Training batches are uint8 `[B, C, h, w]`; validation and test give whole images, each a NamedImage.

    - `train`, `test`, `val`: sources. `train` null: for evaluation only. `val` null: `val_fraction` of the training
      images, chosen by `split_seed`, is kept out of training; else the test images of that source.
    - `channels` 1 or 3; `resize` null, a shorter side, or [height, width], for all three (antialiased bicubic).
    - `crop_size`: square random crops in training; `eval_crop`: square centre crops elsewhere; null: whole images.
    - `smallest_scale`: images' sides are shrunk at random before the crop, to this part at the smallest; 1: never.
    - `flip`: left-right, at random. `shuffle_channels`: R, G and B in random order, where colours are few.
    - `crops_per_image`: how often each image occurs in an epoch.
    - `cache`: decode everything once, into memory. `limit`: only the first N images of each.
    - `codings`: for models that `code_by` tells of, code each training image so often, once; null: the model codes
      its crops itself. `codings_folder` keeps the files. Training batches are CodedCrops then.

    Raises ConfigError, all faults in one, if an argument is out of range.
    """

    def __init__(
        self,
        train: ImageSource | None,
        test: ImageSource | None,
        val: ImageSource | None = None,
        val_fraction: float = 0.1,
        channels: int = 3,
        resize: int | Sequence[int] | None = None,
        crop_size: int | None = 256,
        eval_crop: int | None = None,
        smallest_scale: float = 1.0,
        flip: bool = True,
        shuffle_channels: bool = False,
        crops_per_image: int = 1,
        batch_size: int = 16,
        num_workers: int = 2,
        cache: bool = False,
        limit: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
        codings: int | None = None,
        codings_folder: str = "codings",
    ) -> None:
        super().__init__()
        check_data(
            val_fraction=val_fraction,
            channels=channels,
            crop_size=crop_size,
            eval_crop=eval_crop,
            smallest_scale=smallest_scale,
            crops_per_image=crops_per_image,
            batch_size=batch_size,
            num_workers=num_workers,
            limit=limit,
            split_seed=split_seed,
            seed=seed,
            codings=codings,
        )
        self.sources = {"train": train, "val": val, "test": test}
        self.val_fraction = val_fraction
        self.reader = ImageReader(channels, check_size("resize", resize))
        self.crop_size = crop_size
        self.eval_crop = eval_crop
        self.smallest_scale = smallest_scale
        self.flip = flip
        self.shuffle_channels = shuffle_channels
        self.crops_per_image = crops_per_image
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache = cache
        self.limit = limit
        self.split_seed = split_seed
        self.seed = seed
        self.codings = codings
        self.codings_folder = Path(codings_folder)
        self.coding: Coding | None = None
        self.train_set: TrainingCrops | None = None
        self.val_set: WholeImages | None = None
        self.test_set: WholeImages | None = None

    def code_by(self, coding: Coding | None) -> None:
        """Says how the model's training images are coded, None: the model takes images. Raises ArgumentError."""
        self.coding = coding
        if self.codings is None:
            return
        if coding is None:
            allowed = "allowed is null, or, of comcnn_reccnn, model.com=false"
            raise ArgumentError("codings", self.codings, f"this model takes images as they are: {allowed}")
        if self.shuffle_channels or self.smallest_scale < 1:
            raise ArgumentError(
                "codings", self.codings, "images are coded whole: data.shuffle_channels=false data.smallest_scale=1"
            )

    def prepare_data(self) -> None:
        """Downloads and builds what the sources lack. Raises SourceError (the key at fault), DownloadError."""
        for role, source in self.sources.items():
            if source is not None:
                _named(role, source.prepare)

    def setup(self, stage: str | None = None) -> None:
        """Checks everything that training (`fit`, `validate`) or testing (`test`) needs; null: all there is.

        Raises ConfigError: no image, none readable, an image smaller than its crop, train and test overlap. Files
        that cannot be read are left out with one warning that lists them.
        """
        unreadable: list[ImageFileError] = []
        if self.train_set is None and (stage in ("fit", "validate") or (stage is None and self.sources["train"])):
            self._setup_fit(unreadable)
        if self.test_set is None and (stage in ("test", "predict") or (stage is None and self.sources["test"])):
            names = self._images("test", "test")
            self.test_set = self._whole_images("test", list(names)[: self.limit], names, unreadable)
        if unreadable:
            listing = "\n  ".join(map(str, unreadable))
            rank_zero_warn(f"left out, as unreadable: {number_of(len(unreadable), 'file')}\n  {listing}")
        self._check_overlap()

    def train_dataloader(self) -> DataLoader[Tensor]:
        self.setup("fit")
        sampler = EpochSampler(len(self.train_set.paths), self.crops_per_image, self.seed)
        return DataLoader(
            self.train_set,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=len(sampler) >= self.batch_size,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        """Of several processes each validates its own share; with fewer images than processes, each all of them."""
        self.setup("validate")
        rank, world_size = distributed_rank()
        indices = range(len(self.val_set))
        return self.whole_image_loader(self.val_set, indices[rank::world_size] or indices)

    def test_dataloader(self) -> DataLoader:
        """All test images, in every process."""
        self.setup("test")
        return self.whole_image_loader(self.test_set, range(len(self.test_set)))

    def whole_image_loader(self, images: Dataset, indices: Sequence[int]) -> DataLoader:
        """Those of `images`, in this order, one by one."""
        return DataLoader(images, batch_size=None, sampler=indices, num_workers=self.num_workers)

    def _setup_fit(self, unreadable: list[ImageFileError]) -> None:
        names = self._images("train", "train")
        # Headers only: a training set may be large. What else is wrong with a file is found when it is decoded.
        sizes = _readable("train", list(names), self.reader.size, unreadable)
        if self.sources["val"] is None:
            train_paths, val_paths = hold_out(
                {path: names[path] for path in sizes}, self.val_fraction, self.split_seed
            )
            if not train_paths or not val_paths:
                raise ConfigError(
                    "data.val_fraction",
                    self.val_fraction,
                    f"of {number_of(len(sizes), 'image')} it leaves {len(train_paths)} "
                    f"to train and {len(val_paths)} to validate on: each needs one: change it or set data.val",
                )
        else:
            names = self._images("val", "test")
            train_paths, val_paths = list(sizes), list(names)
        train_paths, val_paths = train_paths[: self.limit], val_paths[: self.limit]
        _check_crop("crop_size", self.crop_size, {path: sizes[path] for path in train_paths})
        shapes = {sizes[path] for path in train_paths}
        if self.crop_size is None and len(shapes) > 1 and self.batch_size > 1:
            (height, width), (other_height, other_width) = sorted(shapes)[:2]
            raise ConfigError(
                "data.crop_size",
                None,
                f"images of {height}x{width} and {other_height}x{other_width} (height x width)"
                " do not fit into one batch: set data.crop_size, data.resize=[height,width] or data.batch_size=1",
            )
        images = None
        if self.cache:
            decoded = _readable("train", train_paths, self.reader.read, unreadable)
            train_paths, images = list(decoded), list(decoded.values())
        self.val_set = self._whole_images("val", val_paths, names, unreadable)
        self.train_set = TrainingCrops(
            train_paths,
            self.reader,
            self.crop_size,
            self.flip,
            self.shuffle_channels,
            self.smallest_scale,
            self.seed,
            images,
            None if self.codings is None else KeptCodings(self.coding, self.codings, self.codings_folder),
        )

    def _whole_images(
        self, role: str, paths: list[Path], names: Mapping[Path, str], unreadable: list[ImageFileError]
    ) -> WholeImages:
        # Decoded once even if not kept, so that no file spoils a validation or a test that is under way.
        decode = self.reader.read if self.cache else lambda path: self.reader.read(path).shape[1:]
        decoded = _readable(role, paths, decode, unreadable)
        sizes = {path: tuple(image.shape[1:]) if self.cache else image for path, image in decoded.items()}
        _check_crop("eval_crop", self.eval_crop, sizes)
        return WholeImages(
            list(decoded),
            [names[path] for path in decoded],
            self.reader,
            self.eval_crop,
            list(decoded.values()) if self.cache else None,
        )

    def _images(self, role: str, split: str) -> dict[Path, str]:
        source = self.sources[role]
        if source is None:
            raise ConfigError(f"data.{role}", None, f"this data has no {role} images: choose another data=...")
        images = _named(role, lambda: named_images(source, split))
        if not images:
            raise ConfigError(f"data.{role}", f"its source gives no {split} image")
        return images

    def _check_overlap(self) -> None:
        if self.train_set is None or self.test_set is None:
            return
        seen = {path.resolve() for path in (*self.train_set.paths, *self.val_set.paths)}
        common = [path for path in self.test_set.paths if path.resolve() in seen]
        if common:
            raise ConfigError(
                "data.test",
                f"{len(common)} of its images are trained or validated on too (first: {common[0]}): "
                "name another folder, or hold images out (test_fraction)",
            )


def _named(role: str, function: Callable[[], Result]) -> Result:
    """`function()`; a SourceError, whose key is an argument of the source, gets a whole one."""
    try:
        return function()
    except SourceError as error:
        raise error.below(f"data.{role}") from error


def _readable(
    role: str, paths: list[Path], function: Callable[[Path], Result], unreadable: list[ImageFileError]
) -> dict[Path, Result]:
    """`{path: function(path)}` for the files that can be read; the faults of the others join `unreadable`."""

    def attempt(path: Path) -> Result | ImageFileError:
        try:
            return function(path)
        except ImageFileError as error:
            return error

    outcomes = dict(zip(paths, map_in_threads(attempt, paths, f"reading {role} images"), strict=True))
    faults = [outcome for outcome in outcomes.values() if isinstance(outcome, ImageFileError)]
    if len(faults) == len(paths):
        there = number_of(len(paths), "file")
        raise ConfigError(f"data.{role}", f"none of {there} can be read (first: {faults[0]})")
    unreadable += faults
    return {path: outcome for path, outcome in outcomes.items() if not isinstance(outcome, ImageFileError)}


def _check_crop(key: str, crop: int | None, sizes: dict[Path, tuple[int, int]]) -> None:
    path, (height, width) = min(sizes.items(), key=lambda item: min(item[1]))
    if crop is not None and crop > min(height, width):
        too_small = sum(crop > min(size) for size in sizes.values())
        raise ConfigError(
            f"data.{key}",
            crop,
            f"{path} is only {height}x{width} (height x width, after data.resize): "
            f"allowed are 1 to {min(height, width)}; at {crop}, too small are {too_small} of {len(sizes)}",
        )
