"""RateDistortionModule: how a learned codec is trained, validated and tested with Lightning."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from codec.checks import check_names
from codec.data.image_file import NamedImage
from codec.entropy import EntropyBottleneck
from codec.entropy.tables import CodingTables
from codec.errors import ArgumentError, ConfigError, did_you_mean
from codec.losses import RateDistortionLoss
from codec.measure import Row, measure, warm_up
from codec.metrics import image_quality, mean_of_rows

_VALIDATED_QUALITIES = (20.0, 50.0, 80.0)


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


class RateDistortionModule(LightningModule):
    """The Lightning side of LearnedCodec, whose `forward` gives a Reconstruction, and `pad` the sides it takes.

    `Trainer.test` measures as `codec.measure` does, on the files of whole images, and logs the means as `test/*`.
    """

    def __init__(self) -> None:
        super().__init__()
        # What rebuilds this codec from a checkpoint (plain containers); set by codec.checkpoint.build_codec.
        self.model_config: dict[str, Any] | None = None
        self._loss: RateDistortionLoss | None = None
        self._optimizer: Callable[..., Optimizer] | None = None
        self._scheduler: Callable[..., LRScheduler] | None = None
        self._prior_lr_factor = 1.0
        self._trained: tuple[str, ...] = ()  # how the names of all that learns begin; empty: there is nothing else
        self._rows: list[Row] = []

    def bottlenecks(self) -> list[EntropyBottleneck]:
        """All of the codec, in the order in which the scheme made them."""
        return [module for module in self.modules() if isinstance(module, EntropyBottleneck)]

    def prepare_training(
        self,
        loss: RateDistortionLoss,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        prior_lr_factor: float = 1.0,
        trained: Sequence[str] | None = None,
    ) -> None:
        """Gives the codec what `Trainer.fit` needs: `optimizer(parameters)`, `scheduler(optimizer)` per epoch.

        The distributions of the priors learn at `prior_lr_factor` times the optimizer's rate. Of modules named in
        `trained`, as `named_modules` has them, the weights learn; all others stay as they are from here on. None:
        all that learn now. Raises ArgumentError where the codec has no such module, or one that does not learn.
        """
        self._loss, self._optimizer, self._scheduler = loss, optimizer, scheduler
        self._prior_lr_factor = prior_lr_factor
        for bottleneck in self.bottlenecks():
            bottleneck.shapes_latent = loss.rate_weight > 0
        if trained is not None:
            self._freeze_all_but(trained)

    def _freeze_all_but(self, trained: Sequence[str]) -> None:
        check_names("trained", trained)
        learning = {name: [p for p in part.parameters() if p.requires_grad] for name, part in self.named_modules()}
        for name in trained:
            if not name or not learning.get(name):
                parts = [part for part, weights in learning.items() if part and weights]
                top = ", ".join(part for part in parts if "." not in part)
                raise ArgumentError(
                    "trained", name, f"parts of this model that learn are {top}{did_you_mean(name, parts)}"
                )
        kept = {id(p) for name in trained for p in learning[name]}
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in kept)
        self._trained = tuple(f"{name}." for name in trained)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name, part in self.named_modules() if self._trained else ():
            # BatchNorm's statistics are no parameters, but change what the weights of a part amount to.
            if isinstance(part, nn.BatchNorm2d | nn.SyncBatchNorm) and not f"{name}.".startswith(self._trained):
                part.eval()
        return self

    def configure_optimizers(self) -> dict[str, Any]:
        if self._optimizer is None:
            raise ConfigError("a codec learns after prepare_training(loss, optimizer): call it before Trainer.fit")
        priors = [p for module in self.modules() if isinstance(module, CodingTables) for p in module.parameters()]
        others = [p for p in self.parameters() if not any(p is prior for prior in priors)]
        optimizer = self._optimizer([{"params": others}, {"params": priors}])
        optimizer.param_groups[1]["lr"] *= self._prior_lr_factor
        if isinstance(optimizer, Adam) and self.device.type in ("cpu", "cuda"):
            for group in optimizer.param_groups:  # asked for at its making, Lightning would clip no gradients
                if group["fused"] is None and not (group["foreach"] or group["differentiable"]):
                    group["fused"] = True  # all weights in one kernel
        chosen: dict[str, Any] = {"optimizer": optimizer}
        if self._scheduler is not None:
            chosen["lr_scheduler"] = {"scheduler": self._scheduler(optimizer), "monitor": "val/loss"}
            if isinstance(chosen["lr_scheduler"]["scheduler"], ReduceLROnPlateau):  # asked where there is a new one
                chosen["lr_scheduler"]["frequency"] = self.trainer.check_val_every_n_epoch or 1
        return chosen

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """`batch` as `reconstruct` takes it."""
        loss, shown = self.trained_terms(batch)
        # To hand over what no logger is going to show takes time that quick steps feel.
        every = self.trainer.log_every_n_steps
        if every and (self.trainer.global_step + 1) % every == 0:
            images = batch if isinstance(batch, Tensor) else batch[0]
            self.log_dict({f"train/{name}": value for name, value in shown.items()}, batch_size=len(images))
            self.log("train/lr", self.optimizers().param_groups[0]["lr"])
        return {"loss": loss, "distortion": shown["distortion"], "bpp": shown["bpp"], "shown": shown["loss"]}

    def trained_terms(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """What a training step minimises, and what it logs, which has no gradient; `batch` as `training_step`'s."""
        x, output = self.reconstruct(batch)
        terms = self._loss(output.x_hat, output.total_bits, x)
        shown = {"loss": terms.total, "distortion": terms.distortion, "bpp": terms.bpp, **output.bpp_by_part()}
        return terms.loss, {name: value.detach() for name, value in shown.items()}

    def reconstruct(self, batch: Any) -> tuple[Tensor, Reconstruction]:
        """A training batch, uint8 `[B, C, H, W]` → padded images in [0, 1], and what `forward` makes of them."""
        x = self.pad(batch.float() / 255)
        return x, self(x)

    def validation_step(self, item: NamedImage, batch_idx: int) -> Tensor:
        """One whole image, uint8; gives its 8-bit reconstruction `[C, H, W]` and logs the `val/*` means.

        They are of what a file would hold. Where the rate varies, each image meets one of three qualities, by its
        name; and distortion counts relative to the squared step in `val/loss`, or one quality would outweigh all.
        """
        if not any(bottleneck.variable_rate for bottleneck in self.bottlenecks()):
            return self._validated(item, 1.0)
        in_use, number = self.quality, zlib.crc32(item.name.encode())
        self.quality = _VALIDATED_QUALITIES[number % len(_VALIDATED_QUALITIES)]
        try:
            step = self.bottlenecks()[0].relative_step(torch.tensor([self.quality])).item()
            return self._validated(item, step**2)
        finally:
            self.quality = in_use

    def _validated(self, item: NamedImage, bit: float) -> Tensor:
        """The reconstruction; a bit is worth `bit` times the loss's rate weight."""
        height, width = item.image.shape[-2:]
        x = item.image[None].float() / 255
        padded = self.from_file(self.pad(x))
        output = padded._replace(x_hat=padded.x_hat[..., :height, :width].float())
        terms = self._loss(output.x_hat, output.total_bits, x)
        total = terms.total + (1 / bit - 1) * terms.distortion
        values = {"loss": total, "distortion": terms.distortion, "bpp": terms.bpp, **output.bpp_by_part()}
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


def gradient_times(factor: Tensor, x: Tensor) -> Tensor:
    """`x` `[B, …]`, whose gradients are multiplied by `factor` `[B]`."""
    return x.detach() + factor.view(-1, *[1] * (x.ndim - 1)) * (x - x.detach())


def to_uint8(x: Tensor) -> Tensor:
    """[0, 1] floats → uint8 of the same shape, clamped and rounded."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
