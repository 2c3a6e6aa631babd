"""Pillow reads and writes our files once this is imported, as `import codec` does.

`Image.open("photo.qnt")` gives size, mode and metadata at once, and decodes when pixels are asked for.
`image.save("photo.qnt", quality=50)` takes `bpp`, `max_bytes`, `psnr` and `effort` too, as `Codec.encode` does,
`model`, the name of a pretrained one, or `codec`, one of `codec.load`, which may be yours; and `icc_profile`,
`exif` and `xmp` instead of those of the image.
"""

from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from codec import bitstream
from codec.api import CodedImage, info_of, shared
from codec.bitstream import BitstreamError
from codec.errors import UserError

FORMAT = "QNT"
KEPT = ("icc_profile", "exif", "xmp")  # in an image's `info`, or given instead
OPTIONS = ("quality", "bpp", "max_bytes", "psnr", "effort")


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

    def load(self) -> "Image.core.PixelAccess | None":
        """See Pillow's; torch is imported here."""
        if self.tile:
            try:
                self.im = self._coded.decode().im
            except UserError as error:
                raise OSError(str(error)) from error
            self.tile, self.readonly = [], 0
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = None
        return super().load()


def _save(image: Image.Image, file: IO[bytes], _: str | bytes) -> None:
    given = image.encoderinfo
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
