"""Datasets of whole images and of random crops; every random choice is a function of (seed, epoch, position).

So a resumed run, another number of workers or another number of devices sees the same crops: no global random
state is read. Letters: C channels, H height, W width.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from codec.data.codings import ALIGNED, CodedCrop, KeptCodings
from codec.data.image_file import ImageFileError, NamedImage, image_size, read_image
from codec.errors import ArgumentError

Size = int | tuple[int, int] | None  # shorter side, (height, width), or as it is


def check_size(name: str, size: int | Sequence[int] | None) -> Size:
    """`size` as a Size. Raises ValueError, naming it `name`, if it is not null, a side or [height, width]."""
    plain = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else size
    sides = plain if isinstance(plain, tuple) and len(plain) == 2 else (plain,)
    if plain is not None and not all(type(side) is int and side > 0 for side in sides):
        raise ArgumentError(name, size, "allowed are null, a shorter side in pixels, or [height, width]")
    return plain


def resized(height: int, width: int, size: Size) -> tuple[int, int]:
    """Height and width after `resize_image`."""
    if size is None or isinstance(size, tuple):
        return size or (height, width)
    shorter = min(height, width)
    return round(height * size / shorter), round(width * size / shorter)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """uint8 `[C, H, W]` resized by an antialiased bicubic filter; a single `size` keeps the aspect ratio."""
    target = resized(image.shape[1], image.shape[2], size)
    if target == tuple(image.shape[1:]):
        return image
    return F.resize(image, list(target), interpolation=InterpolationMode.BICUBIC, antialias=True)


class ImageReader(NamedTuple):
    """How a file becomes an image: `channels` 1 or 3, then `resize`."""

    channels: int
    resize: Size

    def read(self, path: Path) -> Tensor:
        """uint8 `[C, H, W]`, as `read_image` gives it: opaque, 8 bits, metadata left out. Raises ImageFileError."""
        return resize_image(read_image(path, self.channels), self.resize)

    def size(self, path: Path) -> tuple[int, int]:
        """Height and width of `read(path)`, from the file's header. Raises ImageFileError."""
        return resized(*image_size(path), self.resize)


class Draw(NamedTuple):
    """One training sample: the image to take, and the (epoch, position) that its random choices follow from."""

    epoch: int
    position: int
    image: int


class EpochSampler(Sampler[Draw]):
    """Each of `images` images `repeats` times an epoch, shuffled by (seed, epoch).

    `set_epoch` is called by Lightning. Of `world_size` processes each draws its own, equally long share; by
    default rank and world size are those of torch.distributed.
    """

    def __init__(
        self, images: int, repeats: int, seed: int, rank: int | None = None, world_size: int | None = None
    ) -> None:
        default_rank, default_world_size = distributed_rank()
        self.rank = default_rank if rank is None else rank
        self.world_size = default_world_size if world_size is None else world_size
        self.images = images
        self.repeats = repeats
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images * self.repeats // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch
        order = np.random.default_rng([self.seed, epoch]).permutation(self.images * self.repeats)
        for position in range(self.rank, len(self) * self.world_size, self.world_size):
            yield Draw(epoch, position, int(order[position]) % self.images)


class TrainingCrops(Dataset[Tensor | CodedCrop]):
    """Crops of `crop_size` square (null: whole images), flipped left-right half of the time if `flip`, their colour
    channels in random order if `shuffle_channels`, of images whose sides are multiplied by a number drawn from
    [`smallest_scale`, 1], or by more where an image would become smaller than the crop.

    Indexed by Draw, or by image for a crop that is always the same; gives uint8 `[C, h, w]`. `images` are the
    decoded images, if they are kept in memory. With `codings` it gives CodedCrops instead, cut from whole images
    that were coded as they are: `shuffle_channels` and `smallest_scale` are for crops without.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        reader: ImageReader,
        crop_size: int | None,
        flip: bool,
        shuffle_channels: bool,
        smallest_scale: float,
        seed: int,
        images: Sequence[Tensor] | None,
        codings: KeptCodings | None = None,
    ) -> None:
        self.paths = paths
        self.reader = reader
        self.crop_size = crop_size
        self.codings = codings
        self.smallest_scale = smallest_scale
        self.flip = flip
        self.shuffle_channels = shuffle_channels
        self.seed = seed
        self.images = images

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, draw: Draw | int) -> Tensor | CodedCrop:
        if isinstance(draw, int):  # Lightning's overfit_batches puts a sampler of its own in the place of ours
            draw = Draw(epoch=0, position=draw, image=draw)
        image = self._readable_image(draw.image)
        random = np.random.default_rng([self.seed, draw.epoch, draw.position])
        if self.codings is not None:
            return self._coded_crop(image, random)
        if self.crop_size is not None:
            size = self.crop_size
            if self.smallest_scale < 1:
                size = min(round(size / random.uniform(self.smallest_scale, 1)), *image.shape[1:])
            top, left = (int(random.integers(side - size + 1)) for side in image.shape[1:])
            image = resize_image(F.crop(image, top, left, size, size), (self.crop_size, self.crop_size))
        if self.flip and random.random() < 0.5:
            image = F.horizontal_flip(image)
        return image[random.permutation(len(image))] if self.shuffle_channels else image

    def _coded_crop(self, image: Tensor, random: np.random.Generator) -> CodedCrop:
        whole = self.codings.coded(image, random)
        height, width = image.shape[1:] if self.crop_size is None else (self.crop_size, self.crop_size)
        spare = image.shape[1] - height, image.shape[2] - width
        top, left = (ALIGNED * int(random.integers(pixels // ALIGNED + 1)) for pixels in spare)
        flip = self.flip and random.random() < 0.5
        pair = (F.crop(samples, top, left, height, width) for samples in (whole.image, whole.decoded))
        image, decoded = (F.horizontal_flip(crop) if flip else crop.contiguous() for crop in pair)
        return whole._replace(image=image, decoded=decoded)

    def _readable_image(self, index: int) -> Tensor:
        """Image `index`, or the next readable one: a file with a good header may still be cut short."""
        if self.images is not None:
            return self.images[index]
        for offset in range(len(self.paths)):
            try:
                return self.reader.read(self.paths[(index + offset) % len(self.paths)])
            except ImageFileError as error:
                warnings.warn(f"another image is trained on instead of {error}", stacklevel=2)
        raise ImageFileError(str(self.paths[index]), "neither it nor any other training image can be read any more")


class WholeImages(Dataset[NamedImage]):
    """Every image whole, or its centre of `crop` square: NamedImage with uint8 `[C, H, W]`."""

    def __init__(
        self,
        paths: Sequence[Path],
        names: Sequence[str],
        reader: ImageReader,
        crop: int | None,
        images: Sequence[Tensor] | None,
    ) -> None:
        self.paths = paths
        self.names = names
        self.reader = reader
        self.crop = crop
        self.images = images

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NamedImage:
        image = self.reader.read(self.paths[index]) if self.images is None else self.images[index]
        if self.crop is not None:
            image = F.center_crop(image, [self.crop, self.crop]).contiguous()
        return NamedImage(self.names[index], image)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image, which is not decoded for it. Raises ImageFileError."""
        if self.crop is not None:
            return self.crop, self.crop
        return self.reader.size(self.paths[index]) if self.images is None else tuple(self.images[index].shape[1:])


def distributed_rank() -> tuple[int, int]:
    """(rank, world size) of this process."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
