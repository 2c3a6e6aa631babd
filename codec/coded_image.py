"""A file that is opened: what its header says at once, and its pixels when they are asked for."""

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from PIL import Image

from codec import bitstream, pretrained
from codec.bitstream import BitstreamError, ChecksumError, MetadataError
from codec.checks import check_choice, check_integer
from codec.decoders import DECODERS
from codec.errors import ArgumentError, UserError, warn_of
from codec.metadata import Metadata
from codec.pretrained import Weights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from codec.loaded_codec import Codec

    Decoded = Image.Image | np.ndarray | Tensor

File = bytes | str | Path | BinaryIO
Kind = Literal["pillow", "numpy", "torch"]
KINDS: tuple[Kind, ...] = ("pillow", "numpy", "torch")


class CodedImage:
    """A file that is opened and not decoded: its header says all of this.

    `width`, `height` in pixels; `channels`, 1 or 3; `size`, (width, height), and `mode`, L or RGB, as Pillow has
    them; `bytes`: of the whole file.
    """

    def __init__(self, source: File, partial: bool = False) -> None:
        self.data, self._partial = _read(source), partial
        header, self._sections = bitstream.unpack(self.data, partial)
        self.width, self.height, self.channels = header.width, header.height, header.channels
        self.size = header.width, header.height
        self.mode = "L" if header.channels == 1 else "RGB"
        self.bytes = len(self.data)
        self._fingerprint = header.fingerprint

    @cached_property
    def weights(self) -> Weights | None:
        """The pretrained weights that wrote the file; None: another codec's did."""
        return pretrained.written_by(self._fingerprint)

    @property
    def bpp(self) -> float:
        """Bits per pixel, of the whole file."""
        return 8 * self.bytes / (self.width * self.height)

    @property
    def model(self) -> str | None:
        """The name of the pretrained model that wrote the file; None: another codec did."""
        return None if self.weights is None else self.weights.name

    @property
    def quality(self) -> float | None:
        """What a pretrained model wrote it at; None: that has one rate, or `model` is None."""
        return None if self.weights is None else self.weights.quality_in(self._sections[0])

    @property
    def scales(self) -> tuple[int, ...]:
        """What `scale` may be besides 1, rising; empty: the model decodes at full size only.

        The codec that wrote the file is loaded to know. Raises BitstreamError if none of those that are known did.
        """
        return tuple(DECODERS.of(self.data, self._partial).scales)

    @property
    def metadata(self) -> Metadata:
        """ICC profile, EXIF and XMP of the upright image; nothing where they are `damaged`."""
        return self._metadata or Metadata()

    @property
    def damaged(self) -> bool:
        """Whether the metadata cannot be read, without which the image is decoded nonetheless."""
        return self._metadata is None

    @cached_property
    def cut(self) -> bool:
        """Whether its end is missing, or bytes of it are others, which is opened as `partial` only."""
        try:
            bitstream.unpack(self.data)
        except BitstreamError:
            return True
        return False

    def check_shown(self) -> None:
        """Raises ArgumentError where the end is missing, and the pretrained model that wrote it shows no part."""
        if self.weights is None or self.weights.levels_alone or not self.cut:
            return
        others = [model.name for model in pretrained.pretrained_models() if model.weights[0].levels_alone]
        raise ArgumentError(
            "partial",
            True,
            f"a cut file of {self.weights.name} cannot be shown in part, those of {', '.join(others)} can",
        )

    @cached_property
    def _metadata(self) -> Metadata | None:
        if self.cut:
            return Metadata()
        try:
            return bitstream.metadata_of(self.data)
        except MetadataError:
            return None

    def decode(
        self,
        to: Kind = "pillow",
        codec: "Codec | None" = None,
        *,
        crop: "tuple[int, int, int, int] | None" = None,
        scale: int = 1,
    ) -> "Decoded":
        """The image, see `Codec.decode`; None takes the pretrained or registered codec that wrote the file."""
        image, lost = self.decoded(to, codec, crop=crop, scale=scale)
        warn_of(lost)
        return image

    def decoded(
        self,
        to: Kind,
        codec: "Codec | None" = None,
        *,
        crop: "tuple[int, int, int, int] | None" = None,
        scale: int = 1,
    ) -> "tuple[Decoded, tuple[str, ...]]":
        """As `decode`, and what is not in it: a warning for the thread of who called."""
        check_choice("to", to, KINDS)
        self.check_shown()
        learned = DECODERS.of(self.data, self._partial) if codec is None else codec.learned
        from codec.windows import Crop

        check_integer("scale", scale, 1)
        part = None
        if crop is not None:
            if len(crop) != 4:
                raise ArgumentError("crop", crop, "allowed are four integers: x, y, width, height")
            for number in crop:
                check_integer("crop", number, 0)
            part = Crop(*crop)
        image = learned.decode(self.data, part, scale, self._partial).cpu()
        if to == "torch":
            return image, ()
        from codec.data.image_file import pillow_image

        picture = pillow_image(image)
        if to == "numpy":
            import numpy as np

            return np.array(picture), ()
        picture.info |= info_of(self.metadata)
        return picture, ("the file's metadata is damaged and left out",) if self.damaged else ()

    def __repr__(self) -> str:
        of = f" by {self.weights.label}" if self.weights else ""
        return f"<CodedImage {self.width}×{self.height} {self.mode}{of}, {self.bytes:,} bytes>"


def opened(source: File, partial: bool) -> CodedImage:
    """As CodedImage, for who calls from Python: what refuses a cut file names `partial`, where that may help."""
    data = _read(source)
    try:
        return CodedImage(data, partial)
    except ChecksumError as error:
        if not _may_be_shown(data):
            raise
        raise ChecksumError(f"{error}; if it is cut, partial=True gives as much of it as is there") from None


def _may_be_shown(data: bytes) -> bool:
    try:
        CodedImage(data, partial=True).check_shown()
    except UserError:
        return False
    return True


def info_of(metadata: Metadata) -> dict[str, bytes]:
    """Metadata as Pillow has it in an image's `info`."""
    exif = metadata.exif and b"Exif\0\0" + metadata.exif
    named = {"icc_profile": metadata.icc, "exif": exif, "xmp": metadata.xmp}
    return {key: value for key, value in named.items() if value}


def _read(source: File) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    return Path(source).read_bytes() if isinstance(source, str | os.PathLike) else source.read()
