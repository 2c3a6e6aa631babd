"""diffusion: a ResNet encoder and a U-Net decoder that learns to undo diffusion noise.

"Diffusion-Based Image Compression Using ResNet Encoder and U-Net Decoder".

Differs from the paper: the latent is quantised and entropy-coded, so that there is a file; the encoder features
that the decoder concatenates are quantised, coded and counted too (`skips: coded`) or left out (`skips: none`),
since a decoder has nothing else. Beyond the paper: `shortcut: dct` and `decoder: iterative`, see below.

Letters: B images, C image channels, H × W pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from codec.checks import check_choice, check_integer, check_integers, check_positive
from codec.entropy import CENTRE, EntropyBottleneck
from codec.learned_codec import LearnedCodec, Reconstruction
from codec.networks import (
    NETWORK_SHARE,
    SKIP_WIDTHS,
    BlockDCT,
    ConditionalUNet,
    ConvBlock,
    NoiseSchedule,
    ResidualBlock,
    UNetDecoder,
    zero_,
)

LATENT_CHANNELS = 128


class DiffusionAutoencoder(LearnedCodec):
    """Three halvings to a latent of 128 channels, three doublings back.

        x ── stem /2 ── res ── down /4 ── res ── down /8 ── res ── y ── bottleneck ── y_hat ── decoder ── x_hat
               └ skip 2  └ skip 1           └ skip 0       each: project to few channels, bottleneck, expand

    `skips` "coded" or "none"; `skip_channels` are those coded of each, coarsest first (1/4, 1/2, 1/2).

    `decoder` "one_shot" is the paper's: in training the normalised latent is noised by `q_sample` at a random t
    below `max_t` (of 1000; 0: never), one a batch; to decode, none. "iterative" diffuses the image instead: a U-Net
    that sees t and what was decoded predicts x_0 from the noisy image (Yang & Mandt 2023,
    https://arxiv.org/abs/2209.06950, X-parametrisation), and DDIM samples in `steps` steps from noise drawn with
    `sampling_seed`, so that a file decodes to the same image every time. Encoder and file format are those of both.

    `shortcut` "dct" adds a learnable block DCT around the networks, whose ends start at zero: y = DCT(x) +
    encoder(x) / 10, x_hat = DCT⁻¹(y_hat) + decoder(y_hat) / 10 (see NETWORK_SHARE). Training then begins at a
    working codec, whose rate `shortcut_step` sets (see BlockDCT). "none" is the paper's.
    """

    tag = "DIFF"
    stride = 8

    def __init__(
        self,
        bottleneck: Callable[[int], EntropyBottleneck],
        image_channels: int = 3,
        skips: str = "coded",
        skip_channels: Sequence[int] = (8, 2, 2),
        shortcut: str = "none",
        shortcut_step: float = 0.09,
        decoder: str = "one_shot",
        max_t: int = 1000,
        steps: int = 10,
        sampling_seed: int = 0,
    ) -> None:
        super().__init__(image_channels)
        self.schedule = NoiseSchedule()
        check_choice("skips", skips, ("coded", "none"))
        check_integers("skip_channels", skip_channels, count=3, lowest=1)
        check_choice("shortcut", shortcut, ("none", "dct"))
        check_positive("shortcut_step", shortcut_step)
        check_choice("decoder", decoder, ("one_shot", "iterative"))
        check_integer("max_t", max_t, 0, self.schedule.steps)
        check_integer("steps", steps, 1, self.schedule.steps)
        check_integer("sampling_seed", sampling_seed, 0, 2**63 - 1)
        self.max_t = max_t
        self.steps = steps
        self.sampling_seed = sampling_seed

        self.stem = ConvBlock(image_channels, 64, kernel=7, stride=2)
        self.encoder = nn.ModuleList(
            [
                ResidualBlock(64),
                nn.Sequential(ConvBlock(64, 128, stride=2), ResidualBlock(128)),
                nn.Sequential(ConvBlock(128, 128, stride=2), ResidualBlock(128)),
            ]
        )
        self.to_latent = nn.Conv2d(128, LATENT_CHANNELS, 1)
        self.bottleneck = bottleneck(LATENT_CHANNELS)
        coded = zip(skip_channels, SKIP_WIDTHS, strict=True) if skips == "coded" else ()
        self.skips = nn.ModuleList(_CodedSkip(width, bottleneck(few)) for few, width in coded)
        self.section_count = 1 + len(self.skips)
        self.shortcut, self.share = None, 1.0
        if shortcut == "dct":
            self.share = NETWORK_SHARE
            self.shortcut = BlockDCT(
                image_channels,
                LATENT_CHANNELS,
                block=self.stride,
                levels=self.bottleneck.scale,
                step=shortcut_step,
                overlap=4,
            )
            zero_(self.to_latent)
        # The schedule assumes unit variance, which this brings to all channels but those that are almost always 0.
        self.normalise = nn.BatchNorm2d(LATENT_CHANNELS, affine=False)
        self.iterative = decoder == "iterative"
        if self.iterative:
            self.decode_options = {"steps": range(1, self.schedule.steps + 1)}
            self.decoder = ConditionalUNet(image_channels, bool(self.skips))
        else:
            self.decoder = UNetDecoder(image_channels, bool(self.skips), starts_at_zero=shortcut == "dct")

    def analyse(self, x: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        y_hats, bits = [], {}
        parts = ("y", "skip_0", "skip_1", "skip_2")[: self.section_count]
        for part, bottleneck, y in zip(parts, self.bottlenecks_in_order(), self.g_a(x), strict=True):
            y_hat, bits[part] = bottleneck(y)
            y_hats.append(y_hat)
        return y_hats, bits

    def forward(self, x: Tensor) -> Reconstruction:
        if not (self.training and self.iterative):
            return super().forward(x)
        y_hats, bits = self.analyse(x)
        return Reconstruction(self._denoised_once(x, y_hats), bits)

    def compress(self, x: Tensor) -> list[bytes]:
        return [
            bottleneck.compress(y) for bottleneck, y in zip(self.bottlenecks_in_order(), self.g_a(x), strict=True)
        ]

    def decompress(self, sections: list[bytes], size: tuple[int, int]) -> Tensor:
        coded = zip(self.bottlenecks_in_order(), sections, self._latent_sizes(size), strict=True)
        return self.g_s([bottleneck.decompress(section, latent_size) for bottleneck, section, latent_size in coded])

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        coded = zip(self.bottlenecks_in_order(), sections, self._latent_sizes(size), strict=True)
        for bottleneck, section, latent_size in coded:
            bottleneck.check_length(section, latent_size)

    def _latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] // stride, size[1] // stride) for stride in (8, 4, 2, 2)[: self.section_count]]

    def extra_columns(self, image: Tensor) -> dict[str, float]:
        """The paper's own accounting, beside the ratio of real files."""
        height, width = self.padded(*image.shape[-2:])
        return paper_ratios(image.numel(), LATENT_CHANNELS * height * width // self.stride**2)

    def g_a(self, x: Tensor) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, 128, H/8, W/8]`, and the skips' latents at 1/4, 1/2 and 1/2 if coded."""
        stem = self.stem(x)  # (B, 64, H/2, W/2)
        half = self.encoder[0](stem)  # (B, 64, H/2, W/2)
        quarter = self.encoder[1](half)  # (B, 128, H/4, W/4)
        y = self.to_latent(self.encoder[2](quarter))  # (B, 128, H/8, W/8)
        if self.shortcut is not None:
            y = self.shortcut.analysis(x) + self.share * y
        features = (quarter, half, stem)[: len(self.skips)]
        return [y + CENTRE, *(skip.project(h) + CENTRE for skip, h in zip(self.skips, features, strict=True))]

    def g_s(self, y_hats: list[Tensor]) -> Tensor:
        """The decoded latents, in the order of `g_a` → `x_hat` `[B, C, H, W]`."""
        y, base, skips = self._conditions(y_hats)
        if not self.iterative:
            if self.training and self.max_t > 0:
                t = torch.randint(self.max_t, (), device=y.device)
                y = self.schedule.q_sample(y, t, torch.randn_like(y))
            return base + self.share * self.decoder(y, skips)
        generator = torch.Generator().manual_seed(self.sampling_seed)
        noise = torch.randn(base.shape, generator=generator).to(base.device)
        sample = self.schedule.ddim(
            lambda x_t, t: (2 * self._denoise(x_t, t, y, base, skips) - 1).clamp(-1, 1), noise, self.steps
        )
        return (sample + 1) / 2

    def _denoise(self, x_t: Tensor, t: Tensor, y: Tensor, base: Tensor, skips: list[Tensor]) -> Tensor:
        return base + self.share * self.decoder(x_t, t, y, base, skips)

    def _denoised_once(self, x: Tensor, y_hats: list[Tensor]) -> Tensor:
        """What the iterative decoder's network makes of `x`, diffused to a random t of each image's own."""
        y, base, skips = self._conditions(y_hats)
        t = torch.randint(self.schedule.steps, (len(x),), device=x.device)
        x_t = self.schedule.q_sample(2 * x - 1, t, torch.randn_like(x))
        return self._denoise(x_t, t, y, base, skips)

    def _conditions(self, y_hats: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The normalised latent, the shortcut's reconstruction (mid-grey without one), the expanded skips."""
        y = y_hats[0] - CENTRE
        batch, _, height, width = y.shape
        if self.shortcut is not None:
            base = self.shortcut.synthesis(y)
        else:
            base = y.new_full((batch, self.image_channels, height * self.stride, width * self.stride), 0.5)
        skips = [skip.expand(s - CENTRE) for skip, s in zip(self.skips, y_hats[1:], strict=True)]
        return self.normalise(y), base, skips


class _CodedSkip(nn.Module):
    """A skip connection that is part of the file: 1×1 convolutions to few channels and back."""

    def __init__(self, width: int, bottleneck: EntropyBottleneck) -> None:
        super().__init__()
        self.project = nn.Conv2d(width, bottleneck.channels, 1)
        self.bottleneck = bottleneck
        self.expand = nn.Conv2d(bottleneck.channels, width, 1)


def paper_ratios(input_values: int, latent_values: int) -> dict[str, float]:
    """The paper's "compression ratios": values in over latent values, whatever a file would take.

    `paper_pixel_ratio` is the quotient. `paper_memory_ratio` is twice that: the paper's 4.32 MB for 270,000 values
    and 1.0486 MB for 131,072 amount to 16 bytes a value of the image and 8 of the latent.
    """
    ratio = input_values / latent_values
    return {"paper_pixel_ratio": ratio, "paper_memory_ratio": 2 * ratio}
