"""quantized_autoencoder: a ResNet encoder, a ResNet decoder, and a latent of B bits a value in between.

"Quantized Auto-Encoder-Based Image Compression", after Alexandre, Chang, Peng, Hang 2019
(https://arxiv.org/abs/1902.07385).

Differs from the paper: the 2^B + 1 values of its rounding rule are coded with a learned distribution per channel,
and images may have any size. Beyond the paper: `shortcut: dct`, see below.

Letters: B images (and bits, in 2^B), C image channels, H × W pixels.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.transforms.v2 import Normalize

from codec.checks import check_choice, check_integer, check_integers, check_positive
from codec.entropy import EntropyBottleneck
from codec.learned_codec import LearnedCodec
from codec.networks import NETWORK_SHARE, BlockDCT, ResidualBlock, zero_
from codec.networks.pretrained import load_pretrained

ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


class QuantizedAutoencoder(LearnedCodec):
    """Five halvings by a ResNet to a latent of 512 channels, five doublings by residual blocks.

        x ── ResNet /32 ── 1×1 ── y ── bottleneck ── y_hat ── five upsampling residual blocks ── 3×3 ── x_hat
                                           └── one section

    `encoder` is one of torchvision's ResNets, without its classifier. With `pretrained`, training starts from its
    ImageNet weights, which `load_starting_weights` fetches from `pretrained_url` (null: torchvision's). `widths`
    are the decoder's channels after each doubling, coarsest first.

    `shortcut` "dct" adds a learnable block DCT around the networks, whose ends start at zero: y = DCT(x) +
    encoder(x) / 10, x_hat = DCT⁻¹(y_hat) + decoder(y_hat) / 10 (see NETWORK_SHARE). Training then begins at a
    working codec, whose rate `shortcut_step` sets (see BlockDCT). "none" is the paper's.
    """

    tag = "QUAN"
    stride = 32

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
        check_choice("encoder", encoder, ENCODERS)
        check_integer("latent_channels", latent_channels, 1)
        check_integers("widths", widths, count=5, lowest=1)
        check_choice("shortcut", shortcut, ("none", "dct"))
        check_positive("shortcut_step", shortcut_step)
        self.encoder_name, self.pretrained, self.pretrained_url = encoder, pretrained, pretrained_url

        self.imagenet = Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
        self.encoder = get_model(encoder, weights=None)
        self.to_latent = nn.Conv2d(self.encoder.fc.in_features, latent_channels, 1)
        self.encoder.fc = nn.Identity()
        groups = BlockDCT.groups(image_channels, latent_channels, self.stride) if shortcut == "dct" else None
        self.bottleneck = bottleneck([latent_channels], groups=[groups], gains=shortcut == "none")
        self.decoder = nn.Sequential(
            *(
                ResidualBlock(coarse, fine, upsample=True)
                for coarse, fine in pairwise([latent_channels + self.bottleneck.step_planes, *widths])
            ),
            nn.Conv2d(widths[-1], image_channels, 3, padding=1),
        )
        self.shortcut = None
        if shortcut == "dct":
            self.shortcut = BlockDCT(
                image_channels,
                latent_channels,
                block=self.stride,
                levels=self.bottleneck.scale,
                step=shortcut_step,
                overlap=8,
            )
            zero_(self.to_latent)
            zero_(self.decoder[-1])

    def load_starting_weights(self) -> None:
        """The encoder's ImageNet weights, if `pretrained`. Raises ValueError if they cannot be had."""
        if self.pretrained:
            url = self.pretrained_url or get_model_weights(self.encoder_name).IMAGENET1K_V1.url
            load_pretrained(self.encoder, url, "", self.encoder_name, "model.pretrained=false")

    def latent_sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] // self.stride, size[1] // self.stride)]

    def g_a(self, x: Tensor, quality: Tensor | None = None) -> list[Tensor]:
        """`x` `[B, C, H, W]` → y `[B, 512, H/32, W/32]`."""
        resnet = self.encoder
        h = resnet.conv1(self.imagenet(x.expand(-1, 3, -1, -1)))
        h = resnet.maxpool(resnet.relu(resnet.bn1(h)))  # (B, 64, H/4, W/4)
        h = resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(h))))  # (B, 512 or 2048, H/32, W/32)
        y = self.to_latent(h)
        if self.shortcut is not None:
            y = self.shortcut.analysis(x) + NETWORK_SHARE * y
        return [y]

    def g_s(self, y_hat: list[Tensor], quality: Tensor | None = None) -> Tensor:
        """`y_hat` `[B, 512, H/32, W/32]` → `x_hat` `[B, C, H, W]`."""
        (y,) = y_hat
        decoded = self.decoder(self.bottleneck.with_step(y, quality))
        if self.shortcut is None:
            return 0.5 + decoded  # around mid-grey
        return self.shortcut.synthesis(y) + NETWORK_SHARE * decoded
