"""comcnn_reccnn: a network before and a network after a standard codec, whose own file is what is stored.

Jiang, Tao, Liu, Ren, Guo, Zhao 2017, "An End-to-End Compression Framework Based on Convolutional Neural Networks"
(https://arxiv.org/abs/1708.00838).

Differs from the paper: both networks are added to a resampling and start at zero, so that training starts at the
codec in the middle. Beyond it: compact images of full size, one model for a range of qualities, a rate in the loss,
and RecCNN alone, behind a codec that gets the image itself.

Letters: B images, C image channels, H × W pixels, h × w those of the compact image.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from codec.bitstream import BitstreamError
from codec.checks import check_choice, check_flag, check_integer
from codec.data.codings import CodedCrop, Coding
from codec.errors import ArgumentError, ConfigError
from codec.learned_codec import LearnedCodec
from codec.networks import ComCNN, DCTRate, RecCNN, RecUNet
from codec.rate_distortion_module import Reconstruction, gradient_times, to_uint8
from codec.standards import STANDARDS, Standard
from codec.windows import Picture, Size, Window, whole

THREADS = min(16, os.cpu_count() or 1)

# Of JPEG on photographs, distortion grows with the quantiser step to this power, and so does its slope over rate
# with the square of it.
STEP_POWER = 0.7

_SMALLEST_ERROR = 1e-5  # mean squares, of images in [0, 1], that training counts as they are
_DRAWS = 1024  # how finely a range of qualities is divided where images are coded before training


class ComRec(LearnedCodec):
    """ComCNN, a standard codec, RecCNN.

        x ── ComCNN ── y, rounded to 8 bits ── JPEG … ── y_hat ── RecCNN ── x_hat
                                                 └── section: the codec's own file

    `codec` is jpeg, webp, avif or jpeg2000, `quality` its number (of jpeg2000 the compression ratio),
    `codec_options` what else it is to be told. `scale` 2: the compact image has half the height and width (the
    paper's); 1: it has them whole. `layers`, `width`, `blocks` and `reduction` are RecCNN's; `blocks` "unet" is
    RecUNet, which has a `width` alone. `train_quality` null: trained at `quality` alone (the paper's). [lowest,
    highest]: in training each image meets a random quality of that range, which both networks are told, and which
    the file stores in a section of one byte; files may then be written at any of them.

    The codec has no gradient. `gradient` "straight_through" hands ComCNN what arrives at y_hat; "alternate" is the
    paper's: steps that train RecCNN on decoded images take turns with steps that train ComCNN through a fixed
    RecCNN, without the codec. Until step `com_after` RecCNN alone is trained, so that ComCNN meets one worth
    adapting to. `bits` are those of the real sections, with the gradient of DCTRate.

    `com` False: y is x itself, and RecCNN all that is trained. Images can be coded before training meets them
    then, whole, and cut afterwards: see KeptCodings.
    """

    tag = "COMR"
    efforts = None
    shown_in_part = False
    qualities = range(0)  # set for each, by its codec and its training

    def __init__(
        self,
        image_channels: int = 3,
        codec: str = "jpeg",
        quality: int = 40,
        train_quality: Sequence[int] | None = None,
        scale: int = 2,
        layers: int = 20,
        width: int = 64,
        blocks: str = "plain",
        reduction: str = "none",
        gradient: str = "straight_through",
        com_after: int = 0,
        com: bool = True,
        codec_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(image_channels)
        check_choice("codec", codec, tuple(STANDARDS))
        check_integer("scale", scale, 1, 2)
        check_integer("layers", layers, 3)
        check_integer("width", width, 1)
        check_choice("blocks", blocks, ("plain", "residual", "unet"))
        if blocks == "residual" and layers % 2:
            raise ArgumentError(
                "layers", layers, "allowed are even numbers, with blocks=residual, which come in pairs"
            )
        check_choice("reduction", reduction, ("none", "max_pooling", "unshuffle"))
        check_choice("gradient", gradient, ("straight_through", "alternate"))
        check_integer("com_after", com_after, 0)
        check_flag("com", com)
        if not com and scale == 2:
            raise ArgumentError("scale", scale, "allowed is 1, with com=false, which leaves the image as it is")
        if not com and com_after:
            raise ArgumentError("com_after", com_after, "allowed is 0, with com=false, which leaves RecCNN alone")
        if blocks == "unet" and reduction != "none":
            raise ArgumentError("reduction", reduction, "allowed is none, with blocks=unet, which has its own")
        if not com and gradient == "alternate":
            raise ArgumentError("gradient", gradient, "com=false leaves one network: allowed is straight_through")
        self.format = STANDARDS[codec].with_options({} if codec_options is None else codec_options)
        check_integer("quality", quality, self.format.lowest, self.format.highest)
        self.qualities = range(self.format.lowest, self.format.highest + 1)
        self.conditional = train_quality is not None
        if train_quality is not None:
            ends = list(train_quality) if isinstance(train_quality, Sequence) else []
            if (
                [type(end) for end in ends] != [int, int]
                or not set(ends) <= set(self.qualities)
                or ends[0] > ends[1]
            ):
                allowed = f"null and [lowest, highest] within {self.format.lowest} to {self.format.highest}"
                raise ArgumentError("train_quality", train_quality, f"allowed are {allowed}")
            self.qualities = range(ends[0], ends[1] + 1)
        self.set_quality(quality)
        self.stride = scale
        self.window_unit = scale * (8 if blocks == "unet" else 1 if reduction == "none" else 2)
        self.gradient = gradient
        self.com_after = com_after
        self.section_count = 1 + self.conditional

        self.com = ComCNN(image_channels, width, scale, self.conditional) if com else None
        if blocks == "unet":
            self.rec = RecUNet(image_channels, width, scale)
        else:
            self.rec = RecCNN(image_channels, width, layers, blocks, scale, reduction, self.conditional)
        self.rate = DCTRate()

    @property
    def quality_grid(self) -> list[int]:
        return sorted(self.qualities, key=self.format.log_step, reverse=True)  # JPEG 2000's ratio is no quality

    def set_quality(self, quality: int) -> None:
        super().set_quality(quality)
        self.codec = self.format.make(quality)

    def check_size(self, height: int, width: int) -> None:
        super().check_size(height, width)
        self.codec.check_size(*(side // self.stride for side in self.padded(height, width)))

    def on_fit_start(self) -> None:
        if self.gradient == "alternate" and self.trainer.world_size > 1:
            raise ConfigError(
                "model.gradient",
                "alternate",
                "a step trains one of two networks, which several processes cannot do: "
                "use one device, or model.gradient=straight_through",
            )

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """At this codec's `quality`; training, at many of them, has its own way in `forward`."""
        y = self._compact(x, self._told(x, self.quality))
        y_hat, bits = self._coded(y, [self.quality] * len(x))
        return y_hat, {"y": bits}

    def g_s(self, y_hat: Tensor, quality: Tensor | None = None) -> Tensor:
        """Decoded compact images `[B, C, h, w]` → `x_hat` `[B, C, H, W]`."""
        return self.rec(y_hat, self._told(y_hat, self.quality))

    def forward(self, x: Tensor) -> Reconstruction:
        if not self.training:
            return super().forward(x)
        qualities = self._drawn_qualities(len(x))
        log_step = x.new_tensor([self.format.log_step(quality) for quality in qualities])
        condition = self._condition(log_step)
        y = self._compact(x, condition)
        y_hat, bits = self._coded(y, qualities)
        if self.global_step < self.com_after:
            x_hat = self.rec(y_hat + 0 * y, condition)  # no gradient but zeros, which DDP asks for
            y = y.detach()
        elif self.gradient == "alternate" and self.global_step % 2 == 0:
            x_hat = self.rec(y_hat, condition)
            y = y.detach()
        elif self.gradient == "straight_through":
            x_hat = self.rec(y + (y_hat - y).detach(), condition)
        else:
            fixed = {name: parameter.detach() for name, parameter in self.rec.named_parameters()}
            self.rec.eval()
            x_hat = functional_call(self.rec, fixed, (y, condition))
            self.rec.train()
        return self._with_rate(x_hat, bits, y, log_step)

    def training_coding(self) -> Coding | None:
        if self.com is not None:
            return None
        return Coding(self.format.make, self._qualities_at(torch.linspace(0, 1, _DRAWS)))

    def reconstruct(self, batch: Tensor | CodedCrop) -> tuple[Tensor, Reconstruction]:
        """As of any codec, and, without ComCNN, CodedCrops: each counts relative to its whole image's error."""
        if isinstance(batch, Tensor):
            return super().reconstruct(batch)
        x, y_hat = batch.image.float() / 255, batch.decoded.float() / 255
        log_steps = x.new_tensor([self.format.log_step(quality) for quality in self.qualities])
        x_hat = self.rec(y_hat, self._condition(log_steps[batch.quality - self.qualities[0]]))
        weight = 1 / batch.mse.float().clamp(min=_SMALLEST_ERROR)
        bits = batch.bpp.float() * x.shape[-2] * x.shape[-1]
        return x, Reconstruction(gradient_times(weight / weight.mean(), x_hat), {"y": bits})

    def write(self, x: Picture, size: Size) -> list[bytes]:
        y = torch.empty(self.latent_shapes(size)[0], dtype=torch.uint8, device=self.device)
        for part in self.tiles(whole(size), size, self.analysis_reach):
            seen = self.surroundings(part, size, self.analysis_reach)
            (compact,) = self.latent(x(seen))
            part.of(y, size).copy_(to_uint8(part.within(seen).of(compact[0], seen.size)))
        stream = self.codec.encode(y)
        return [bytes([self.quality]), stream] if self.conditional else [stream]

    def read(self, sections: list[bytes], size: Size, scale: int = 1, cut: bool = False) -> tuple[Tensor, int]:
        """The decoded compact image, uint8 `[C, h, w]`, and its quality."""
        quality = sections[0][0] if self.conditional else self.quality
        y_hat = self.codec.decode(sections[-1])
        if y_hat.shape[0] != self.image_channels:
            raise BitstreamError(f"the {self.codec.format} section holds {y_hat.shape[0]} channels")
        return y_hat.to(self.device), quality

    def draw(self, coded: tuple[Tensor, int], part: Window, size: Size) -> Tensor:
        y_hat, quality = coded
        seen = self.surroundings(part, size, self.synthesis_reach)
        compact = seen.of(y_hat, size)[None].float() / 255
        return part.within(seen).of(self.rec(compact, self._told(compact, quality)), seen.size)

    def latent(self, x: Tensor) -> list[Tensor]:
        """The compact images, not rounded yet."""
        return [self._compact(x, self._told(x, self.quality))]

    def latent_shapes(self, size: Size) -> list[tuple[int, int, int]]:
        return [(self.image_channels, *(side // self.stride for side in size))]

    def synthesis_reach(self) -> int | None:
        return self.reach_of("synthesis", lambda y_hat: [self.g_s(*y_hat)], self.latent_shapes)

    def check_sections(self, sections: list[bytes], size: tuple[int, int], channels: int) -> None:
        if self.conditional:
            if len(sections[0]) != 1:
                raise BitstreamError(f"the quality takes one byte: the file has {len(sections[0])} for it")
            if sections[0][0] not in self.qualities:
                allowed = f"{self.qualities[0]} to {self.qualities[-1]}"
                raise BitstreamError(f"the file claims quality {sections[0][0]}: this codec writes {allowed}")
        height, width = (side // self.stride for side in size)
        claimed = self.codec.size(sections[-1])
        if claimed != (height, width):
            raise BitstreamError(
                f"the {self.codec.format} section claims {claimed[1]}×{claimed[0]} pixels, not {width}×{height}"
            )
        length, least = len(sections[-1]), self.codec.least_bytes(height, width)
        if length < least:
            raise BitstreamError(f"a section of {length} bytes is too short for {width}×{height} pixels")

    def _drawn_qualities(self, count: int) -> list[int]:
        """Random ones of the range trained for, their quantiser steps spread evenly over octaves."""
        return self._qualities_at(torch.rand(count))

    def _qualities_at(self, places: Tensor) -> list[int]:
        """Of `places` `[N]` in [0, 1] between the finest and the coarsest quantiser step, in octaves."""
        if not self.conditional:
            return [self.quality] * len(places)
        log_steps = torch.tensor([self.format.log_step(quality) for quality in self.qualities])
        low, high = log_steps.aminmax()
        wanted = low + (high - low) * places[:, None]
        return [self.qualities[n] for n in (log_steps - wanted).abs().argmin(1).tolist()]

    def _compact(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return x if self.com is None else self.com(x, condition)

    def _told(self, images: Tensor, quality: int) -> Tensor | None:
        """As `_condition`, of images that are all coded at one quality."""
        return self._condition(images.new_full((len(images),), self.format.log_step(quality)))

    def _condition(self, log_step: Tensor) -> Tensor | None:
        """What the networks are told, `[B]` of order 1."""
        return log_step / 4 if self.conditional else None

    def _coded(self, y: Tensor, qualities: list[int]) -> tuple[Tensor, Tensor]:
        """Compact images `[B, C, h, w]` through real files: what they decode to, and all sections' bits `[B]`."""

        def code(image: Tensor, quality: int) -> tuple[Tensor, int]:
            codec = self.format.make(quality)
            stream = codec.encode(image)
            return codec.decode(stream), len(stream)

        with ThreadPoolExecutor(THREADS) as pool:  # Pillow lets go of the interpreter while it codes
            coded = list(pool.map(code, to_uint8(y.detach()).cpu(), qualities))
        y_hat = torch.stack([image for image, _ in coded]).to(y.device).float() / 255
        return y_hat, y.new_tensor([8 * (size + self.conditional) for _, size in coded], dtype=torch.float32)

    def _with_rate(self, x_hat: Tensor, bits: Tensor, y: Tensor, log_step: Tensor) -> Reconstruction:
        """Gives the real `bits` the relative gradient of DCTRate, and weighs qualities against each other.

        One quality's distortion, and its slope over the rate, are many times another's: with weights on gradients
        all count alike, and one `rate_weight`, that of quality 50, suits them all.
        """
        weight = torch.exp2(STEP_POWER * log_step) if self.conditional else torch.ones_like(log_step)
        x_hat = gradient_times(1 / weight, x_hat)
        if not y.requires_grad:
            return Reconstruction(x_hat, {"y": bits})
        if self._loss is not None and self._loss.rate_weight == 0:
            # The loss would add their gradient, to fit priors, of which there are none.
            return Reconstruction(x_hat, {"y": bits})
        estimate = self.rate(y, log_step)
        spent = (bits - 8 * _overhead(self.format, y.shape[1])).clamp(min=0)  # on this image, not on headers
        change = weight * spent * (estimate / estimate.detach().clamp(min=1) - 1)
        return Reconstruction(x_hat, {"y": bits + change - change.detach()})


@cache
def _overhead(standard: Standard, channels: int) -> int:
    """Bytes that a file takes whatever it shows."""
    flat = torch.full((channels, 8, 8), 128, dtype=torch.uint8)
    return len(standard.make(standard.highest).encode(flat))
