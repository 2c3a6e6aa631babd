"""diffusion: a ResNet encoder and a U-Net decoder that learns to undo diffusion noise.

"Diffusion-Based Image Compression Using ResNet Encoder and U-Net Decoder".

Differs from the paper: the latent is quantised and entropy-coded, so that there is a file; the encoder features
that the decoder concatenates are quantised, coded and counted too (`skips: coded`) or left out (`skips: none`),
since a decoder has nothing else. Beyond the paper: `shortcut: dct` or `wavelet`, `decoder: iterative`, see below.

Letters: B images, C image channels, H × W pixels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, cat, nn

from codec.checks import check_choice, check_integer, check_integers, check_positive
from codec.dct_shortcut import bottleneck_and_shortcut
from codec.entropy import QUALITIES, EntropyBottleneck
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.networks import (
    NETWORK_SHARE,
    SKIP_WIDTHS,
    ConvBlock,
    DetailDenoiser,
    NoiseSchedule,
    ResidualBlock,
    UNetDecoder,
    Wavelet,
    WaveletUNet,
    zero_,
)
from codec.networks.coded import seen_by_decoder
from codec.networks.modes import quick_layout, roughly
from codec.rate_distortion_module import Reconstruction, gradient_times
from codec.windows import Size, Window

LATENT_CHANNELS = 128
_NORMALISED_REACH = 16.0  # of codes of the normalised latent
_WAVELET_LEVELS = 5
_WAVELET_SCALES = (2, 4, 8)


class DiffusionAutoencoder(LearnedCodec):
    """Three halvings to a latent of 128 channels, three doublings back.

        x ── stem /2 ── res ── down /4 ── res ── down /8 ── res ── y ──┬─ bottleneck ── y_hat ── decoder ── x_hat
               └ skip 2  └ skip 1           └ skip 0   each projected ─┘                        (skips expanded)

    `skips` "coded" or "none"; `skip_channels` are those coded of each, coarsest first (1/4, 1/2, 1/2): with y they
    are the latent, a pyramid of three tensors.

    `decoder` "one_shot" is the paper's: in training the normalised latent is noised by `q_sample` at a random t
    below `max_t` (of 1000; 0: never), one a batch; to decode, none. "iterative" adds detail to what that
    decoder gives, at any rate: of the image less the decoded one, diffused to t, a second U-Net predicts x_0 (after
    Ghouse et al. 2023, https://arxiv.org/abs/2301.05489), and DDIM samples in `steps` steps from noise drawn with
    `sampling_seed`, so that a file decodes to the same image every time. At the first step noise tells nothing, and
    nothing is added: one step is the one-shot decoder, bit by bit. Only the second U-Net is trained, behind a codec
    that has been (`start_from=`) and whose weights stay as they are: the sections of a file are those of both.

    `shortcut` "dct" adds a learnable block DCT around the networks, whose ends start at zero: y = DCT(x) +
    encoder(x) / 10, x_hat = DCT⁻¹(y_hat) + decoder(y_hat) / 10 (see NETWORK_SHARE; with a variable rate, the
    encoder counts as in DCTShortcut). Training then begins at a working codec, whose rate `shortcut_step` sets.
    "wavelet" has a pyramid of five levels instead of an encoder: y is the details of 1/8, the skips are those of
    1/4 and 1/2, two coarser tensors come before, and the quantiser's bits set its rate. The noise that its one-shot
    decoder undoes is the quantiser's own, as large as the quality says (see WaveletUNet). "none" is the paper's.
    `decoder` "none" leaves the networks out: transform, quantiser and prior are the whole codec.
    """

    tag = "DIFF"
    window = 2048

    def __init__(
        self,
        bottleneck: Callable[..., EntropyBottleneck],
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
        check_choice("shortcut", shortcut, ("none", "dct", "wavelet"))
        check_positive("shortcut_step", shortcut_step)
        check_choice("decoder", decoder, ("one_shot", "iterative", "none"))
        if decoder == "none" and shortcut == "none":
            raise ArgumentError("decoder", decoder, "without networks a shortcut is needed: dct or wavelet")
        check_integer("max_t", max_t, 0, self.schedule.steps)
        check_integer("steps", steps, 1, self.schedule.steps)
        check_integer("sampling_seed", sampling_seed, 0, 2**63 - 1)
        self.max_t = max_t
        self.steps = steps
        self.sampling_seed = sampling_seed

        self.shortcut = None
        has_skips = skips == "coded" and decoder != "none"
        self.share = 1.0 if shortcut == "none" else NETWORK_SHARE
        if shortcut == "wavelet":
            if skips == "none":
                raise ArgumentError("skips", skips, "with shortcut=wavelet allowed is coded: they are its details")
            self.shortcut = Wavelet(image_channels, _WAVELET_LEVELS)
            self.stride = 2**_WAVELET_LEVELS
            self.scales = _WAVELET_SCALES
            channels = self.shortcut.channels
            self.bottleneck = bottleneck(channels, groups=self.shortcut.groups(), bounded=False, gains=False)
        else:
            self.stride = 8
            few, *finest = skip_channels
            channels = [LATENT_CHANNELS, *([few, sum(finest)] if has_skips else [])]
            self.bottleneck, self.shortcut = bottleneck_and_shortcut(
                bottleneck, shortcut, image_channels, channels, self.stride, shortcut_step
            )
        self.encoder = self.decoder = self.denoiser = None
        if decoder == "none":
            return
        if shortcut == "wavelet":
            self.decoder = WaveletUNet(image_channels)
        else:
            self._add_networks(shortcut, skip_channels if has_skips else ())
        if decoder == "iterative":
            self.requires_grad_(False)
            self.denoiser = DetailDenoiser(image_channels)
            self.decode_options = {"steps": range(1, self.schedule.steps + 1)}

    def _add_networks(self, shortcut: str, skip_channels: Sequence[int]) -> None:
        self.stem = ConvBlock(self.image_channels, 64, kernel=7, stride=2)
        self.encoder = nn.ModuleList(
            [
                ResidualBlock(64),
                nn.Sequential(ConvBlock(64, 128, stride=2), ResidualBlock(128)),
                nn.Sequential(ConvBlock(128, 128, stride=2), ResidualBlock(128)),
            ]
        )
        self.to_latent = nn.Conv2d(128, LATENT_CHANNELS, 1)
        if shortcut == "dct":
            zero_(self.to_latent)
        widths = SKIP_WIDTHS[: len(skip_channels)]
        self.skips = nn.ModuleList(_CodedSkip(*sizes) for sizes in zip(widths, skip_channels, strict=True))
        # The schedule assumes unit variance, which this brings to all channels but those that are almost always 0.
        self.normalise = nn.BatchNorm2d(LATENT_CHANNELS, affine=False)
        self.decoder = UNetDecoder(
            self.image_channels,
            bool(self.skips),
            starts_at_zero=shortcut != "none",
            y_channels=LATENT_CHANNELS + self.bottleneck.step_planes,
        )

    def train(self, mode: bool = True) -> "DiffusionAutoencoder":
        super().train(mode)
        if self.denoiser is not None:
            # BatchNorm's statistics stay, too; the bottleneck chooses levels as an encoder.
            for part in self.children():
                part.train(mode and part in (self.denoiser, self.bottleneck))
        return self

    def forward(self, x: Tensor) -> Reconstruction:
        if self.denoiser is None:
            return super().forward(x)
        if self.training:
            return self._denoised_once(x)
        at_once = super().forward(x)
        return at_once._replace(x_hat=self._with_detail(at_once.x_hat, self._qualities(len(x))))

    def from_file(self, x: Tensor) -> Reconstruction:
        at_once = super().from_file(x)
        if self.denoiser is None:
            return at_once
        with self._coding():
            return at_once._replace(x_hat=self._with_detail(at_once.x_hat, self._qualities(1)))

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        strides = (self.stride >> n for n in range(len(self.bottleneck.channels)))
        return [(size[0] // stride, size[1] // stride) for stride in strides]

    def extra_columns(self, image: Tensor) -> dict[str, float]:
        """The paper's own accounting, beside the ratio of real files."""
        height, width = self.padded(*image.shape[-2:])
        values = (
            c * h * w
            for c, (h, w) in zip(self.bottleneck.channels, self.latent_sizes((height, width)), strict=True)
        )
        return paper_ratios(image.numel(), next(values) if self.stride == 8 else sum(values))

    def g_a(self, x: Tensor) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, 128, H/8, W/8]` and, if coded, the skips at 1/4 and 1/2; or the pyramid."""
        if self.encoder is None:
            y = self.shortcut.analysis(x)
            return y if isinstance(self.shortcut, Wavelet) else [y]
        with roughly(self, x.device.type):
            stem = self.stem(quick_layout(x))  # (B, 64, H/2, W/2)
            half = self.encoder[0](stem)  # (B, 64, H/2, W/2)
            quarter = self.encoder[1](half)  # (B, 128, H/4, W/4)
            eighth = self.encoder[2](quarter)  # (B, …, H/8, W/8)
        latent = [self.to_latent(eighth.float())]  # (B, 128, H/8, W/8)
        features = (quarter, half, stem)[: len(self.skips)]
        coded = [skip.project(h.float()) for skip, h in zip(self.skips, features, strict=True)]
        if self.shortcut is not None:
            latent[0] = self.shortcut.latent(x, latent[0])
        return [*latent, coded[0], cat(coded[1:], 1)] if coded else latent

    def g_s(self, y_hats: list[Tensor], quality: Tensor | None = None) -> Tensor:
        """The decoded latents, in the order of `g_a` → `x_hat` `[B, C, H, W]`."""
        if self.decoder is None:
            return self.by_transform(y_hats)
        if isinstance(self.decoder, WaveletUNet):
            return self._undone(self.shortcut.synthesis(y_hats), y_hats[-2:], quality)
        y, base, skips = self._conditions(y_hats)
        if self.training and self.denoiser is None and self.max_t > 0:
            t = torch.randint(self.max_t, (), device=y.device)
            y = self.schedule.q_sample(y, t, torch.randn_like(y))
        reach = None if skips or self.shortcut is None else _NORMALISED_REACH
        decoded = self.decoder(seen_by_decoder(self, self.bottleneck.with_step(y, quality), reach), skips)
        return base + self.share * decoded.float()

    def by_transform(self, y_hats: list[Tensor]) -> Tensor | None:
        if isinstance(self.shortcut, Wavelet):
            return self.shortcut.synthesis(y_hats)
        return self.shortcut.synthesis(y_hats[0]) if self.encoder is None else None

    def draw(self, coded: tuple[list[Tensor], Tensor | None], part: Window, size: Size) -> Tensor:
        if self.denoiser is None:
            return self._drawn_at_once(coded, part, size)
        whole = self._drawn_at_once(coded, Window(0, size[0], 0, size[1]), size)
        return part.of(self._with_detail(whole, coded[1]), size)

    def _drawn_at_once(self, coded: tuple[list[Tensor], Tensor | None], part: Window, size: Size) -> Tensor:
        if not isinstance(self.decoder, WaveletUNet) or part.size == size:
            return super().draw(coded, part, size)
        # The U-Net sees less far than wavelet and U-Net together.
        levels, quality = coded
        seen = part.grown(self._unet_reach(), 4, size)
        told = seen.grown(self._wavelet_reach(), self.stride, size)
        pyramid = self.bottleneck.dequantised([told.of(tensor, size) for tensor in levels], quality)
        base = seen.within(told).of(self.shortcut.synthesis(pyramid), told.size)
        details = [seen.within(told).of(tensor, told.size) for tensor in pyramid[-2:]]
        return part.within(seen).of(self._undone(base, details, quality), seen.size)

    def tensors_of_scale(self, scale: int) -> int:
        return _WAVELET_LEVELS + 1 - scale.bit_length()

    def draw_scaled(
        self, coded: tuple[list[Tensor], Tensor | None], part: Window, size: Size, scale: int
    ) -> Tensor:
        """By the wavelet alone, of which networks would need what is finer."""
        levels, quality = coded
        seen = part.grown(self._wavelet_reach(), self.stride, size)
        pyramid = self.bottleneck.dequantised([seen.of(tensor, size) for tensor in levels], quality)
        return part.within(seen).of(self.shortcut.synthesis(pyramid), seen.size)

    def synthesis_reach(self) -> int | None:
        if self.denoiser is not None:
            return None  # its noise is the whole picture's
        if isinstance(self.decoder, WaveletUNet):
            return self._unet_reach()
        return super().synthesis_reach()

    def _wavelet_reach(self) -> int:
        return self.reach_of("wavelet", lambda pyramid: [self.shortcut.synthesis(pyramid)], self.latent_shapes)

    def _unet_reach(self) -> int:
        def shapes(size: Size) -> list[tuple[int, int, int]]:
            return [(self.image_channels, *size), *self.latent_shapes(size)[-2:]]

        def undone(inputs: list[Tensor]) -> list[Tensor]:
            base, *details = inputs
            quality = base.new_full((1,), 50.0) if self.bottleneck.variable_rate else None
            return [self._undone(base, details, quality)]

        return self.reach_of("unet", undone, shapes, unit=4)

    def _undone(self, base: Tensor, details: list[Tensor], quality: Tensor | None) -> Tensor:
        """The wavelet's image and its details of 1/4 and 1/2 → `x_hat`."""
        step, known = self.bottleneck.step(quality), _known(quality, base)
        levels = [tensor / step for tensor in details]
        return base + self.decoder(base, levels, step, known)

    def _with_detail(self, image: Tensor, quality: Tensor | None) -> Tensor:
        """What `g_s` gives, with a sample of what it lacks."""
        quality = _known(quality, image)
        generator = torch.Generator().manual_seed(self.sampling_seed)
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        detail = self.schedule.ddim(lambda x_t, t: self._detail(x_t, t, image, quality), noise, self.steps)
        return image + self.denoiser.deviation(quality) * detail

    def _detail(self, x_t: Tensor, t: Tensor, image: Tensor, quality: Tensor) -> Tensor:
        """x_0 of what `image` lacks, diffused to `t` `[B]`: at the last t, when x_t tells nothing, 0."""
        alpha_bar = self.schedule.alpha_bar[t].view(-1, 1, 1, 1)
        told = alpha_bar.sqrt() - self.schedule.alpha_bar[-1].sqrt()
        correction = self.denoiser(x_t, image, t / (self.schedule.steps - 1), quality)
        return told * (x_t + (1 - alpha_bar).sqrt() * correction)

    def _denoised_once(self, x: Tensor) -> Reconstruction:
        """What the denoiser makes of what is lacking, diffused to a random t of each image's own."""
        told = self._qualities(len(x))
        y_hats, bits = self.analyse(x, told)
        image, quality = self.g_s(y_hats, told), _known(told, x)
        self.denoiser.observe(x - image, quality)
        deviation = self.denoiser.deviation(quality)
        t = torch.randint(self.schedule.steps, (len(x),), device=x.device)
        x_t = self.schedule.q_sample((x - image) / deviation, t, torch.randn_like(x))
        x_hat = image + deviation * self._detail(x_t, t, image, quality)
        weight = deviation.flatten() ** -2  # or the lowest rates would be all that is trained
        return Reconstruction(gradient_times(weight / weight.mean(), x_hat), bits)

    def _conditions(self, y_hats: list[Tensor]) -> tuple[Tensor, Tensor, list[tuple[Tensor, nn.Conv2d]]]:
        """The normalised latent, the shortcut's image (mid-grey without one), skips, each with what expands it."""
        y, *skips = y_hats
        told = [skips[0], *skips[1].split([s.expand.in_channels for s in self.skips[1:]], 1)] if skips else []
        if self.shortcut is not None:
            base = self.shortcut.synthesis(y)
        else:
            batch, _, height, width = y.shape
            size = height * self.stride, width * self.stride
            base = y.new_full((batch, self.image_channels, *size), 0.5)
        expanded_by = [skip.expand for skip in self.skips]
        return self.normalise(y), base, list(zip(told, expanded_by, strict=True))


class _CodedSkip(nn.Module):
    """A skip connection that is part of the file: 1×1 convolutions to few channels and back."""

    def __init__(self, width: int, few: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(width, few, 1)
        self.expand = nn.Conv2d(few, width, 1)


def _known(quality: Tensor | None, x: Tensor) -> Tensor:
    """`quality` `[B]`, or, where there is one rate, the middle one for every image of `x`."""
    return x.new_full((len(x),), sum(QUALITIES) / 2) if quality is None else quality


def paper_ratios(input_values: int, latent_values: int) -> dict[str, float]:
    """The paper's "compression ratios": values in over latent values, whatever a file would take.

    `paper_pixel_ratio` is the quotient. `paper_memory_ratio` is twice that: the paper's 4.32 MB for 270,000 values
    and 1.0486 MB for 131,072 amount to 16 bytes a value of the image and 8 of the latent.
    """
    ratio = input_values / latent_values
    return {"paper_pixel_ratio": ratio, "paper_memory_ratio": 2 * ratio}
