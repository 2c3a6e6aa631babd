"""lossless_unet: a U-Net with self-attention gives every pixel its distribution; the pixels are coded with it.

"UNet-based Lossless Image Compression", whose file holds the bottleneck z and the coded pixels.

Differs from the source: z is quantised and coded with its own prior, colour images are coded channel by channel,
the distributions are mixtures of logistics, and all arithmetic between z and the arithmetic coder is exact, so that
what one machine wrote another reads. Beyond it: `context: polyphase`, see below.

Letters: B images, C image channels, H × W pixels, N halvings to the core resolution.
"""

import struct
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from codec.behind import Behind
from codec.bitstream import BitstreamError, StringReader, pack_strings
from codec.checks import check_choice, check_integer, check_positive
from codec.entropy import EntropyBottleneck, LogisticMixture, Mixture
from codec.entropy.mixture import Plane
from codec.entropy.pixel_coder import ADAPTATIONS, PixelCoder, Visit, in_turns, pixel_coder, read_in_turns
from codec.entropy.trace import observed
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.losses import RateDistortionLoss
from codec.networks import NETWORK_SHARE, BlockDCT, zero_
from codec.networks.attention_encoder import AttentionEncoder
from codec.networks.exact import ExactConv2d, ExactUpConv2d, codes, exact_kernels, exact_transposed
from codec.networks.pixel_predictor import CODING_ORDER, MID_GREY, POLYPHASE, PixelPredictor, Tap, fit
from codec.networks.samples import checksum, tiles_together, to_integers
from codec.windows import Picture, Size, Window, whole

# Before the pixels: tile size, levels and which adaptation, channels that are coded, checksum.
_HEAD = struct.Struct(">HBB4s")

_TOGETHER = 2  # tiles that are coded at a time


