"""ImageCodec: anything with `encode(image) -> bytes` and `decode(bytes) -> image`, and how it is measured."""

import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor

from codec.data.image_file import NamedImage, write_image
from codec.metrics import Lpips, image_quality, mean_of_rows
from codec.whole_file import whole_file

THUMBNAIL_SIDE = 256


class Unreadable(NamedTuple):
    """In the place of a NamedImage: the file of `name` cannot be read, for this `reason`."""

    name: str
    reason: str


class ImageCodec(LightningModule):
    """A codec that can be measured: `Trainer.test` encodes every image and decodes those very bytes.

    After a test, `test_rows` holds one dict per image (name, bytes, bpp, bpsp, ratio, psnr, ssim, ms_ssim,
    encode_ms, decode_ms, estimated_bpp if the codec has an estimate, and lpips if `lpips` is set) and the `test/*`
    metrics are their means (see `codec.metrics.mean_of_rows`); `on_row` gets every row as it comes. `skipped`
    holds, by name, why an image has none: it cannot be read, or does not fit into memory. Where `keep_files_in`
    names a folder, every file is left in its `files/` and what it decodes to, as PNG, in its `decoded/`.
    `thumbnails` holds what `thumbnail` makes of the first `keep_thumbnails` images, by name. `suffix` is what is
    added to an image's name for its file. Where `lossless` is true, a test ends at the first image that does not
    come back exactly. The image is what `read_image` makes of a file, opaque and with 8 bits: of what else the file
    had, these figures say nothing.
    """

    suffix: str = ".qnt"
    lossless: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.test_rows: list[dict[str, float | str]] = []
        self.keep_files_in: Path | None = None
        self.keep_thumbnails = 0
        self.thumbnails: dict[str, Tensor] = {}
        self.lpips: Lpips | None = None
        self.on_row: Callable[[dict[str, float | str]], None] | None = None
        self.skipped: dict[str, str] = {}

    @abstractmethod
    def encode(self, image: Tensor) -> bytes:
        """The complete file for `image`, uint8 `[C, H, W]`, C in {1, 3}. Raises ValueError on anything else."""

    @abstractmethod
    def decode(self, data: bytes) -> Tensor:
        """The image in a complete file, uint8 `[C, H, W]`. Raises BitstreamError if it cannot be decoded."""

    def check_size(self, height: int, width: int) -> None:
        """Raises ValueError where an image of so many pixels has no file in this format. Here: all have one."""

    def estimated_bits(self, image: Tensor) -> float | None:
        """What training would have estimated for the sections of this image's file; None: there is no estimate."""
        return None

    def on_test_start(self) -> None:
        if self.trainer.world_size > 1:
            raise RuntimeError("real files are measured on one device: test with strategy=auto")
        self.test_rows, self.thumbnails, self.skipped = [], {}, {}

    def test_step(self, item: NamedImage | Unreadable, batch_idx: int) -> None:
        if isinstance(item, Unreadable):
            self.skipped[item.name] = item.reason
            return
        try:
            if batch_idx == 0:
                self.decode(self.encode(item.image))  # compiling and other first-time costs are not coding time
            row = self.measure(item)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.skipped[item.name] = "it does not fit into memory"
            return
        self.test_rows.append(row)
        if self.on_row is not None:
            self.on_row(row)

    def measure(self, item: NamedImage) -> dict[str, float | str]:
        """One row of `test_rows`: encodes the image, decodes those bytes, and compares."""
        started = self._clock()
        data = self.encode(item.image)
        encoded = self._clock()
        decoded = self.decode(data)
        finished = self._clock()
        if self.keep_files_in is not None:
            file = self.keep_files_in / "files" / f"{item.name}{self.suffix}"
            picture = self.keep_files_in / "decoded" / f"{item.name.removesuffix('.png')}.png"
            for path in (file, picture):
                path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(file) as out:
                out.write(data)
            write_image(picture, decoded)
        decoded = decoded.to(item.image.device)
        if self.lossless and not torch.equal(decoded, item.image):
            raise RuntimeError(f"{item.name}: its file decodes to another image, but this codec is lossless")
        if len(self.thumbnails) < self.keep_thumbnails:
            self.thumbnails[item.name] = thumbnail(item.image, decoded)
        channels, height, width = item.image.shape
        lpips = None if self.lpips is None else self.lpips(decoded, item.image)
        estimate = self.estimated_bits(item.image)
        return {
            "name": item.name,
            "bytes": len(data),
            "bpp": 8 * len(data) / (height * width),
            "bpsp": 8 * len(data) / (channels * height * width),
            "ratio": channels * height * width / len(data),
            **image_quality(decoded, item.image),
            **({} if lpips is None else {"lpips": lpips}),
            "encode_ms": 1000 * (encoded - started),
            "decode_ms": 1000 * (finished - encoded),
            **({} if estimate is None else {"estimated_bpp": estimate / (height * width)}),
        }

    def on_test_epoch_end(self) -> None:
        means = mean_of_rows(self.test_rows)
        self.log_dict({f"test/{name}": value for name, value in means.items()})

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def thumbnail(original: Tensor, decoded: Tensor) -> Tensor:
    """Two uint8 images `[C, H, W]` beside each other, each shrunk to at most 256 pixels a side: `[C, h, 2w]`."""
    from torchvision.transforms.v2.functional import resize  # slow to import, and coding needs none of it

    height, width = original.shape[-2:]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return torch.cat([resize(image, size, antialias=True) for image in (original, decoded)], dim=2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, has no memory left for what was tried."""
    # torch has no class for the CPU's.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def check_image(image: Tensor) -> None:
    """Raises ValueError unless `image` is uint8 `[C, H, W]` with C in {1, 3} and at least one pixel."""
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ValueError(
            f"expected an image as uint8 [C, H, W] with 1 or 3 channels, got {image.dtype} {list(image.shape)}"
        )
