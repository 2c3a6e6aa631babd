"""FileCoding: an image to a file and back - header, checks, a part of a picture, a cut file."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from codec import bitstream
from codec.bitstream import BitstreamError
from codec.errors import ArgumentError, EncodeError
from codec.fingerprint import Fingerprint
from codec.image_codec import ImageCodec, check_image
from codec.metadata import Metadata
from codec.networks.modes import evaluating, repeatable
from codec.windowed import WindowedTransforms
from codec.windows import Crop, Picture, Size, Window


class FileCoding(ImageCodec, WindowedTransforms):
    """What of an ImageCodec is the same whatever the sections of its files hold.

    `tag`: four ASCII characters that name the scheme in its files. `section_count`: how many entropy-coded strings
    these hold. `shown_in_part`: `read` takes sections whose end is missing.
    """

    tag: ClassVar[str]
    section_count: int = 1
    shown_in_part: bool = True

    def __init__(self) -> None:
        super().__init__()
        self._fingerprint = Fingerprint()

    @abstractmethod
    def write(self, x: Picture, size: Size) -> list[bytes]:
        """An image `[1, C, H, W]` in [0, 1], padded to `size` (H, W), seen in windows → its sections."""

    @abstractmethod
    def read(self, sections: list[bytes], size: Size, scale: int = 1, cut: bool = False) -> Any:
        """Sections → what `draw` draws, for images padded to `size` (H, W).

        No more is read than one of `scales` needs; `cut`: the end may be missing.
        """

    @abstractmethod
    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        """Raises BitstreamError if the sections cannot be those of an image of `channels`, padded to `size` (H, W).

        Called before `read`, so that a file that claims a large image costs no memory unless it is as long as the
        files of such images. Nothing is decoded here.
        """

    def encode(self, image: Tensor, metadata: Metadata | None = None) -> bytes:
        """See ImageCodec. `metadata` is kept in the file beside the image: `bitstream.metadata_of` gives it back.

        Also raises EncodeError if a greyscale codec is given an RGB image.
        """
        self._check_codable(image)
        self.fingerprint()  # which sees that tables are those of the weights
        with self._coding():
            sections = self.write(lambda part: self.prepared(image, part), self.padded(*image.shape[1:]))
        return self._file(image, sections, metadata)

    def decode(self, data: bytes, crop: Crop | None = None, scale: int = 1, partial: bool = False) -> Tensor:
        """See ImageCodec. A file of other weights than these is refused too.

        Of a `crop` no more is drawn than lies around it; the sections are read whole. With one of `scales` the
        image is `[C, ⌈H/scale⌉, ⌈W/scale⌉]`, and no more is read than it takes. `partial` also shows a file whose
        end is missing, as far as it goes. Raises ArgumentError for a crop that is not inside the image, a scale
        that the codec does not have, or both together, and where cut files cannot be shown.
        """
        self._check_part(crop, scale)
        partial = partial and self._may_be_cut(data)
        header, sections = bitstream.unpack(data, partial)
        self._check_is_mine(header, len(sections))
        size = self.padded(header.height, header.width)
        try:
            self.check_size(header.height, header.width)
        except ValueError as error:
            raise BitstreamError(str(error)) from None
        sides = (-(-side // scale) * scale for side in (header.height, header.width))
        wanted = Window(0, next(sides), 0, next(sides))
        if crop is not None:
            wanted = crop.window(header.height, header.width)
        with self._coding():
            if not partial:
                self.check_sections(sections, size, header.channels)
            return self.drawn(self.read(sections, size, scale, partial), wanted, size, header.channels, scale)

    def _check_codable(self, image: Tensor) -> None:
        check_image(image)
        if image.shape[0] > self.image_channels:
            raise EncodeError("this codec is greyscale: give it an image with 1 channel (data.channels=1)")

    def _file(self, image: Tensor, sections: list[bytes], metadata: Metadata | None) -> bytes:
        channels, height, width = image.shape
        header = bitstream.Header(self.tag, self.fingerprint(), height, width, channels)
        return bitstream.pack(header, sections, metadata)

    def _may_be_cut(self, data: bytes) -> bool:
        """False if the file is whole. Raises ArgumentError if it is not, and cannot be shown in part."""
        try:
            bitstream.unpack(data)
        except BitstreamError:
            if not self.shown_in_part:
                raise ArgumentError("partial", True, "a cut file of this codec cannot be shown in part") from None
            return True
        return False

    def _check_part(self, crop: Crop | None, scale: int) -> None:
        if scale != 1 and scale not in self.scales:
            allowed = f"allowed are 1, {', '.join(map(str, self.scales))} with this model"
            raise ArgumentError("scale", scale, allowed if self.scales else "this model decodes at full size only")
        if scale != 1 and crop is not None:
            raise ArgumentError("scale", scale, "allowed is 1 together with a crop")

    def check_size(self, height: int, width: int) -> None:
        rows, columns = self.padded(height, width)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and rows * columns > max(limit, self.stride**2):
            raise ValueError(f"{columns}×{rows} pixels to decode, padding included: the limit is {limit}")

    def _check_is_mine(self, header: bitstream.Header, sections: int) -> None:
        if header.scheme != self.tag:
            raise BitstreamError(f"the file was written by scheme {header.scheme}: this codec is {self.tag}")
        if header.fingerprint != self.fingerprint():
            raise BitstreamError(
                f"the file was written with weights {header.fingerprint.hex()}: "
                f"this checkpoint holds {self.fingerprint().hex()}"
            )
        if sections != self.section_count or header.channels > self.image_channels:
            raise BitstreamError(
                f"the file holds {sections} sections and {header.channels} channels: "
                f"this codec writes {self.section_count} and at most {self.image_channels}"
            )

    def train(self, mode: bool = True) -> Self:
        if mode != self.training:
            self._fingerprint.forget()  # weight averaging swaps weights behind autograd's version counters
        return super().train(mode)

    def fingerprint(self) -> bytes:
        """Four bytes that name these very weights and tables."""
        return self._fingerprint.of(self.tag, self)

    @contextmanager
    def _coding(self) -> Iterator[None]:
        """Evaluation mode, full precision, repeatable kernels: a file must not depend on how training ran."""
        with repeatable(self.device.type), evaluating(self), torch.no_grad():
            yield
