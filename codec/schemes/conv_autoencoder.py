"""conv_autoencoder: the convolutional autoencoders, baseline and enhanced.

"Lossy Compression by Convolutional Autoencoder",
https://github.com/jaydenw712/Lossy-Compression-by-Convolutional-Autoencoder

Differs from the paper: the bottleneck is quantised and entropy-coded, so that there is a file; and the enhanced
model's skip connections are quantised and coded too (`skip_channels`), since a decoder has nothing else. Beyond the
paper: with `shortcut: dct` a learnable block DCT takes the encoder's place (an encoder beside it brought 0.004 dB
for 0.06 % more bits), and its inverse stands beside the decoder, which ends at zero: training begins at a working
codec, whose rate `shortcut_step` sets (see DCTShortcut).

Letters: B images, C image channels, H × W pixels, M latent channels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, cat, nn

from codec.checks import check_integer, check_integers
from codec.dct_shortcut import bottleneck_and_shortcut
from codec.entropy import EntropyBottleneck
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.networks import ConvBlock, ImageConv2d, MaxPool, Upsample, UpsamplingLayers, quick_layout, zero_
from codec.networks.coded import Coded, as_floats, seen_by_encoder


class ConvBaseline(LearnedCodec):
    """Four levels of [conv, BN, ReLU, max-pool] down to 1/16, four of [upsample, conv, BN, ReLU] back up.

        x ── encoder ── y ── bottleneck ── y_hat ── decoder ── x_hat
                             └── one section

    `widths` are the channels after each level, finest first, of which there may be fewer; `latent_channels` M;
    `bottleneck` makes an EntropyBottleneck for the channels of a latent's tensors. With `shortcut` "dct" the
    encoder is a learnable block DCT, to whose inverse the decoder adds; `shortcut_step` sets its rate (see
    DCTShortcut).
    """

    tag = "CONB"

    def __init__(
        self,
        bottleneck: Callable[..., EntropyBottleneck],
        image_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 128),
        latent_channels: int = 32,
        shortcut: str = "none",
        shortcut_step: float = 0.09,
    ) -> None:
        super().__init__(image_channels)
        check_integers("widths", widths, lowest=1, fewest=2)
        check_integer("latent_channels", latent_channels, 1)
        self.stride = 2 ** len(widths)
        if shortcut == "none":
            self.encoder = nn.Sequential()
            for inputs, outputs in pairwise([image_channels, *widths]):
                self.encoder.extend([ConvBlock(inputs, outputs), MaxPool()])
            self.encoder.append(nn.Conv2d(widths[-1], latent_channels, 1))
        self.bottleneck, self.shortcut = bottleneck_and_shortcut(
            bottleneck, shortcut, image_channels, [latent_channels], self.stride, shortcut_step
        )
        self.rate_tells = self.shortcut is not None
        self.decoder = UpsamplingLayers()
        for inputs, outputs in pairwise([latent_channels + self.bottleneck.step_planes, *reversed(widths)]):
            self.decoder.extend([Upsample("nearest"), ConvBlock(inputs, outputs)])
        self.decoder.append(ImageConv2d(widths[0], image_channels))
        if self.shortcut is None:
            self.decoder.append(nn.Sigmoid())
        else:
            zero_(self.decoder[-1])

    def g_a(self, x: Tensor) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, M, H/stride, W/stride]`."""
        if self.shortcut is not None:
            return [self.shortcut.analysis(x)]
        *layers, project = self.encoder
        h = seen_by_encoder(self, x)
        for layer in layers:
            h = layer(h)
        return [project(as_floats(h))]

    def g_s(self, y_hat: list[Tensor], quality: Tensor | None = None) -> Tensor:
        (y,) = y_hat
        if self.shortcut is None:
            return self.decoder(quick_layout(self.bottleneck.with_step(y, quality)))
        decoded = self.decoder(self.shortcut.seen(self, y, quality)).float()
        return self.shortcut.synthesis(y) + self.shortcut.image_share(self.bottleneck, quality) * decoded

    def by_transform(self, y_hat: list[Tensor]) -> Tensor | None:
        return None if self.shortcut is None else self.shortcut.synthesis(y_hat[0])

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] // self.stride, size[1] // self.stride)]


