"""Training images as a standard codec decodes them: what a network that follows the codec learns from."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.errors import ConfigError
from codec.whole_file import whole_file

if TYPE_CHECKING:
    from codec.image_codec import ImageCodec

ALIGNED = 16  # crops of coded images begin at multiples of it, so that blocks begin where they do in whole images


class CodedCrop(NamedTuple):
    """The same crop of an image and of what its file decodes to, uint8 `[C, h, w]` each; in a batch all have a B.

    `bpp` and `mse`, of samples in [0, 1], are the file's, of the whole image.
    """

    image: Tensor
    decoded: Tensor
    quality: int | Tensor
    bpp: Tensor
    mse: Tensor


class Coding(NamedTuple):
    """A standard codec by its quality, and `qualities`, of which each is met as often as it is listed."""

    make: "Callable[[int], ImageCodec]"
    qualities: Sequence[int]


class KeptCodings:
    """Codes each image at `count` qualities, spread evenly over those of `coding`, once; files stay in `folder`.

    Which qualities they are differs from image to image, and follows from its samples. A file's name holds a hash
    of the samples and of the codec's options, so any number of trainings can share a folder.
    """

    def __init__(self, coding: Coding, count: int, folder: Path) -> None:
        self.coding = coding
        self.count = count
        self.folder = folder

    def coded(self, image: Tensor, random: np.random.Generator) -> CodedCrop:
        """The whole image, uint8 `[C, H, W]`, at a random one of its qualities."""
        digest = hashlib.sha256(image.numpy().tobytes() + repr(tuple(image.shape)).encode()).digest()
        own = int.from_bytes(digest[:4], "big") / 2**32
        place = (int(random.integers(self.count)) + own) / self.count
        quality = self.coding.qualities[int(place * len(self.coding.qualities))]
        codec = self.coding.make(quality)
        data, decoded = self._kept(codec, image, digest)
        mse = (decoded.float() - image).div(255).square().mean()
        return CodedCrop(image, decoded, quality, torch.tensor(8 * len(data) / image[0].numel()), mse)

    def _kept(self, codec: "ImageCodec", image: Tensor, digest: bytes) -> tuple[bytes, Tensor]:
        """The image's file and what it decodes to: of a folder that is shared, a file may be damaged."""
        options = hashlib.sha256(f"{type(codec).__name__} {sorted(vars(codec).items())}".encode()).hexdigest()[:8]
        path = self.folder / options / f"{digest.hex()[:24]}{codec.suffix}"
        with suppress(FileNotFoundError, NotADirectoryError, BitstreamError):
            data = path.read_bytes()
            return data, codec.decode(data)
        data = codec.encode(image)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(data)
        except OSError as error:
            raise ConfigError("data.codings_folder", str(self.folder), f"cannot be written to: {error}") from error
        return data, codec.decode(data)
