"""quantized_autoencoder: a ResNet encoder, a ResNet decoder, and a latent of B bits a value in between.

"Quantized Auto-Encoder-Based Image Compression", after Alexandre, Chang, Peng, Hang 2019
(https://arxiv.org/abs/1902.07385).

Differs from the paper: the 2^B + 1 values of its rounding rule are coded with a learned distribution per channel,
and images may have any size. Beyond the paper: `shortcut: dct` and `encoder: none`, see below.

Letters: B images (and bits, in 2^B), C image channels, H × W pixels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from codec.checks import check_choice, check_integer, check_integers
from codec.dct_shortcut import bottleneck_and_shortcut
from codec.entropy import EntropyBottleneck
from codec.errors import ArgumentError
from codec.learned_codec import LearnedCodec
from codec.networks import ImageConv2d, ResidualBlock, quick_layout, zero_
from codec.networks.coded import Coded
from codec.networks.modes import roughly
from codec.networks.pretrained import load_pretrained

# Blocks of each of the four stages.
ENCODERS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
_HALVINGS = 5


class QuantizedAutoencoder(LearnedCodec):
    """Five halvings by a ResNet to a latent of M = 512 channels, five doublings by residual blocks.

        x ── ResNet /32 ── 1×1 ── y ── bottleneck ── y_hat ── five upsampling residual blocks ── 3×3 ── x_hat
                                           └── one section

    `encoder` is one of torchvision's ResNets, without its classifier. With `pretrained`, training starts from its
    ImageNet weights, which `load_starting_weights` fetches from `pretrained_url` (null: torchvision's). `widths`
    are the decoder's channels after each doubling, coarsest first; with fewer than five, two at least, as
    many halvings fewer: the ResNet's last stages are left out.

    `shortcut` "dct" adds a learnable block DCT around the networks, whose ends start at zero: training then begins
    at a working codec, whose rate `shortcut_step` sets (see DCTShortcut). "none" is the paper's. With the DCT,
    `encoder` may be "none": nothing is added to the DCT, and every block of the decoder sees the DCT's image, 2^n ×
    2^n pixels as channels.
    """

    tag = "QUAN"

    def __init__(
        self,
        bottleneck: Callable[..., EntropyBottleneck],
        image_channels: int = 3,
        encoder: str = "resnet101",
        pretrained: bool = True,
        pretrained_url: str | None = None,
        latent_channels: int = 512,
        widths: Sequence[int] = (256, 128, 64, 32, 16),
        shortcut: str = "none",
        shortcut_step: float = 0.09,
    ) -> None:
        super().__init__(image_channels)
        check_choice("encoder", encoder, ("none", *ENCODERS))
        check_integer("latent_channels", latent_channels, 1)
        check_integers("widths", widths, lowest=1, fewest=2)
        if len(widths) > _HALVINGS:
            raise ArgumentError("widths", list(widths), f"allowed are lists of 2 to {_HALVINGS}")
        encodes = encoder != "none"
        if not encodes and shortcut == "none":
            raise ArgumentError("encoder", encoder, "allowed with shortcut=dct only")
        if not encodes and pretrained:
            raise ArgumentError("pretrained", pretrained, "with encoder=none allowed is false")
        self.stride = 2 ** len(widths)
        self.encoder_name, self.pretrained, self.pretrained_url = encoder, pretrained, pretrained_url

        if encodes:
            # Of ImageNet's photographs; no part of a checkpoint.
            for name, values in (("mean", [0.485, 0.456, 0.406]), ("deviation", [0.229, 0.224, 0.225])):
                self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
            left_out = _HALVINGS - len(widths)
            block, blocks = ENCODERS[encoder]
            self.encoder = _ResNet(block, [*blocks[: len(blocks) - left_out], *[0] * left_out])
            self.to_latent = nn.Conv2d(self.encoder.fc.in_features >> left_out, latent_channels, 1)
            self.encoder.fc = nn.Identity()
        self.bottleneck, self.shortcut = bottleneck_and_shortcut(
            bottleneck, shortcut, image_channels, [latent_channels], self.stride, shortcut_step
        )
        self.decoder = nn.ModuleList()
        for n, (coarse, fine) in enumerate(
            pairwise([latent_channels + self.bottleneck.step_planes, *widths]), start=1 - len(widths)
        ):
            of_image = 0 if encodes else image_channels * 4**-n
            self.decoder.append(ResidualBlock(coarse, fine, upsample=True, beside=of_image))
        self.decoder.append(ImageConv2d(widths[-1], image_channels))
        if self.shortcut is not None:
            zero_(self.decoder[-1])
            if encodes:
                zero_(self.to_latent)

    def load_starting_weights(self) -> None:
        """The encoder's ImageNet weights, if `pretrained`. Raises ValueError if they cannot be had."""
        if self.pretrained:
            url = self.pretrained_url or get_model_weights(self.encoder_name).IMAGENET1K_V1.url
            load_pretrained(self.encoder, url, "", self.encoder_name, "model.pretrained=false")

    def by_transform(self, y_hat: list[Tensor]) -> Tensor | None:
        return self.shortcut.synthesis(y_hat[0]) if self.encoder_name == "none" else None

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] // self.stride, size[1] // self.stride)]

    def g_a(self, x: Tensor) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, M, H/stride, W/stride]`."""
        if self.encoder_name == "none":
            return [self.shortcut.analysis(x)]
        resnet = self.encoder
        with roughly(self, x.device.type):
            h = resnet.conv1(quick_layout((x.expand(-1, 3, -1, -1) - self.mean) / self.deviation))
            h = resnet.maxpool(resnet.relu(resnet.bn1(h)))  # (B, 64, H/4, W/4)
            h = resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(h))))
        y = self.to_latent(h.float())
        return [y if self.shortcut is None else self.shortcut.latent(x, y)]

    def g_s(self, y_hat: list[Tensor], quality: Tensor | None = None) -> Tensor:
        """`y_hat` `[B, M, H/stride, W/stride]` → `x_hat` `[B, C, H, W]`."""
        (y,) = y_hat
        if self.shortcut is None:
            return 0.5 + self._up(quick_layout(self.bottleneck.with_step(y, quality)))  # around mid-grey
        image = self.shortcut.synthesis(y)
        seen = self.shortcut.seen(self, y, quality)
        decoded = self._up(seen, image if self.encoder_name == "none" else None).float()
        return image + self.shortcut.image_share(self.bottleneck, quality) * decoded

    def _up(self, h: Tensor | Coded, image: Tensor | None = None) -> Tensor:
        """From y_hat to full size; the blocks see `image` `[B, C, H, W]`, where there is one."""
        *blocks, last = self.decoder
        for n, block in zip(reversed(range(len(blocks))), blocks, strict=True):
            beside = None if image is None else self.shortcut.seen_beside(self, image, 2**n)
            h = block(h, beside)  # (B, widths[-1 - n], H/2^n, W/2^n)
        return last(h)


class _ResNet(ResNet):
    """Torchvision's, whose stages of no blocks are left out."""

    def _make_layer(self, block: type[nn.Module], planes: int, blocks: int, **options: object) -> nn.Module:
        return super()._make_layer(block, planes, blocks, **options) if blocks else nn.Identity()