class ConvEnhanced(LearnedCodec):
    """Three levels of two convolutions each to 1/8 and back, bilinear upsampling, dropout, coded skip connections.

        x ── stem ──┬─ down[0] ──┬─ down[1] ──┬─ down[2] ─── y ──┐
                   s_0          s_1          s_2                 │  each is projected; together they are the latent
        x_hat ─ head ┴── up[0] ──┴── up[1] ───┴── up[2] ── y_hat ┘  (up: upsample, conv, merge with the skip)

    Two convolutions at full size; then per level [conv, BN, ReLU, max-pool] + [conv, BN, ReLU] down to 1/8; per
    level up [upsample, conv, BN, ReLU] + [conv, BN, ReLU]. `widths` are the stem's channels and those of every
    level; `skip_channels[n]` of s_n, finest first, are projected, quantised, coded and counted (0: no skip).
    `dropout` drops whole channels of y_hat's first upsampled level in training. With a `shortcut` (as
    ConvBaseline's) y is of the DCT, nothing is projected, and every level up sees the DCT's image, 2^n × 2^n pixels
    as channels: a skip connection that costs no bits.
    """

    tag = "CONE"

    def __init__(
        self,
        bottleneck: Callable[..., EntropyBottleneck],
        image_channels: int = 3,
        widths: Sequence[int] = (16, 64, 96, 128),
        latent_channels: int = 8,
        skip_channels: Sequence[int] = (0, 0, 2),
        dropout: float = 0.05,
        shortcut: str = "none",
        shortcut_step: float = 0.09,
    ) -> None:
        super().__init__(image_channels)
        check_integers("widths", widths, lowest=1, fewest=2)
        check_integer("latent_channels", latent_channels, 1)
        levels = len(widths) - 1
        check_integers("skip_channels", skip_channels, lowest=0, count=levels)
        if shortcut != "none" and any(skip_channels):
            raise ArgumentError(
                "skip_channels", list(skip_channels), "with a shortcut all are 0: model.skip_channels=[0,0,0]"
            )
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise ArgumentError("dropout", dropout, "allowed are numbers from 0 up to, not including, 1")
        self.stride = 2**levels
        # What is coded, coarse to fine: y at level `levels`, then s_n at level n.
        self.coded = [levels, *(n for n in reversed(range(levels)) if skip_channels[n])]
        channels = [*skip_channels, latent_channels]
        encodes = shortcut == "none"
        if encodes:
            self.project = nn.ModuleDict({str(n): nn.Conv2d(widths[n], channels[n], 1) for n in self.coded})
        self.bottleneck, self.shortcut = bottleneck_and_shortcut(
            bottleneck,
            shortcut,
            image_channels,
            [channels[n] for n in self.coded],
            self.stride,
            shortcut_step,
        )
        self.rate_tells = self.shortcut is not None
        if encodes:
            self.stem = nn.Sequential(ConvBlock(image_channels, widths[0]), ConvBlock(widths[0], widths[0]))
        self.down, self.up, self.merge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for n, (fine, coarse) in enumerate(pairwise(widths)):
            below = latent_channels + self.bottleneck.step_planes if n == levels - 1 else coarse
            if encodes:
                self.down.append(nn.Sequential(ConvBlock(fine, coarse), MaxPool(), ConvBlock(coarse, coarse)))
            self.up.append(nn.Sequential(Upsample("bilinear"), ConvBlock(below, fine)))
            of_image = 0 if self.shortcut is None else image_channels * 4**n
            self.merge.append(ConvBlock(fine + skip_channels[n] + of_image, fine))
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Sequential(ImageConv2d(widths[0], image_channels))
        if encodes:
            self.head.append(nn.Sigmoid())
        else:
            zero_(self.head[0])

    def by_transform(self, y_hat: list[Tensor]) -> Tensor | None:
        return None if self.shortcut is None else self.shortcut.synthesis(y_hat[0])

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] >> n, size[1] >> n) for n in self.coded]

    def g_a(self, x: Tensor) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, M, H/8, W/8]`, then the skips, `[B, skip_channels[n], H/2^n, W/2^n]`."""
        if self.shortcut is not None:
            return [self.shortcut.analysis(x)]
        features = [self.stem(seen_by_encoder(self, x))]
        for down in self.down:
            features.append(down(features[-1]))
        return [self.project[str(n)](as_floats(features[n])) for n in self.coded]

    def g_s(self, y_hat: list[Tensor], quality: Tensor | None = None) -> Tensor:
        """The quantised latent → `x_hat` `[B, C, H, W]`."""
        y, *skips = y_hat
        beside = [[] for _ in self.up]
        for n, skip in zip(self.coded[1:], skips, strict=True):
            beside[n].append(skip)
        if self.shortcut is None:
            beside = [[quick_layout(skip) for skip in skips] for skips in beside]
            return self._up(quick_layout(self.bottleneck.with_step(y, quality)), beside)
        image = self.shortcut.synthesis(y)
        for n, tensors in enumerate(beside):
            tensors.append(self.shortcut.seen_beside(self, image, 2**n))
        decoded = self._up(self.shortcut.seen(self, y, quality), beside).float()
        return image + self.shortcut.image_share(self.bottleneck, quality) * decoded

    def _up(self, h: Tensor | Coded, beside: list[list[Tensor | Coded]]) -> Tensor:
        """From y_hat to full size; `beside[n]` is what level n sees besides, `[B, …, H/2^n, W/2^n]` each."""
        for n in reversed(range(len(self.up))):
            h = self.up[n](h)  # (B, widths[n], H/2^n, W/2^n)
            if n == len(self.up) - 1 and self.training:
                h = self.dropout(h)
            if beside[n]:
                h = Coded.joined([h, *beside[n]]) if isinstance(h, Coded) else cat([h, *beside[n]], dim=1)
            h = self.merge[n](h)
        return self.head(h)