class LosslessUNet(LearnedCodec):
    """decode(encode(x)) == x, for every image.

        x ─ conv, N × strided conv ─ DoubleConvs with attention ─ bottleneck ─ z ─ N × transposed conv ─ features
                                                                       └─ section 0
        features ─ predictor ─ mixtures of logistics ─ arithmetic coder ─ section 1

    `context` "none" is the source's: all pixels are predicted at once, from z alone. "polyphase" codes every 2^L-th
    pixel of every 2^L-th row like that (L = `levels`), then doubles the resolution L times, each time in three
    parallel passes for the three missing 2×2 polyphase components, each conditioned on the features and on all
    pixels coded before. The finest resolution has predictors of its own, the coarser ones share theirs.

    `adaptation` "none" codes with the networks' mixtures as they are. "mixing" learns from every pixel that has
    been coded, and mixes what it learned with the mixtures (see codec.entropy.mixing).

    The image is cut into tiles of at most `tile` × `tile` pixels: the networks' memory, and the time per pixel, do
    not grow with the image. Two are coded at a time, plane by plane in turns, so that the networks see one while a
    decoder reads pixels of the other.

    `depth` is N; `features`, `width` and `blocks` the U-Net's and the predictors' channels and residual blocks;
    `components` logistics a mixture; `gates` (see PixelPredictor). `shortcut` "dct" (`context` "none" only) has
    z begin as a block DCT, rounded by `shortcut_step`, whose inverse is what pixels are first predicted from.
    """

    tag = "LOSS"
    efforts = None
    stride = 1
    section_count = 2
    shown_in_part = False
    lossless = True

    def __init__(
        self,
        bottleneck: Callable[..., EntropyBottleneck],
        image_channels: int = 3,
        context: str = "none",
        adaptation: str = "none",
        levels: int = 1,
        depth: int = 3,
        latent_channels: int = 192,
        features: int = 32,
        width: int = 32,
        blocks: int = 3,
        components: int = 3,
        gates: int = 8,
        shortcut: str = "dct",
        shortcut_step: float = 0.09,
        tile: int = 512,
    ) -> None:
        super().__init__(image_channels)
        check_choice("context", context, ("none", "polyphase"))
        check_choice("adaptation", adaptation, ADAPTATIONS)
        check_integer("depth", depth, 1, 6)
        check_integer("levels", levels, 1, depth)
        check_integer("latent_channels", latent_channels, 1)
        check_integer("features", features, 4)
        if features % 4:
            raise ArgumentError("features", features, "allowed are multiples of 4, for four heads of attention")
        least = 2 * image_channels - 1  # errors of each channel before stand in two of the `width`
        for name, value, low in (("width", width, least), ("blocks", blocks, 1), ("components", components, 1)):
            check_integer(name, value, low)
        check_integer("gates", gates, 0, 32)  # more products might not add up exactly
        check_choice("shortcut", shortcut, ("none", "dct"))
        if shortcut == "dct" and context != "none":
            raise ArgumentError("shortcut", shortcut, "allowed with context=none only; polyphase has pixels")
        check_positive("shortcut_step", shortcut_step)
        check_integer("tile", tile, 2**depth, 1 << 14)
        self.levels = levels if context == "polyphase" else 0
        self.adaptation = adaptation
        self._levels_byte = self.levels | ADAPTATIONS.index(adaptation) << 7
        self.depth, self.tile = depth, tile

        self.encoder = AttentionEncoder(image_channels, features, latent_channels, depth)
        groups = BlockDCT.groups(image_channels, latent_channels, 2**depth) if shortcut == "dct" else None
        self.bottleneck = bottleneck([latent_channels], groups=[groups])
        if self.bottleneck.variable_rate:
            raise ArgumentError("variable_rate", True, "a lossless codec has one rate")
        if self.bottleneck.noise == "chosen":
            raise ArgumentError("noise", "chosen", "a lossless codec's encoder chooses no levels: straight_through")
        reach = self.bottleneck.scale // 2
        self.expand = ExactConv2d(latent_channels, features, 3, padding=1, reach=reach)
        # Features are wanted from the core resolution up to the finest grid that pixels are predicted on.
        finest = 1 if self.levels else 0
        self.ups = nn.ModuleList(ExactUpConv2d(features, features) for _ in range(depth - finest))

        def predictor(planes: int, taps: tuple[Tap, ...]) -> PixelPredictor:
            join = 1 if self.levels else 3  # where pixels around are known, what was wrong there tells little more
            return PixelPredictor(planes, taps, image_channels, features, width, blocks, components, gates, join)

        self.base = predictor(1, (Tap(0, 0, 0),))
        self.predictors = nn.ModuleList(
            nn.ModuleList(predictor(planes, taps) for planes, taps in enumerate(POLYPHASE.values(), 1))
            for _ in range(min(self.levels, 2))
        )
        self.mixture = LogisticMixture()
        self.shortcut = self.to_preview = None
        if shortcut == "dct":
            self.shortcut = BlockDCT(
                image_channels, latent_channels, 2**depth, levels=self.bottleneck.scale, step=shortcut_step
            )
            zero_(self.encoder.project)
        else:
            self.to_preview = zero_(ExactConv2d(features, image_channels, 1))

    def check_loss(self, loss: RateDistortionLoss) -> None:
        if loss.rate_weight == 0:
            raise ArgumentError("rate_weight", 0, "a lossless codec trains for its rate alone: loss=rate")

    # ---- training

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives `x` back; the bits are those of z and of the pixels, in evaluation mode those of the file."""
        image = to_integers(x)
        if self.training:
            return x, self._bits(image)
        each = [self._file_bits(one) for one in image.split(1)]
        return x, {part: torch.cat([bits[part] for bits in each]) for part in each[0]}

    def latent(self, x: Tensor) -> list[Tensor]:
        return [self.g_a(to_integers(x))]

    def g_s(self, x: Tensor, quality: Tensor | None = None) -> Tensor:
        return x

    def _bits(self, image: Tensor) -> dict[str, Tensor]:
        (y_hat,), bits = self.bottleneck([self.g_a(image)])
        planes = [self.mixture.bits(mixture, pixels) for mixture, pixels, _ in self._visit(image, y_hat)]
        return {"z": sum(bits.values()), "x": torch.stack(planes).sum(0)}

    def _file_bits(self, image: Tensor) -> dict[str, Tensor]:
        """Bits `[1]` of z, by its tables, and of the pixels of one image, in evaluation mode, as they are coded."""
        pixels, z = self._pixel_coder(image, counted=True), []

        def tile_bits(y: Tensor) -> Tensor:
            (y_hat,), bits = self.bottleneck([y])
            z.append(sum(bits.values()))
            return y_hat

        self._write(image, pixels, tile_bits)
        return {"z": torch.stack(z).sum(0), "x": z[0].new_tensor([pixels.bits()])}

    def _channels_to_code(self, image: Tensor) -> int:
        """1 if all channels are equal, of every image of the batch; else all of them."""
        return 1 if bool((image == image[:, :1]).all()) else self.image_channels

    # ---- files

    def write(self, x: Picture, size: Size) -> list[bytes]:
        """Section 0: z, tile by tile. Section 1: tile size, levels, coded channels, a CRC-32, and the pixels.

        docs/lossless_format.md has every byte. Raises EncodeError if the coder does not give back what it was told.
        """
        image = torch.empty(1, self.image_channels, *size, dtype=torch.uint8, device=self.device)
        for part in self.tiles(whole(size), size, self.synthesis_reach):
            part.of(image, size).copy_(to_integers(x(part)))
        latents, pixels = [], self._pixel_coder(image)

        def there_and_back(y: Tensor) -> Tensor:
            latents.append(self.bottleneck.compress([y]))
            (z,) = self.bottleneck.decompress(latents[-1], [y.shape[-2:]])
            return z

        self._write(image, pixels, there_and_back)
        head = _HEAD.pack(self.tile, self._levels_byte, self._channels_to_code(image), checksum(image))
        return [pack_strings(latents), head + pixels.finish()]

    def read(self, sections: list[bytes], size: Size, scale: int = 1, cut: bool = False) -> Tensor:
        """All pixels, uint8 `[1, C, H, W]`. Raises BitstreamError if they are not those of the checksum."""
        latents = StringReader(sections[0])
        _, _, channels, expected = _HEAD.unpack_from(sections[1])
        image = torch.zeros(1, self.image_channels, *size, dtype=torch.uint8, device=self.device)
        pixels = self._pixel_coder(image, sections[1][_HEAD.size :])

        def read(mixture: Mixture, plane: Plane) -> Tensor:
            return observed("x", partial(self.mixture.told, mixture), partial(pixels.read, mixture, plane))

        def visit(tile: Tensor, corner: tuple[int, int]) -> Visit:
            (z,) = self.bottleneck.decompress(latents.next(), [self._core_size(tile.shape[-2:])])
            return self._visit(tile, z, channels, corner)

        with exact_kernels(self.device.type):
            for together in tiles_together(image, self.tile, _TOGETHER):
                read_in_turns([visit(*tile) for tile in together], read)
        latents.end()
        pixels.end()
        if checksum(image) != expected:
            raise BitstreamError("the decoded pixels are not those that were encoded: their checksum differs")
        return image

    def draw(self, coded: Tensor, part: Window, size: Size) -> Tensor:
        return part.of(coded, size) / 255

    def synthesis_reach(self) -> int:
        return 0

    def check_size(self, height: int, width: int) -> None:
        super().check_size(height, width)
        margin, limit = 2**self.levels, Image.MAX_IMAGE_PIXELS
        # What is known of the pixels is kept with a margin: of a long and thin image mostly that.
        if limit is not None and (height + 2 * margin) * (width + 2 * margin) > 4 * limit:
            raise ValueError(f"{width}×{height} pixels, and {margin} around them, are more than four times {limit}")

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        if len(sections[1]) < _HEAD.size:
            raise BitstreamError("the section of the pixels is cut")
        tile_size, levels, coded, _ = _HEAD.unpack_from(sections[1])
        if (tile_size, levels) != (self.tile, self._levels_byte) or coded not in (1, self.image_channels):
            raise BitstreamError(
                f"the file has tiles of {tile_size} pixels, levels and adaptation {levels}, {coded} channels: "
                f"this codec has {self.tile}, {self._levels_byte} and 1 or {self.image_channels}"
            )
        if coded > channels:
            raise BitstreamError(f"the header claims {channels} channel, but {coded} are coded")
        if 8 * len(sections[1]) < pixel_coder(self.adaptation).least_bits(coded) * size[0] * size[1]:
            raise BitstreamError(f"{len(sections[1])} bytes are too short a section for {size[1]}×{size[0]} pixels")
        # The tiles together have no fewer latents than the image in one piece.
        self.bottleneck.check_length(sections[0], [self._core_size(size)])

    def _pixel_coder(self, image: Tensor, data: bytes | None = None, counted: bool = False) -> PixelCoder:
        """What writes the pixels of an image like `image` `[1, C, H, W]`, counts their bits, or reads `data`."""
        order, size = CODING_ORDER[self.image_channels], tuple(image.shape[1:])
        return pixel_coder(self.adaptation, counted)(self.mixture, size, order, data)

    def _write(self, image: Tensor, pixels: PixelCoder, coded: Callable[[Tensor], Tensor]) -> None:
        """Has `pixels` write an image; `coded` turns y of a tile into what a decoder has of it."""
        channels = self._channels_to_code(image)
        # An encoder has all pixels: while one plane is coded, the networks see the next ones.
        with exact_kernels(image.device.type), Behind(pixels.write) as write:
            for together in tiles_together(image, self.tile, _TOGETHER):
                visits = [self._visit(tile, coded(self.g_a(tile)), channels, at) for tile, at in together]
                for mixture, target, plane in in_turns(visits):
                    write(mixture, target, plane)

    def _core_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (-(-side // 2**self.depth) for side in size)
        return height, width

    # ---- the model

    def g_a(self, image: Tensor) -> Tensor:
        """A tile `[B, C, h, w]` of 0…255, float or uint8 → y `[B, M, ⌈h/2^N⌉, ⌈w/2^N⌉]`."""
        height, width = (-(-side // 2**self.depth) * 2**self.depth for side in image.shape[-2:])
        x = fit(image.float(), height, width) / 255
        y = self.encoder(x - 0.5)
        if self.shortcut is not None:
            y = self.shortcut.analysis(x) + NETWORK_SHARE * y
        return y

    def _visit(
        self, tile: Tensor, y_hat: Tensor, channels: int | None = None, corner: tuple[int, int] = (0, 0)
    ) -> Visit:
        """Yields `(mixture, pixels, plane)` for all channels of all planes of a tile `[B, C, h, w]`, in order.

        The pixels, `[B, h', w']`, are views of the tile. An encoder reads them; a decoder writes them before it
        goes on, which is how what is known later on gets its pixels. With `channels` 1, all others are copies of
        the first. `corner` is where the tile begins in its image.
        """
        order = CODING_ORDER[self.image_channels]

        def predict(predictor: PixelPredictor, known: Tensor, features: Tensor, pixels: Tensor, at: Plane) -> Visit:
            for parameters, target, n in predictor(known, features, pixels, channels):
                yield Mixture(*parameters), target, at._replace(channel=order[n], position=n)
            for other in order[1:] if channels == 1 else ():
                pixels[:, other].copy_(pixels[:, order[0]])

        def plane_at(down: int, right: int, step: int, phase: int, kind: int) -> Plane:
            return Plane(order[0], 0, corner[0] + down, corner[1] + right, step, phase, kind)

        z = y_hat * self.bottleneck.scale
        features = self._features(z, tile.shape[-2:])
        step = 2**self.levels
        preview = self._preview(z, features[self.levels])
        base = tile[..., ::step, ::step]
        yield from predict(self.base, preview, features[self.levels], base, plane_at(0, 0, step, 0, 0))
        for level in reversed(range(self.levels)):
            image = tile[..., :: 2**level, :: 2**level]
            known = [image[..., ::2, ::2].float()]
            height, width = known[0].shape[-2:]
            for phase, (down, right) in enumerate(POLYPHASE, 1):
                pixels = image[..., down::2, right::2]
                if pixels.numel():
                    predictor, kind = self.predictors[min(level, 1)][phase - 1], phase + (0 if level else 3)
                    first = plane_at(down << level, right << level, 2 << level, phase, kind)
                    yield from predict(predictor, torch.cat(known, 1), features[level + 1], pixels, first)
                # Of a tile one pixel high or wide, some planes are empty.
                known.append(fit(pixels.float(), height, width) if pixels.numel() else known[0])

    def _features(self, z: Tensor, size: tuple[int, int]) -> dict[int, Tensor]:
        """Codes `[B, F, ⌈H/2^k⌉, ⌈W/2^k⌉]` for k from N down to the finest grid that pixels are predicted on."""
        found = {self.depth: codes(self.expand(z))}
        for halvings_undone, up in enumerate(self.ups, 1):
            k = self.depth - halvings_undone
            height, width = (-(-side // 2**k) for side in size)
            found[k] = codes(up(found[k + 1]))[..., :height, :width]
        return found

    def _preview(self, z: Tensor, features: Tensor) -> Tensor:
        """What z alone says of the base plane's pixels: whole numbers 0…255, at the grid of `features`."""
        if self.shortcut is None:
            return codes(self.to_preview(features) + MID_GREY)
        with torch.autocast(z.device.type, enabled=False):
            weight = self.shortcut.synthesis_weight / (self.shortcut.scale[..., None] * self.shortcut.unit)
            weight = weight * (255 / self.bottleneck.scale)
            if not self.training:
                weight, _ = exact_transposed(weight, None, self.bottleneck.scale // 2, self.shortcut.block)
            preview = F.conv_transpose2d(z.float(), weight, stride=self.shortcut.block) + 127.5
        return codes(preview)[..., : features.shape[-2], : features.shape[-1]]
