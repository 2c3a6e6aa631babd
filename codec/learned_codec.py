"""LearnedCodec: what the five schemes share - transforms around a bottleneck, padding, whole files."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from codec import bitstream
from codec.bitstream import BitstreamError
from codec.checks import check_channels
from codec.data.codings import Coding
from codec.effort import EFFORTS, improved
from codec.entropy import QUALITIES, EntropyBottleneck
from codec.errors import ArgumentError, EncodeError
from codec.image_codec import ImageCodec, check_image
from codec.losses import RateDistortionLoss
from codec.metadata import Metadata
from codec.networks.modes import evaluating
from codec.rate_distortion_module import RateDistortionModule, Reconstruction, gradient_times, to_uint8
from codec.windows import Crop, Size, Window, reach, tiles

# What takes the rest of the time, of encoding and decoding, in what is shown of its progress.
_ANALYSIS, _READING = 0.1, 0.4
_ON_A_GPU = threading.RLock()
_SMALLEST_ERROR = 1e-6  # mean squares, of images in [0, 1], that training counts as they are


class LearnedCodec(ImageCodec, RateDistortionModule):
    """An ImageCodec that is trained. A scheme sets the attributes below and writes the four parts of this drawing.

        training   uint8 batch ── /255 ── pad ── analyse ── y_hat, bits ── g_s ── x_hat, bits ── loss
        encode     image ── /255 ── pad ── compress ── sections ── bitstream.pack ── file
        decode     file ── bitstream.unpack ── sections ── decompress ── crop ── ·255, round ── image

    Large images go through `latent` and `draw` in windows (see codec.windows), of `window` pixels a side with all
    that lies around them, so that memory is that of an image and its latent.

    `tag`: four ASCII characters that name the scheme in its files. `stride`: images are padded to a multiple
    of it. `image_channels`: 1 or 3; a codec for 3 takes greyscale images too. `section_count`: entropy-coded
    strings in a file. `efforts`: None where `compress` is the scheme's own. `rate_tells`: of an image that the
    codec is not made for, files are much larger; where they are not, as their latent has bounds that most images
    reach, only its decoded image shows it. `scales`: files can be decoded to the image at 1/2, 1/4 …, each in a
    fraction of the time (see `decode`). `progress`, if it is set, is called with the share of an image that is
    done, in [0, 1], as encoding and decoding go on.
    """

    tag: ClassVar[str]
    rate_tells: bool = True
    stride: int
    section_count: int = 1
    efforts: range | None = EFFORTS
    window: int = 1024
    scales: tuple[int, ...] = ()
    bottleneck: EntropyBottleneck
    progress: Callable[[float], None] | None = None

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        check_channels("image_channels", image_channels)
        self.image_channels = image_channels
        self._quality: float | None = None
        self._fingerprint: tuple[tuple, bytes] | None = None
        self._reaches: dict[str, int | None] = {}

    @property
    def qualities(self) -> range | tuple[float, float] | None:
        return QUALITIES if any(bottleneck.variable_rate for bottleneck in self.bottlenecks()) else None

    @property
    def quality_grid(self) -> Sequence[float] | None:
        return EntropyBottleneck.coded_qualities() if self.qualities == QUALITIES else super().quality_grid

    @property
    def quality(self) -> float | None:
        """See ImageCodec; of a variable rate the middle one, until another is set."""
        if self._quality is None and self.qualities == QUALITIES:
            return sum(QUALITIES) / 2
        return self._quality

    @quality.setter
    def quality(self, quality: float | None) -> None:
        self._quality = quality

    def set_quality(self, quality: float) -> None:
        super().set_quality(quality)
        if self.qualities == QUALITIES:
            self.quality = EntropyBottleneck.coded_quality(quality)

    def copied(self) -> Self:
        self.fingerprint()  # which the copy has then
        return super().copied()

    # ---- what a scheme writes

    def g_a(self, x: Tensor) -> list[Tensor]:
        """The analysis transform: `x` `[B, C, H, W]` in [0, 1], sides multiples of `stride` → the latent."""
        raise NotImplementedError

    def g_s(self, y_hat: Any, quality: Tensor | None = None) -> Tensor:
        """The synthesis transform: the quantised latent → `x_hat` `[B, C, H, W]`.

        `quality` `[B]` is what it was quantised at, 0–100; None: there is one rate.
        """
        raise NotImplementedError

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """(H, W) of the latent's tensors, of a padded image of `size` (H, W)."""
        raise NotImplementedError

    # ---- what follows from it, unless a scheme has other ways

    def latent(self, x: Tensor) -> list[Tensor]:
        """What the bottleneck codes of `x`, as `g_a` takes it."""
        return self.g_a(x)

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> tuple[Any, dict[str, Tensor]]:
        """`x`, as `g_a` takes it, each image at its `quality` `[B]` → what `g_s` makes `x_hat` of, and its bits.

        These are differentiable estimates, `[B]` each, by part of the file: `y` the latent's coarsest tensor, `y_1`
        … the finer ones, `z` side information, `x` pixels.
        """
        return self.bottleneck(self.latent(x), quality)

    def forward(self, x: Tensor) -> Reconstruction:
        """`x` as `analyse` takes it; in training of a variable rate, each image at a quality drawn at random."""
        quality = self._qualities(len(x))
        y_hat, bits = self.analyse(x, quality)
        x_hat = self.g_s(y_hat, quality)
        if self.training and quality is not None:
            # A bit is worth what the squared step is; and each image counts relative to its own squared error, or
            # the lowest rates would be all that is trained. On average bits count as where there is one rate.
            weight = 1 / (x_hat.detach().float() - x).square().mean((1, 2, 3)).clamp(min=_SMALLEST_ERROR)
            of_bits = weight * self.bottleneck.relative_step(quality).flatten() ** 2
            scale = 1 / of_bits.mean()
            x_hat = gradient_times(scale * weight, x_hat)
            bits = {part: gradient_times(scale * of_bits, count) for part, count in bits.items()}
        return Reconstruction(x_hat, bits)

    def compress(self, x: Tensor) -> list[bytes]:
        """One padded image `[1, C, H, W]` in [0, 1] → `section_count` sections."""
        return self._compressed(*self._exact_levels(lambda part: part.of(x, x.shape[-2:]), x.shape[-2:]))

    def decompress(self, sections: list[bytes], size: Size) -> Tensor:
        """Sections → `x_hat` `[1, C, H, W]`; `size` is the padded (H, W)."""
        coded = self.read(sections, size)
        x_hat = torch.empty(1, self.image_channels, *size, device=self.device)
        for tile in self._tiles_to_draw(Window(0, size[0], 0, size[1]), size):
            tile.of(x_hat, size).copy_(self.draw(coded, tile, size))
        return x_hat

    def read(self, sections: list[bytes], size: Size, scale: int = 1, partial: bool = False) -> Any:
        """Sections → what `draw` draws, for padded images of `size` (H, W): here levels, and their quality.

        No more is read than one of `scales` needs; `partial`: the end may be missing.
        """
        sizes, quality = self.latent_sizes(size), self.bottleneck.quality_of(sections[0])
        wanted = len(sizes) if scale == 1 else self.tensors_of_scale(scale)
        return self.bottleneck.decompress_levels(sections[0], sizes, wanted, partial), quality

    def tensors_of_scale(self, scale: int) -> int:
        """How many of the latent's tensors, from the first on, are the image at 1/`scale`, one of `scales`."""
        raise NotImplementedError

    def draw_scaled(self, coded: Any, part: Window, size: Size, scale: int) -> Tensor:
        """As `draw`, the image at 1/`scale`: `[1, C, h/scale, w/scale]`."""
        raise NotImplementedError

    def draw(self, coded: Any, part: Window, size: Size) -> Tensor:
        """The `x_hat` `[1, C, h, w]` of a window, on units of `stride`, of a padded image of `size`.

        It is that of the whole image, whatever the window, but for the rounding of sums.
        """
        levels, quality = coded
        seen = part if part.size == size else part.grown(self._synthesis_reach(), self.stride, size)
        y_hat = self.bottleneck.dequantised([seen.of(tensor, size) for tensor in levels], quality)
        return part.within(seen).of(self.g_s(y_hat, quality), seen.size)

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        """Raises BitstreamError if the sections cannot be those of an image of `channels`, padded to `size` (H, W).

        Called before `decompress`, so that a file that claims a large image costs no memory unless it is as long as
        the files of such images. Nothing is decoded here.
        """
        self.bottleneck.check_length(sections[0], self.latent_sizes(size))

    def load_starting_weights(self) -> None:
        """Brings what training starts from besides random weights: nothing, unless a scheme overrides it.

        Called for a run that starts from nothing, never where a checkpoint is loaded. Raises ValueError.
        """

    @torch.no_grad()
    def fit_priors(self, batches: Iterable[Tensor]) -> None:
        """Starts those priors by the latents of images that can be, `batches` being uint8 `[B, C, H, W]`.

        Called as `load_starting_weights` is, once there are images; takes none where no prior can be fitted.
        """
        if not any(bottleneck.prior.can_be_fitted for bottleneck in self.bottlenecks()):
            return
        with self._coding():
            latents = [self.latent(self.pad(batch.to(self.device).float() / 255)) for batch in batches]
        latent = [torch.cat(tensors) for tensors in zip(*latents, strict=True)]
        quality = None
        if self.qualities == QUALITIES:
            quality = QUALITIES[1] * torch.rand(len(latent[0]), device=self.device)
        self.bottleneck.fit_prior(latent, quality)

    def training_coding(self) -> Coding | None:
        """How images can be coded before `reconstruct` meets them in training; None: not at all."""
        return None

    def check_loss(self, loss: RateDistortionLoss) -> None:
        """Raises ValueError if the scheme cannot be trained with `loss`; any will do, unless overridden."""

    # ---- files

    def encode(self, image: Tensor, metadata: Metadata | None = None) -> bytes:
        """See ImageCodec. `metadata` is kept in the file beside the image: `bitstream.metadata_of` gives it back.

        Also raises EncodeError if a greyscale codec is given an RGB image.
        """
        check_image(image)
        channels, height, width = image.shape
        if channels > self.image_channels:
            raise EncodeError("this codec is greyscale: give it an image with 1 channel (data.channels=1)")
        with self._coding():
            if self.efforts is None:
                sections = self.compress(self.prepared(image))
            else:
                size = self.padded(height, width)
                exact, picture = self._exact_levels(lambda part: self.prepared(image, part), size)
                with self._passes_reported(_ANALYSIS):
                    sections = self._compressed(exact, picture)
        header = bitstream.Header(self.tag, self.fingerprint(), height, width, channels)
        return bitstream.pack(header, sections, metadata)

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
            if not self._in_windows:
                return self._pixels(wanted.of(self.decompress(sections, size), size)[0], header.channels)
            with self._passes_reported(0):
                coded = self.read(sections, size, scale, partial)
            return self._drawn(coded, size, wanted, header.channels, scale)

    @property
    def _in_windows(self) -> bool:
        return type(self).decompress is LearnedCodec.decompress

    def _may_be_cut(self, data: bytes) -> bool:
        """False if the file is whole. Raises ArgumentError if it is not, and cannot be shown in part."""
        try:
            bitstream.unpack(data)
        except BitstreamError:
            if not self._in_windows:
                raise ArgumentError("partial", True, "a cut file of this codec cannot be shown in part") from None
            return True
        return False

    def _check_part(self, crop: Crop | None, scale: int) -> None:
        if scale != 1 and scale not in self.scales:
            allowed = f"allowed are 1, {', '.join(map(str, self.scales))} with this model"
            raise ArgumentError("scale", scale, allowed if self.scales else "this model decodes at full size only")
        if scale != 1 and crop is not None:
            raise ArgumentError("scale", scale, "allowed is 1 together with a crop")

    def _drawn(self, coded: Any, size: Size, wanted: Window, channels: int, scale: int) -> Tensor:
        """The pixels of a window, uint8 `[C, h/scale, w/scale]`."""
        height, width = (side // scale for side in wanted.size)
        image = torch.empty(channels, height, width, dtype=torch.uint8, device=self.device)
        done = 0
        for tile in self._tiles_to_draw(wanted, size):
            inside = tile.clipped(wanted)
            x_hat = self.draw(coded, tile, size) if scale == 1 else self.draw_scaled(coded, tile, size, scale)
            drawn = self._pixels(inside.within(tile).of(x_hat, tile.size)[0], channels)
            inside.within(wanted).of(image, wanted.size).copy_(drawn)
            done += inside.size[0] * inside.size[1]
            self._report(_READING + (1 - _READING) * done / (wanted.size[0] * wanted.size[1]))
        return image

    def _pixels(self, x_hat: Tensor, channels: int) -> Tensor:
        return to_uint8(x_hat.mean(0, keepdim=True) if channels < self.image_channels else x_hat)

    def _tiles_to_draw(self, wanted: Window, size: Size) -> list[Window]:
        """Windows on units of `stride` in which `wanted` lies."""
        whole = Window(0, size[0], 0, size[1])
        if max(size) <= self.window:
            return [whole]
        reach = self._synthesis_reach()
        if reach is None:
            return [whole]
        return tiles(wanted.grown(0, self.stride, size), self.stride, self._tile(reach))

    def _exact_levels(self, x: Callable[[Window], Tensor], size: Size) -> tuple[list[Tensor], Callable[[], Tensor]]:
        """What is rounded to levels of the padded image of `size` whose windows `x` gives, and that image."""
        whole, quality = Window(0, size[0], 0, size[1]), self._qualities(1)
        reach = self._analysis_reach() if max(size) > self.window else None
        if reach is None:
            return self.bottleneck.exact_levels(self.latent(x(whole)), quality), lambda: x(whole)
        channels = zip(self.bottleneck.channels, self.latent_sizes(size), strict=True)
        exact = [torch.empty(1, count, *sides, device=self.device) for count, sides in channels]
        parts = tiles(whole, self.stride, self._tile(reach))
        for n, part in enumerate(parts, 1):
            seen = part.grown(reach, self.stride, size)
            found = self.bottleneck.exact_levels(self.latent(x(seen)), quality)
            for tensor, some in zip(exact, found, strict=True):
                part.of(tensor, size).copy_(part.within(seen).of(some, seen.size))
            self._report(_ANALYSIS * n / len(parts))
        return exact, lambda: x(whole)

    def _tile(self, reach: int) -> int:
        """The pixels a side of what is left of a window without its surroundings."""
        return max(self.window - 2 * reach, self.window // 4) // self.stride * self.stride or self.stride

    def _analysis_reach(self) -> int | None:
        return self._reach("analysis", lambda x: self.latent(*x), lambda size: [(self.image_channels, *size)])

    def _synthesis_reach(self) -> int | None:
        quality = None if self.qualities != QUALITIES else torch.full((1,), 50.0, device=self.device)
        return self._reach("synthesis", lambda y_hat: [self.g_s(y_hat, quality)], self._latent_shapes)

    def _latent_shapes(self, size: Size) -> list[tuple[int, int, int]]:
        return [(c, *sides) for c, sides in zip(self.bottleneck.channels, self.latent_sizes(size), strict=True)]

    def _reach(self, name: str, function: Callable, shapes: Callable, unit: int | None = None) -> int | None:
        """See `codec.windows.reach`; it is a matter of the layers, not of their weights, and asked for once."""
        if name not in self._reaches:
            self._reaches[name] = reach(function, shapes, unit or self.stride, self.device)
        return self._reaches[name]

    @contextmanager
    def _passes_reported(self, before: float) -> Iterator[None]:
        """In this block, a section is the share from `before` to all of encoding, or to _READING of decoding."""
        if self.progress is None or not self.bottlenecks():
            yield
            return
        share = 1 - before if before else _READING
        self.bottleneck.progress = lambda done: self._report(before + share * done)
        try:
            yield
        finally:
            self.bottleneck.progress = None

    def _report(self, share: float) -> None:
        if self.progress is not None:
            self.progress(share)

    def check_size(self, height: int, width: int) -> None:
        rows, columns = self.padded(height, width)
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and rows * columns > max(limit, self.stride**2):
            raise ValueError(f"{columns}×{rows} pixels to decode, padding included: the limit is {limit}")

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what `pad` makes of such an image."""
        return _round_up(height, self.stride), _round_up(width, self.stride)

    def estimated_bits(self, image: Tensor) -> float:
        with self._coding():
            _, bits = self._as_coded(self.prepared(image))
        return sum(part.item() for part in bits.values())

    def from_file(self, x: Tensor) -> Reconstruction:
        """What a file of `x`, one image as `g_a` takes it, would decode to, and the bits that it would take."""
        with self._coding():
            y_hat, bits = self._as_coded(x)
            return Reconstruction(self.g_s(y_hat, self._qualities(1)), bits)

    def prepared(self, image: Tensor, part: Window | None = None) -> Tensor:
        """A uint8 image `[C, H, W]` → what the transforms take: `[1, image_channels, H, W]` in [0, 1], padded.

        Or a part of that, a window of the padded image.
        """
        height, width = image.shape[-2:]
        if part is not None:
            some = image[:, min(part.top, height - 1) : part.bottom, min(part.left, width - 1) : part.right]
            below, beside = part.size[0] - some.shape[1], part.size[1] - some.shape[2]
            x = some.to(self.device)[None].float() / 255
            x = F.pad(x, (0, beside, 0, below), mode="replicate")
        else:
            x = self.pad(image.to(self.device)[None].float() / 255)
        return x.expand(-1, self.image_channels, -1, -1)

    def pad(self, x: Tensor) -> Tensor:
        """`x` `[B, C, H, W]` → its sides rounded up to multiples of `stride`, the last row and column repeated."""
        height, width = x.shape[-2:]
        rows, columns = self.padded(height, width)
        return F.pad(x, (0, columns - width, 0, rows - height), mode="replicate")

    def train(self, mode: bool = True) -> "LearnedCodec":
        if mode != self.training:
            self._fingerprint = None  # weight averaging swaps weights behind autograd's version counters
        return super().train(mode)

    def fingerprint(self) -> bytes:
        """Four bytes that name these very weights and tables; computed again only when a tensor has changed."""
        state = self.state_dict()
        versions = tuple((tensor.data_ptr(), tensor._version) for tensor in state.values())
        if self._fingerprint is None or self._fingerprint[0] != versions:
            digest = hashlib.sha256(self.tag.encode())
            for name, tensor in sorted(state.items()):
                digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
            self._fingerprint = (versions, digest.digest()[:4])
        return self._fingerprint[1]

    def _as_coded(self, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """As `analyse`, of one image, with the levels that a file would hold."""
        quality = self._qualities(1)
        if self._effort_in_use() == 0:
            return self.analyse(x, quality)
        exact, picture = self._exact_levels(lambda part: part.of(x, x.shape[-2:]), x.shape[-2:])
        levels, _ = improved(self, picture, exact, quality, self._effort_in_use(), write=False)
        return self.bottleneck(self.bottleneck.dequantised(levels, quality), quality)

    def _compressed(self, exact: list[Tensor], picture: Callable[[], Tensor]) -> list[bytes]:
        """The sections of a latent as `_exact_levels` gives it, whose memory it takes."""
        quality, effort, section = self._qualities(1), self._effort_in_use(), None
        levels = exact
        if effort:
            levels, section = improved(self, picture, exact, quality, effort, write=True)
        if section is None:
            section = self.bottleneck.compress_levels([tensor.add_(0.5).floor_() for tensor in levels], quality)
        return [section]

    def _effort_in_use(self) -> int:
        if self.efforts is None:
            return 0
        if self.effort is not None:
            return self.effort
        # Weights of a variable rate were trained for coarser steps than those in use, too.
        return int(self.qualities == QUALITIES or self.bottleneck.noise == "chosen")

    def _qualities(self, count: int) -> Tensor | None:
        """Of so many images, `[count]`: in training random ones, else the one in use; None if there is one rate."""
        if self.qualities != QUALITIES:
            return None
        if self.training:
            return QUALITIES[1] * torch.rand(count, device=self.device)
        return torch.full((count,), float(self.quality), device=self.device)

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

    @contextmanager
    def _coding(self) -> Iterator[None]:
        """Evaluation mode, full precision, repeatable kernels: a file must not depend on how training ran."""
        repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        # These flags are the process's: of several threads one codes on a GPU at a time.
        alone = nullcontext() if self.device.type == "cpu" else _ON_A_GPU
        with alone, evaluating(self), torch.no_grad(), torch.autocast(self.device.type, enabled=False), repeatable:
            yield


def _round_up(size: int, stride: int) -> int:
    return -(-size // stride) * stride
