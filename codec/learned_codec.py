"""LearnedCodec: what the five schemes share - training, validation, padding, whole files."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from lightning import LightningModule
from PIL import Image
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from codec import bitstream
from codec.bitstream import BitstreamError
from codec.checks import check_channels
from codec.data.image_file import NamedImage
from codec.entropy import QUALITIES, EntropyBottleneck
from codec.errors import EncodeError
from codec.image_codec import ImageCodec, check_image
from codec.losses import RateDistortionLoss
from codec.measure import Row, measure, warm_up
from codec.metadata import Metadata
from codec.metrics import image_quality, mean_of_rows


class Reconstruction(NamedTuple):
    """What `forward` gives: `x_hat` `[B, C, H, W]`, about [0, 1], and `bits` as `LearnedCodec.analyse` has them."""

    x_hat: Tensor
    bits: dict[str, Tensor]

    @property
    def total_bits(self) -> Tensor:
        """Of the whole file, `[B]`."""
        return sum(self.bits.values())

    def bpp_by_part(self) -> dict[str, Tensor]:
        """`bpp_<part>`, means over the batch, where a file has more than one part."""
        pixels = self.x_hat.shape[-2] * self.x_hat.shape[-1]
        parts = self.bits if len(self.bits) > 1 else {}
        return {f"bpp_{part}": bits.detach().mean() / pixels for part, bits in parts.items()}


class LearnedCodec(ImageCodec, LightningModule):
    """An ImageCodec that is trained. A scheme sets the attributes below and writes the four parts of this drawing.

        training   uint8 batch ── /255 ── pad ── analyse ── y_hat, bits ── g_s ── x_hat, bits ── loss
        encode     image ── /255 ── pad ── compress ── sections ── bitstream.pack ── file
        decode     file ── bitstream.unpack ── sections ── decompress ── crop ── ·255, round ── image

    `tag`: four ASCII characters that name the scheme in its files. `stride`: images are padded to a multiple
    of it. `image_channels`: 1 or 3; a codec for 3 takes greyscale images too. `section_count`: entropy-coded
    strings in a file. `rate_tells`: of an image that the codec is not made for, files are much larger; where they
    are not, as their latent has bounds that most images reach, only its decoded image shows it.

    `Trainer.test` measures as `codec.measure` does, on the files of whole images, and logs the means as `test/*`.
    """

    tag: ClassVar[str]
    rate_tells: ClassVar[bool] = True
    stride: int
    section_count: int = 1
    bottleneck: EntropyBottleneck

    def __init__(self, image_channels: int) -> None:
        super().__init__()
        check_channels("image_channels", image_channels)
        self.image_channels = image_channels
        # What rebuilds this codec from a checkpoint (plain containers); set by codec.checkpoint.build_codec.
        self.model_config: dict[str, Any] | None = None
        self._loss: RateDistortionLoss | None = None
        self._optimizer: Callable[..., Optimizer] | None = None
        self._scheduler: Callable[..., LRScheduler] | None = None
        self._prior_lr_factor = 1.0
        self._fingerprint: tuple[tuple, bytes] | None = None
        self._rows: list[Row] = []

    @property
    def qualities(self) -> range | tuple[float, float] | None:
        return QUALITIES if any(bottleneck.variable_rate for bottleneck in self.bottlenecks()) else None

    def set_quality(self, quality: float) -> None:
        super().set_quality(quality)
        if self.qualities == QUALITIES:
            self.quality = EntropyBottleneck.coded_quality(quality)

    # ---- what a scheme writes

    def g_a(self, x: Tensor) -> list[Tensor]:
        """The analysis transform: `x` `[B, C, H, W]` in [0, 1], sides multiples of `stride` → the latent."""
        raise NotImplementedError

    def g_s(self, y_hat: Any) -> Tensor:
        """The synthesis transform: the quantised latent → `x_hat` `[B, C, H, W]`."""
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
        x_hat = self.g_s(y_hat)
        if self.training and quality is not None:
            # A bit is worth what the squared step is: where steps are large, distortion weighs less.
            x_hat = x_hat.detach() + (x_hat - x_hat.detach()) / self.bottleneck.relative_step(quality) ** 2
        return Reconstruction(x_hat, bits)

    def compress(self, x: Tensor) -> list[bytes]:
        """One padded image `[1, C, H, W]` in [0, 1] → `section_count` sections."""
        return [self.bottleneck.compress(self.latent(x), self._qualities(1))]

    def decompress(self, sections: list[bytes], size: tuple[int, int]) -> Tensor:
        """Sections → `x_hat` `[1, C, H, W]`; `size` is the padded (H, W)."""
        return self.g_s(self.bottleneck.decompress(sections[0], self.latent_sizes(size)))

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
            sections = self.compress(self.prepared(image))
        header = bitstream.Header(self.tag, self.fingerprint(), height, width, channels)
        return bitstream.pack(header, sections, metadata)

    def decode(self, data: bytes) -> Tensor:
        """See ImageCodec. A file of other weights than these is refused too."""
        header, sections = bitstream.unpack(data)
        self._check_is_mine(header, len(sections))
        size = self.padded(header.height, header.width)
        try:
            self.check_size(header.height, header.width)
        except ValueError as error:
            raise BitstreamError(str(error)) from None
        with self._coding():
            self.check_sections(sections, size, header.channels)
            x_hat = self.decompress(sections, size)[0, :, : header.height, : header.width]
        if header.channels < self.image_channels:
            x_hat = x_hat.mean(0, keepdim=True)
        return to_uint8(x_hat)

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
            _, bits = self.analyse(self.prepared(image), self._qualities(1))
            return sum(part.item() for part in bits.values())

    def prepared(self, image: Tensor) -> Tensor:
        """A uint8 image `[C, H, W]` → what the transforms take: `[1, image_channels, H, W]` in [0, 1], padded."""
        x = image.to(self.device)[None].float() / 255
        return self.pad(x.expand(-1, self.image_channels, -1, -1))

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

    def _qualities(self, count: int) -> Tensor | None:
        """Of so many images, `[count]`: in training random ones, else the one in use; None if there is one rate."""
        if self.qualities != QUALITIES:
            return None
        if self.training:
            return QUALITIES[1] * torch.rand(count, device=self.device)
        middle = sum(QUALITIES) / 2
        return torch.full((count,), middle if self.quality is None else self.quality, device=self.device)

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
        modes = [(module, module.training) for module in self.modules()]
        if any(training for _, training in modes):
            self.eval()
        repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False), repeatable:
                yield
        finally:
            for module, training in modes:  # not train(True): a part may have been frozen by itself
                module.training = training

    def bottlenecks(self) -> list[EntropyBottleneck]:
        """All of the codec, in the order in which the scheme made them."""
        return [module for module in self.modules() if isinstance(module, EntropyBottleneck)]

    # ---- training

    def prepare_training(
        self,
        loss: RateDistortionLoss,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        prior_lr_factor: float = 1.0,
    ) -> None:
        """Gives the codec what `Trainer.fit` needs: `optimizer(parameters)`, `scheduler(optimizer)` per epoch.

        The priors learn at `prior_lr_factor` times the optimizer's rate.
        """
        self._loss, self._optimizer, self._scheduler = loss, optimizer, scheduler
        self._prior_lr_factor = prior_lr_factor
        for bottleneck in self.bottlenecks():
            bottleneck.shapes_latent = loss.rate_weight > 0

    def configure_optimizers(self) -> dict[str, Any]:
        priors = [p for bottleneck in self.bottlenecks() for p in bottleneck.prior.parameters()]
        others = [p for p in self.parameters() if not any(p is prior for prior in priors)]
        optimizer = self._optimizer([{"params": others}, {"params": priors}])
        optimizer.param_groups[1]["lr"] *= self._prior_lr_factor
        chosen: dict[str, Any] = {"optimizer": optimizer}
        if self._scheduler is not None:
            chosen["lr_scheduler"] = {"scheduler": self._scheduler(optimizer), "monitor": "val/loss"}
            if isinstance(chosen["lr_scheduler"]["scheduler"], ReduceLROnPlateau):  # asked where there is a new one
                chosen["lr_scheduler"]["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return chosen

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        """`batch` is uint8 `[B, C, H, W]`."""
        x = self.pad(batch.float() / 255)
        output = self(x)
        terms = self._loss(output.x_hat, output.total_bits, x)
        shown = {"loss": terms.total, "distortion": terms.distortion, "bpp": terms.bpp, **output.bpp_by_part()}
        self.log_dict({f"train/{name}": value.detach() for name, value in shown.items()}, batch_size=len(batch))
        self.log("train/lr", self.optimizers().param_groups[0]["lr"])
        self.log("loss", terms.total.detach(), prog_bar=True, logger=False)
        return {"loss": terms.loss, "distortion": terms.distortion.detach(), "bpp": terms.bpp.detach()}

    def validation_step(self, item: NamedImage, batch_idx: int) -> Tensor:
        """One whole image, uint8; gives its 8-bit reconstruction `[C, H, W]` and logs the `val/*` means."""
        height, width = item.image.shape[-2:]
        x = item.image[None].float() / 255
        padded = self(self.pad(x))
        output = padded._replace(x_hat=padded.x_hat[..., :height, :width].float())
        terms = self._loss(output.x_hat, output.total_bits, x)
        values = {"loss": terms.total, "distortion": terms.distortion, "bpp": terms.bpp, **output.bpp_by_part()}
        decoded = to_uint8(output.x_hat[0])
        self._rows.append({name: v.item() for name, v in values.items()} | image_quality(decoded, item.image))
        return decoded

    def on_validation_epoch_start(self) -> None:
        self._rows = []

    def on_validation_epoch_end(self) -> None:
        rows = self._rows
        if torch.distributed.is_initialized():  # ranks may see unequal numbers of images: gather, then average
            gathered: list[list] = [[]] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        for name, mean in mean_of_rows(rows).items():
            self.log(f"val/{name}", mean, sync_dist=True)

    def on_test_start(self) -> None:
        if self.trainer.world_size > 1:
            raise RuntimeError("real files are measured on one device: test with strategy=auto")
        self._rows = []

    def test_step(self, item: NamedImage, batch_idx: int) -> None:
        if batch_idx == 0:
            warm_up(self, item.image)
        self._rows.append(measure(self, item).row)

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": mean for name, mean in mean_of_rows(self._rows).items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_config"] = self.model_config
        val_loss = self.trainer.callback_metrics.get("val/loss")
        checkpoint["val_loss"] = None if val_loss is None else float(val_loss)


def to_uint8(x: Tensor) -> Tensor:
    """[0, 1] floats → uint8 of the same shape, clamped and rounded."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def _round_up(size: int, stride: int) -> int:
    return -(-size // stride) * stride
