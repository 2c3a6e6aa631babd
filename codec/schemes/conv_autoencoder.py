"""conv_autoencoder: the convolutional autoencoders, baseline and enhanced.

"Lossy Compression by Convolutional Autoencoder",
https://github.com/jaydenw712/Lossy-Compression-by-Convolutional-Autoencoder

Differs from the paper: the bottleneck is quantised and entropy-coded, so that there is a file; and the enhanced
model's skip connections are quantised and coded too (`skip_channels`), since a decoder has nothing else.

Letters: B images, C image channels, H × W pixels, M latent channels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, cat, nn

from codec.checks import check_integer, check_integers
from codec.entropy import EntropyBottleneck
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.networks import ConvBlock, Upsample


class ConvBaseline(LearnedCodec):
    """Four levels of [conv, BN, ReLU, max-pool] down to 1/16, four of [upsample, conv, BN, ReLU] back up.

        x ── encoder ── y ── bottleneck ── y_hat ── decoder ── x_hat
                             └── one section

    `widths` are the channels after each level, finest first; `latent_channels` M; `bottleneck` makes an
    EntropyBottleneck for the channels of a latent's tensors.
    """

    tag = "CONB"
    rate_tells = False

    def __init__(
        self,
        bottleneck: Callable[[Sequence[int]], EntropyBottleneck],
        image_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 128),
        latent_channels: int = 32,
    ) -> None:
        super().__init__(image_channels)
        check_integers("widths", widths, lowest=1, fewest=2)
        check_integer("latent_channels", latent_channels, 1)
        self.stride = 2 ** len(widths)
        self.encoder = nn.Sequential()
        for inputs, outputs in pairwise([image_channels, *widths]):
            self.encoder.extend([ConvBlock(inputs, outputs), nn.MaxPool2d(2)])
        self.encoder.append(nn.Conv2d(widths[-1], latent_channels, 1))
        self.bottleneck = bottleneck([latent_channels])
        self.decoder = nn.Sequential()
        for inputs, outputs in pairwise([latent_channels + self.bottleneck.step_planes, *reversed(widths)]):
            self.decoder.extend([Upsample("nearest"), ConvBlock(inputs, outputs)])
        self.decoder.extend([nn.Conv2d(widths[0], image_channels, 3, padding=1), nn.Sigmoid()])

    def g_a(self, x: Tensor, quality: Tensor | None = None) -> list[Tensor]:
        return [self.encoder(x)]  # (B, M, H/16, W/16)

    def g_s(self, y_hat: list[Tensor], quality: Tensor | None = None) -> Tensor:
        return self.decoder(self.bottleneck.with_step(y_hat[0], quality))

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
    `dropout` drops whole channels of y_hat's first upsampled level in training.
    """

    tag = "CONE"
    rate_tells = False

    def __init__(
        self,
        bottleneck: Callable[[Sequence[int]], EntropyBottleneck],
        image_channels: int = 3,
        widths: Sequence[int] = (32, 64, 96, 128),
        latent_channels: int = 8,
        skip_channels: Sequence[int] = (0, 0, 2),
        dropout: float = 0.05,
    ) -> None:
        super().__init__(image_channels)
        check_integers("widths", widths, lowest=1, fewest=2)
        check_integer("latent_channels", latent_channels, 1)
        levels = len(widths) - 1
        check_integers("skip_channels", skip_channels, lowest=0, count=levels)
        if type(dropout) not in (int, float) or not 0 <= dropout < 1:
            raise ArgumentError("dropout", dropout, "allowed are numbers from 0 up to, not including, 1")
        self.stride = 2**levels
        # What is coded, coarse to fine: y at level `levels`, then s_n at level n.
        self.coded = [levels, *(n for n in reversed(range(levels)) if skip_channels[n])]
        channels = [*skip_channels, latent_channels]
        self.project = nn.ModuleDict({str(n): nn.Conv2d(widths[n], channels[n], 1) for n in self.coded})
        self.bottleneck = bottleneck([channels[n] for n in self.coded])
        self.stem = nn.Sequential(ConvBlock(image_channels, widths[0]), ConvBlock(widths[0], widths[0]))
        self.down, self.up, self.merge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for n, (fine, coarse) in enumerate(pairwise(widths)):
            below = latent_channels + self.bottleneck.step_planes if n == levels - 1 else coarse
            self.down.append(nn.Sequential(ConvBlock(fine, coarse), nn.MaxPool2d(2), ConvBlock(coarse, coarse)))
            self.up.append(nn.Sequential(Upsample("bilinear"), ConvBlock(below, fine)))
            self.merge.append(ConvBlock(fine + skip_channels[n], fine))
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Sequential(nn.Conv2d(widths[0], image_channels, 3, padding=1), nn.Sigmoid())

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] >> n, size[1] >> n) for n in self.coded]

    def g_a(self, x: Tensor, quality: Tensor | None = None) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, M, H/8, W/8]`, then the skips, `[B, skip_channels[n], H/2^n, W/2^n]`."""
        features = [self.stem(x)]
        for down in self.down:
            features.append(down(features[-1]))
        return [self.project[str(n)](features[n]) for n in self.coded]

    def g_s(self, y_hat: list[Tensor], quality: Tensor | None = None) -> Tensor:
        """The quantised latent → `x_hat` `[B, C, H, W]`."""
        decoded = dict(zip(self.coded, y_hat, strict=True))
        h = self.bottleneck.with_step(decoded.pop(len(self.up)), quality)
        for n in reversed(range(len(self.up))):
            h = self.up[n](h)  # (B, widths[n], H/2^n, W/2^n)
            if n == len(self.up) - 1:
                h = self.dropout(h)
            if n in decoded:
                h = cat([h, decoded[n]], dim=1)
            h = self.merge[n](h)
        return self.head(h)
