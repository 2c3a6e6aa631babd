"""LearnedCodec: what the five schemes share - transforms around a bottleneck, training, choices of an encoder."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import count
from typing import Any, Self

import torch
from torch import Tensor

from codec.checks import EFFORTS, check_channels
from codec.data.codings import Coding
from codec.effort import improved
from codec.entropy import QUALITIES, EntropyBottleneck
from codec.file_coding import FileCoding
from codec.losses import RateDistortionLoss
from codec.metadata import Metadata
from codec.networks.exact import UnusableWeightsError
from codec.rate_distortion_module import Reconstruction, gradient_times
from codec.windows import Picture, Size, whole

_SMALLEST_ERROR = 1e-6  # mean squares, of images in [0, 1], that training counts as they are


class LearnedCodec(FileCoding):
    """An ImageCodec that is trained. A scheme sets attributes, and writes what of this drawing is its own.

        training   uint8 batch ── /255 ── pad ── analyse ── y_hat, bits ── g_s ── x_hat, bits ── loss
        encode     image ── /255 ── pad ── write ── sections ── bitstream.pack ── file
        decode     file ── bitstream.unpack ── sections ── read ── draw ── crop ── ·255, round ── image

    With an EntropyBottleneck, `bottleneck`, that is `g_a`, `g_s` and `latent_sizes` (see WindowedTransforms);
    without, `analyse`, `write`, `read` and `draw`.

    `stride`: images are padded to a multiple of it. `image_channels`: 1 or 3; a codec for 3 takes greyscale images
    too. `efforts`: None where `write` is the scheme's own. `rate_tells`: of an image that the codec is not made
    for, files are much larger; where they are not, as their latent has bounds that most images reach, only its
    decoded image shows it. FileCoding has more of them.
    """

    rate_tells: bool = True
    efforts: range | None = EFFORTS

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        check_channels("image_channels", image_channels)
        self.image_channels = image_channels
        self._quality: float | None = None

    @cached_property  # asked for several times a file, and every module has to be looked at
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

    @property
    def analyses_batches(self) -> bool:
        """Whether `encode_batch` has images of equal size analysed together."""
        return type(self).write is LearnedCodec.write

    def set_quality(self, quality: float) -> None:
        super().set_quality(quality)
        if self.qualities == QUALITIES:
            self.quality = EntropyBottleneck.coded_quality(quality)

    def copied(self) -> Self:
        self.fingerprint()  # which the copy has then
        return super().copied()

    # ---- what follows from it, unless a scheme has other ways

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
        return self.write(self._seen(x), x.shape[-2:])

    def write(self, x: Picture, size: Size) -> list[bytes]:
        """See FileCoding: one section, of the levels that an encoder of this effort chooses."""
        quality = self._qualities(1)
        exact = self.exact_levels(x, size, quality)
        with self.writing_reported():
            return [self._section(exact, x, quality)]

    def decompress(self, sections: list[bytes], size: Size) -> Tensor:
        """Sections → `x_hat` `[1, C, H, W]`; `size` is the padded (H, W)."""
        coded = self.read(sections, size)
        x_hat = torch.empty(1, self.image_channels, *size, device=self.device)
        for tile in self.tiles(whole(size), size, self.synthesis_reach):
            tile.of(x_hat, size).copy_(self.draw(coded, tile, size))
        return x_hat

    def read(self, sections: list[bytes], size: Size, scale: int = 1, cut: bool = False) -> Any:
        """See FileCoding: levels, and their quality."""
        sizes, quality = self.latent_sizes(size), self.bottleneck.quality_of(sections[0])
        wanted = len(sizes) if scale == 1 else self.tensors_of_scale(scale)
        with self.reading_reported():
            return self.bottleneck.decompress_levels(sections[0], sizes, wanted, cut), quality

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        """See FileCoding."""
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

    def encode_batch(
        self, images: Sequence[Tensor], metadata: Sequence[Metadata | None] | None = None
    ) -> list[bytes]:
        """As `encode`, of several images, of whichever sizes: those of equal size go through `g_a` together.

        Their latents are coded one after the other. So are all images that are larger than a window, and all of a
        scheme with a `write` of its own, where coding is what takes the time. Files are those of `encode`, unless
        the device adds up a convolution of several images in another order: then a number next to a tie may have
        become the other level. Each decodes on every machine to the levels that were written, whatever was beside
        it. Raises EncodeError as `encode` does, before any is coded, and ValueError unless each image has its
        `metadata`.
        """
        if metadata is not None and len(metadata) != len(images):
            raise ValueError(f"{len(metadata)} metadata for {len(images)} images")
        for image in images:
            self._check_codable(image)
        self.fingerprint()  # as `encode`
        kept: Sequence[Metadata | None] = [None] * len(images) if metadata is None else metadata
        files, done = [b""] * len(images), count()
        for numbers in self.together(images) if self.analyses_batches else ([n] for n in range(len(images))):
            if len(numbers) == 1:
                (n,) = numbers
                with self.reported_of(next(done), len(images)):
                    files[n] = self.encode(images[n], kept[n])
                continue
            with self._coding():
                quality = self._qualities(1)
                x = self.prepared(torch.stack([images[n] for n in numbers]))
                exact = self.bottleneck.exact_levels(self.latent(x), quality)
                for i, n in enumerate(numbers):
                    of_one = [tensor[i : i + 1].contiguous() for tensor in exact]
                    with self.reported_of(next(done), len(images)), self.writing_reported():
                        section = self._section(of_one, self._seen(x[i : i + 1]), quality)
                    files[n] = self._file(images[n], [section], kept[n])
        return files

    def estimated_bits(self, image: Tensor) -> float:
        with self._coding():
            _, bits = self._as_coded(self.prepared(image))
        return sum(part.item() for part in bits.values())

    def from_file(self, x: Tensor) -> Reconstruction:
        """What a file of `x`, one image as `g_a` takes it, would decode to, and the bits that it would take.

        Of weights that no file can be coded with, nan: a training that went wrong is told so by its loss.
        """
        with self._coding():
            try:
                y_hat, bits = self._as_coded(x)
                return Reconstruction(self.g_s(y_hat, self._qualities(1)), bits)
            except UnusableWeightsError:
                nan = torch.full_like(x, torch.nan)
                return Reconstruction(nan, {"y": nan[:, 0, 0, 0]})

    @staticmethod
    def _seen(x: Tensor) -> Picture:
        return lambda part: part.of(x, x.shape[-2:])

    def _as_coded(self, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """As `analyse`, of one image, with the levels that a file would hold."""
        quality = self._qualities(1)
        if self._effort_in_use() == 0:
            return self.analyse(x, quality)
        picture = self._seen(x)
        exact = self.exact_levels(picture, x.shape[-2:], quality)
        levels, _ = improved(self, picture, exact, quality, self._effort_in_use(), write=False)
        return self.bottleneck(self.bottleneck.dequantised(levels, quality), quality)

    def _section(self, exact: list[Tensor], picture: Picture, quality: Tensor | None) -> bytes:
        """That of a latent as `exact_levels` gives it, whose memory it takes."""
        levels, effort, section = exact, self._effort_in_use(), None
        if effort:
            levels, section = improved(self, picture, exact, quality, effort, write=True)
        if section is None:
            section = self.bottleneck.compress_levels([tensor.add_(0.5).floor_() for tensor in levels], quality)
        return section

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
