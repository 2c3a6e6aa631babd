"""Pillow reads and writes our files once this is imported, as `import codec` does.

`Image.open("photo.qnt")` gives size, mode and metadata at once, and decodes when pixels are asked for; after
`image.draft(None, size)`, and in `image.thumbnail(size)`, at a fraction of its sides, sooner, of models that can.
`image.save("photo.qnt", quality=50)` takes `bpp`, `max_bytes`, `psnr` and `effort` too, as `Codec.encode` does,
`model`, the name of a pretrained one, or `codec`, one of `codec.load`, which may be yours; and `icc_profile`,
`exif` and `xmp` instead of those of the image. What else is given is refused, but for a few options of Pillow's own
writers that programs name for whatever kind of file they save (`FOR_OTHERS`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from codec import bitstream
from codec.api import shared
from codec.bitstream import BitstreamError
from codec.coded_image import CodedImage, info_of
from codec.errors import ArgumentError, UserError

FORMAT = "QNT"
KEPT = ("icc_profile", "exif", "xmp")  # in an image's `info`, or given instead
OPTIONS = ("quality", "bpp", "max_bytes", "psnr", "effort")
FOR_OTHERS = ("optimize", "progressive", "subsampling", "dpi")  # without effect


class QuintetImageFile(ImageFile.ImageFile):
    """An opened file: raises UnidentifiedImageError if it is damaged; `load` OSError if no codec can decode it."""

    format = FORMAT
    format_description = "Quintet"

    def _open(self) -> None:
        try:
            self._coded = CodedImage(self.fp)
        except BitstreamError as error:
            raise UnidentifiedImageError(str(error)) from error
        self._size, self._mode = self._coded.size, self._coded.mode
        self.info |= info_of(self._coded.metadata)
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        self._scale = 1

    def draft(
        self, mode: str | None, size: tuple[int, int] | None
    ) -> tuple[str, tuple[float, float, float, float]] | None:
        """See Pillow's: decodes at the smallest scale whose image is no smaller than `size`.

        `mode` changes nothing. Raises OSError as `load` does.
        """
        if not self.tile or size is None or self._scale > 1:
            return None
        width, height = self.size
        most = min(width // max(1, size[0]), height // max(1, size[1]))
        if most < 2:
            return None
        with _os_errors():
            self._scale = max((scale for scale in self._coded.scales if scale <= most), default=1)
        if self._scale == 1:
            return None
        self._size = -(-width // self._scale), -(-height // self._scale)
        return self.mode, (0, 0, width / self._scale, height / self._scale)

    def load(self) -> "Image.core.PixelAccess | None":
        """See Pillow's; torch is imported here."""
        if self.tile:
            with _os_errors():
                self.im = self._coded.decode(scale=self._scale).im
            self.tile, self.readonly = [], 0
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = None
        return super().load()


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raises the user's faults as what Pillow's users expect of a file that cannot be decoded."""
    try:
        yield
    except UserError as error:
        raise OSError(str(error)) from error


def _save(image: Image.Image, file: IO[bytes], _: str | bytes) -> None:
    given = image.encoderinfo  # Pillow adds nothing to what it is given
    allowed = ("model", "codec", *OPTIONS, *KEPT)
    for name in given:
        if name not in (*allowed, *FOR_OTHERS):
            raise ArgumentError(name, f"there is no such option, allowed are {', '.join(allowed)}")
    codec = given["codec"] if "codec" in given else shared(given.get("model"), given.get("quality"))
    instead = {key: given[key] for key in KEPT if key in given}
    if instead:
        if isinstance(instead.get("exif"), Image.Exif):
            instead["exif"] = instead["exif"].tobytes()
        image = image.copy()
        image.info |= instead
    file.write(codec.encode(image, **{key: given[key] for key in OPTIONS if key in given}))


Image.register_open(FORMAT, QuintetImageFile, lambda prefix: prefix.startswith(bitstream.MAGIC))
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".qnt")
Image.register_mime(FORMAT, "image/x-quintet")
