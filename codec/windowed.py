"""WindowedTransforms: a codec's transforms, which see large images window by window (see codec.windows)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.entropy import QUALITIES, EntropyBottleneck
from codec.networks.eight_bit import in_floats
from codec.rate_distortion_module import RateDistortionModule, to_uint8
from codec.windows import Picture, Size, Window, reach, tiles, whole

# What takes the rest of the time, of encoding and decoding, in what is shown of its progress.
_ANALYSIS, _READING = 0.1, 0.4
_PIXELS_TOGETHER = 1 << 22  # of several images, for memory's sake


class WindowedTransforms(RateDistortionModule):
    """An analysis and a synthesis transform around a latent, and how both come to see large images.

        encode     windows of the image ── latent ── what is coded of each, put together
        decode     coded ── draw ── windows of the image, put together

    Windows have `window` pixels a side, with all that lies around them as far as the transforms reach, so that what
    comes of them is what comes of the whole image, and memory is that of an image and its latent. Transforms that
    reach everywhere, as those that normalise over the image, see it whole.

    `stride`: sides of images are multiples of it. `window_unit`: windows begin at multiples of both.
    `image_channels`: 1 or 3. `scales`: files can be decoded to the image at 1/2, 1/4 …, each in a fraction of the
    time. `progress`, if it is set, is called with the share of an image that is done, in [0, 1], as encoding and
    decoding go on.
    """

    stride: int
    image_channels: int
    window: int = 1024
    window_unit: int = 1
    scales: tuple[int, ...] = ()
    bottleneck: EntropyBottleneck
    progress: Callable[[float], None] | None = None

    def __init__(self) -> None:
        super().__init__()
        self._reaches: dict[str, int | None] = {}

    # ---- what a scheme writes

    def g_a(self, x: Tensor) -> list[Tensor]:
        """The analysis transform: `x` `[B, C, H, W]` in [0, 1], sides multiples of `stride` → the latent."""
        raise NotImplementedError

    def g_s(self, y_hat: Any, quality: Tensor | None = None) -> Tensor:
        """The synthesis transform: the quantised latent → `x_hat` `[B, C, H, W]`.

        `quality` `[B]` is what it was quantised at, 0–100; None: there is one rate.
        """
        raise NotImplementedError

    def by_transform(self, y_hat: Any) -> Tensor | None:
        """The image of a linear transform alone, to which networks add, where all of the latent is its; or None."""
        return None

    def latent_sizes(self, size: Size) -> list[Size]:
        """(H, W) of the latent's tensors, of a padded image of `size` (H, W)."""
        raise NotImplementedError

    # ---- what follows from it, unless a scheme has other ways

    def latent(self, x: Tensor) -> list[Tensor]:
        """What the bottleneck codes of `x`, as `g_a` takes it."""
        return self.g_a(x)

    def exact_levels(self, x: Picture, size: Size, quality: Tensor | None) -> list[Tensor]:
        """What is rounded to levels, of a padded image of `size`, B = 1."""
        exact = [torch.empty(1, *shape, device=self.device) for shape in self.latent_shapes(size)]
        parts = self.tiles(whole(size), size, self.analysis_reach)
        for n, part in enumerate(parts, 1):
            seen = self.surroundings(part, size, self.analysis_reach)
            found = self.bottleneck.exact_levels(self.latent(x(seen)), quality)
            for tensor, some in zip(exact, found, strict=True):
                part.of(tensor, size).copy_(part.within(seen).of(some, seen.size))
            self.report(_ANALYSIS * n / len(parts))
        return exact

    def draw(self, coded: Any, part: Window, size: Size) -> Tensor:
        """The `x_hat` `[1, C, h, w]` of a window, on units, of a padded image of `size`.

        It is that of the whole image, whatever the window, but for the rounding of sums. `coded` is what the codec
        reads from a file: here levels, and their quality.
        """
        levels, quality = coded
        seen = self.surroundings(part, size, self.synthesis_reach)
        y_hat = self.bottleneck.dequantised([seen.of(tensor, size) for tensor in levels], quality)
        return part.within(seen).of(self.g_s(y_hat, quality), seen.size)

    def tensors_of_scale(self, scale: int) -> int:
        """How many of the latent's tensors, from the first on, are the image at 1/`scale`, one of `scales`."""
        raise NotImplementedError

    def draw_scaled(self, coded: Any, part: Window, size: Size, scale: int) -> Tensor:
        """As `draw`, the image at 1/`scale`: `[1, C, h/scale, w/scale]`."""
        raise NotImplementedError

    def analysis_reach(self) -> int | None:
        """How far around a window `latent` reaches, see `codec.windows.reach`."""
        return self.reach_of("analysis", lambda x: self.latent(*x), lambda size: [(self.image_channels, *size)])

    def synthesis_reach(self) -> int | None:
        """As `analysis_reach`, of what is drawn."""
        quality = (
            torch.full((1,), sum(QUALITIES) / 2, device=self.device) if self.bottleneck.variable_rate else None
        )
        return self.reach_of("synthesis", lambda y_hat: [self.g_s(y_hat, quality)], self.latent_shapes)

    # ---- images in windows

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what `pad` makes of such an image."""
        return _round_up(height, self.stride), _round_up(width, self.stride)

    def prepared(self, image: Tensor, part: Window | None = None) -> Tensor:
        """A uint8 image `[C, H, W]` → what the transforms take: `[1, image_channels, H, W]` in [0, 1], padded.

        Or a part of that, a window of the padded image. Of several, `[B, C, H, W]`, as many.
        """
        batch = image if image.ndim == 4 else image[None]
        height, width = batch.shape[-2:]
        if part is not None:
            some = batch[..., min(part.top, height - 1) : part.bottom, min(part.left, width - 1) : part.right]
            below, beside = part.size[0] - some.shape[2], part.size[1] - some.shape[3]
            x = some.to(self.device).float() / 255
            x = F.pad(x, (0, beside, 0, below), mode="replicate")
        else:
            x = self.pad(batch.to(self.device).float() / 255)
        return x.expand(-1, self.image_channels, -1, -1)

    def pad(self, x: Tensor) -> Tensor:
        """`x` `[B, C, H, W]` → its sides rounded up to multiples of `stride`, the last row and column repeated."""
        height, width = x.shape[-2:]
        rows, columns = self.padded(height, width)
        return F.pad(x, (0, columns - width, 0, rows - height), mode="replicate")

    def together(self, images: Sequence[Tensor]) -> Iterator[list[int]]:
        """Which of several images, `[C, H, W]`, may be seen at once: numbers of some that are equally large.

        Together they have up to four megapixels. One that is larger than a window is seen alone.
        """
        of_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for n, image in enumerate(images):
            of_shape[tuple(image.shape)].append(n)
        for (_, *sides), numbers in of_shape.items():
            pixels = math.prod(self.padded(*sides))
            most = 1 if max(sides) > self.window else max(1, _PIXELS_TOGETHER // pixels)
            yield from (numbers[first : first + most] for first in range(0, len(numbers), most))

    def drawn(self, coded: Any, wanted: Window, size: Size, channels: int, scale: int = 1) -> Tensor:
        """The pixels of a window, uint8 `[channels, h/scale, w/scale]`; `coded` as `draw` takes it."""
        height, width = (side // scale for side in wanted.size)
        image = torch.empty(channels, height, width, dtype=torch.uint8, device=self.device)
        done = 0
        for tile in self.tiles(wanted, size, self.synthesis_reach):
            inside = tile.clipped(wanted)
            x_hat = self.draw(coded, tile, size) if scale == 1 else self.draw_scaled(coded, tile, size, scale)
            x_hat = inside.within(tile).of(x_hat, tile.size)[0]
            pixels = to_uint8(x_hat.mean(0, keepdim=True) if channels < self.image_channels else x_hat)
            inside.within(wanted).of(image, wanted.size).copy_(pixels)
            done += inside.size[0] * inside.size[1]
            self.report(_READING + (1 - _READING) * done / (wanted.size[0] * wanted.size[1]))
        return image

    def tiles(self, wanted: Window, size: Size, reach: Callable[[], int | None]) -> list[Window]:
        """Windows on units in which `wanted` lies, each with room for `reach` around it.

        Of a small image, and of what reaches everywhere, one: all.
        """
        far = reach() if max(size) > self.window else None
        if far is None:
            return [whole(size)]
        unit = self._unit
        largest = max(self.window - 2 * far, self.window // 4) // unit * unit or unit
        return tiles(wanted.grown(0, unit, size), unit, largest)

    def surroundings(self, part: Window, size: Size, reach: Callable[[], int | None]) -> Window:
        """A window that `tiles` gave, with what its transform depends on."""
        return part if part.size == size else part.grown(reach(), self._unit, size)

    def latent_shapes(self, size: Size) -> list[tuple[int, int, int]]:
        """(C, H, W) of what `g_s` takes, of a padded image of `size`."""
        return [(c, *sides) for c, sides in zip(self.bottleneck.channels, self.latent_sizes(size), strict=True)]

    def reach_of(
        self,
        name: str,
        function: Callable[[list[Tensor]], Sequence[Tensor]],
        shapes: Callable[[Size], Sequence[tuple[int, int, int]]],
        unit: int | None = None,
    ) -> int | None:
        """See `codec.windows.reach`; it is a matter of the layers, not of their weights, and asked for once."""
        if name not in self._reaches:
            with in_floats():  # of bytes none is nan
                self._reaches[name] = reach(function, shapes, unit or self._unit, self.device)
        return self._reaches[name]

    @property
    def _unit(self) -> int:
        return math.lcm(self.stride, self.window_unit)

    # ---- progress

    def report(self, share: float) -> None:
        if self.progress is not None:
            self.progress(share)

    @contextmanager
    def reported_of(self, number: int, count: int) -> Iterator[None]:
        """In this block, an image is one of `count`, before which `number` are done."""
        of_all = self.progress
        if of_all is None:
            yield
            return
        self.progress = lambda share: of_all((number + share) / count)
        try:
            yield
        finally:
            self.progress = of_all

    @contextmanager
    def writing_reported(self) -> Iterator[None]:
        """In this block, the section that is written is what analysis has left of encoding."""
        with self._passes_reported(lambda done: _ANALYSIS + (1 - _ANALYSIS) * done):
            yield

    @contextmanager
    def reading_reported(self) -> Iterator[None]:
        """In this block, the section that is read is the share of decoding that drawing leaves."""
        with self._passes_reported(lambda done: _READING * done):
            yield

    @contextmanager
    def _passes_reported(self, share: Callable[[float], float]) -> Iterator[None]:
        if self.progress is None:
            yield
            return
        self.bottleneck.progress = lambda done: self.report(share(done))
        try:
            yield
        finally:
            self.bottleneck.progress = None


def _round_up(size: int, stride: int) -> int:
    return -(-size // stride) * stride
