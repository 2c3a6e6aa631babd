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
from codec.entropy import CENTRE, EntropyBottleneck
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.networks import ConvBlock, Upsample


class ConvBaseline(LearnedCodec):
    """Four levels of [conv, BN, ReLU, max-pool] down to 1/16, four of [upsample, conv, BN, ReLU] back up.

        x ── g_a ── y ── bottleneck ── y_hat ── g_s ── x_hat
                              └── one section

    `widths` are the channels after each level, finest first; `latent_channels` M; `bottleneck` makes an
    EntropyBottleneck for a number of channels.
    """

    tag = "CONB"
    rate_tells = False

    def __init__(
        self,
        bottleneck: Callable[[int], EntropyBottleneck],
        image_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128, 128),
        latent_channels: int = 32,
    ) -> None:
        super().__init__(image_channels)
        check_integers("widths", widths, lowest=1, fewest=2)
        check_integer("latent_channels", latent_channels, 1)
        self.stride = 2 ** len(widths)
        down = [image_channels, *widths]
        up = [latent_channels, *reversed(widths)]
        self.g_a = nn.Sequential()
        for inputs, outputs in pairwise(down):
            self.g_a.extend([ConvBlock(inputs, outputs), nn.MaxPool2d(2)])
        self.g_a.append(nn.Conv2d(widths[-1], latent_channels, 1))
        self.bottleneck = bottleneck(latent_channels)
        self.g_s = nn.Sequential()
        for inputs, outputs in pairwise(up):
            self.g_s.extend([Upsample("nearest"), ConvBlock(inputs, outputs)])
        self.g_s.extend([nn.Conv2d(widths[0], image_channels, 3, padding=1), nn.Sigmoid()])

    def analyse(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.g_a(x) + CENTRE  # (B, M, H/16, W/16)
        y_hat, bits = self.bottleneck(y)
        return y_hat - CENTRE, {"y": bits}

    def compress(self, x: Tensor) -> list[bytes]:
        y = self.g_a(x) + CENTRE
        return [self.bottleneck.compress(y)]

    def decompress(self, sections: list[bytes], size: tuple[int, int]) -> Tensor:
        y_hat = self.bottleneck.decompress(sections[0], self._latent_size(size))
        return self.g_s(y_hat - CENTRE)

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        self.bottleneck.check_length(sections[0], self._latent_size(size))

    def _latent_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.stride, size[1] // self.stride


class ConvEnhanced(LearnedCodec):
    """Three levels of two convolutions each to 1/8 and back, bilinear upsampling, dropout, coded skip connections.

        x ── stem ──┬─ down[0] ──┬─ down[1] ──┬─ down[2] ─── y ──┐
                   s_0          s_1          s_2                 │  each latent: project, bottleneck, section
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
        bottleneck: Callable[[int], EntropyBottleneck],
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
        self.stem = nn.Sequential(ConvBlock(image_channels, widths[0]), ConvBlock(widths[0], widths[0]))
        self.down, self.up, self.merge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.project, self.bottlenecks = nn.ModuleDict(), nn.ModuleDict()
        self.strides = {}
        for n, (fine, coarse) in enumerate(pairwise(widths)):
            below = latent_channels if n == levels - 1 else coarse
            self.down.append(nn.Sequential(ConvBlock(fine, coarse), nn.MaxPool2d(2), ConvBlock(coarse, coarse)))
            self.up.append(nn.Sequential(Upsample("bilinear"), ConvBlock(below, fine)))
            self.merge.append(ConvBlock(fine + skip_channels[n], fine))
            if skip_channels[n]:
                self._add_latent(f"s_{n}", fine, bottleneck(skip_channels[n]), stride=2**n)
        self._add_latent("y", widths[-1], bottleneck(latent_channels), stride=2**levels)
        self.section_count = len(self.bottlenecks)
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Sequential(nn.Conv2d(widths[0], image_channels, 3, padding=1), nn.Sigmoid())

    def _add_latent(self, name: str, features: int, bottleneck: EntropyBottleneck, stride: int) -> None:
        self.project[name] = nn.Conv2d(features, bottleneck.channels, 1)
        self.bottlenecks[name] = bottleneck
        self.strides[name] = stride

    def analyse(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        y_hat, bits = {}, {}
        for name, y in self.g_a(x).items():
            y_hat[name], bits[name.replace("s_", "skip_")] = self.bottlenecks[name](y)
        return y_hat, bits

    def compress(self, x: Tensor) -> list[bytes]:
        return [self.bottlenecks[name].compress(y) for name, y in self.g_a(x).items()]

    def decompress(self, sections: list[bytes], size: tuple[int, int]) -> Tensor:
        y_hat = {}
        for (name, bottleneck), section in zip(self.bottlenecks.items(), sections, strict=True):
            y_hat[name] = bottleneck.decompress(section, self._latent_size(name, size))
        return self.g_s(y_hat)

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        for (name, bottleneck), section in zip(self.bottlenecks.items(), sections, strict=True):
            bottleneck.check_length(section, self._latent_size(name, size))

    def _latent_size(self, name: str, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] // self.strides[name], size[1] // self.strides[name]

    def g_a(self, x: Tensor) -> dict[str, Tensor]:
        """`x` `[B, C, H, W]` → every latent that is coded, by name, in the order of the sections."""
        latents = {}
        h = self.stem(x)  # (B, widths[0], H, W)
        for n, down in enumerate(self.down):
            if f"s_{n}" in self.project:
                latents[f"s_{n}"] = self.project[f"s_{n}"](h) + CENTRE  # (B, skip_channels[n], H/2^n, W/2^n)
            h = down(h)
        latents["y"] = self.project["y"](h) + CENTRE  # (B, M, H/8, W/8)
        return latents

    def g_s(self, y_hat: dict[str, Tensor]) -> Tensor:
        """The quantised latents → `x_hat` `[B, C, H, W]`."""
        h = y_hat["y"] - CENTRE
        for n in reversed(range(len(self.up))):
            h = self.up[n](h)  # (B, widths[n], H/2^n, W/2^n)
            if n == len(self.up) - 1:
                h = self.dropout(h)
            if f"s_{n}" in y_hat:
                h = cat([h, y_hat[f"s_{n}"] - CENTRE], dim=1)
            h = self.merge[n](h)
        return self.head(h)
