"""DCTShortcut: a block DCT beside a scheme's networks, so that training starts at a working codec."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from codec.checks import check_choice, check_positive
from codec.entropy import EntropyBottleneck
from codec.networks import NETWORK_SHARE, BlockDCT, companded, quick_layout
from codec.networks.coded import Coded, seen_by_decoder

# How far codes reach, of companded levels and the step, and of the image, of which mid-grey is 0.
_LEVELS_REACH, _IMAGE_REACH = 8.0, 1.0


class DCTShortcut(BlockDCT):
    """A learnable BlockDCT from the image to a scheme's coarsest latent and back, around networks that end at zero.

        y = DCT(x) + share · encoder(x)             x_hat = DCT⁻¹(y_hat) + share · decoder(seen)

    With one rate, steps are as JPEG's, the decoder sees y_hat, and both shares are NETWORK_SHARE. With a variable
    rate steps are equal, as levels are chosen best where each is worth the same; the decoder sees what `seen` makes
    of it, companded levels, whatever the step; and the networks count in steps, encoders in those of quality 50.
    (The diffusion autoencoder's decoder has its own normalised latent instead, and its own share; the convolutional
    ones have no other encoder than the DCT.)
    """

    def __init__(
        self,
        bottleneck: EntropyBottleneck,
        image_channels: int,
        channels: int,
        block: int,
        step: float,
        overlap: int,
    ) -> None:
        levels = bottleneck.scale
        super().__init__(image_channels, channels, block, levels, step, overlap, bottleneck.variable_rate)
        self.latent_share = NETWORK_SHARE / (levels if bottleneck.variable_rate else 1)
        self.step = 1 / (levels * float(self.scale[0]))

    def latent(self, x: Tensor, encoded: Tensor) -> Tensor:
        """The latent of `x`, of which `encoded`, as large, is what the encoder adds."""
        return self.analysis(x) + self.latent_share * encoded

    @staticmethod
    def seen(codec: nn.Module, y_hat: Tensor, quality: Tensor | None) -> Tensor | Coded:
        """What the decoder of `codec` sees of `y_hat`, `bottleneck.step_planes` channels more."""
        bottleneck = codec.bottleneck
        if not bottleneck.variable_rate:
            return quick_layout(y_hat)
        levels = companded(y_hat / bottleneck.step(quality))
        return seen_by_decoder(codec, bottleneck.with_step(levels, quality), _LEVELS_REACH)

    @staticmethod
    def seen_beside(codec: nn.Module, image: Tensor, block: int) -> Tensor | Coded:
        """What the decoder sees of the DCT's `image` besides, `block`×`block` pixels as channels."""
        reach = _IMAGE_REACH if codec.bottleneck.variable_rate else None
        return seen_by_decoder(codec, F.pixel_unshuffle(image - 0.5, block), reach)

    def image_share(self, bottleneck: EntropyBottleneck, quality: Tensor | None) -> Tensor | float:
        """What a decoder's output counts beside the DCT's image."""
        if not bottleneck.variable_rate:
            return NETWORK_SHARE
        return NETWORK_SHARE * self.step * bottleneck.relative_step(quality)


def bottleneck_and_shortcut(
    bottleneck: Callable[..., EntropyBottleneck],
    shortcut: str,
    image_channels: int,
    channels: Sequence[int],
    block: int,
    step: float,
) -> tuple[EntropyBottleneck, DCTShortcut | None]:
    """The bottleneck of a latent of `channels`, and what `shortcut`, "dct" or "none", adds to its first tensor.

    With the DCT of blocks of `block`² pixels, its quantiser step `step`, a context model is told its groups, and
    there are no gains. Kernels may come to reach half a block beyond theirs, 8 pixels at most.
    """
    check_choice("shortcut", shortcut, ("none", "dct"))
    check_positive("shortcut_step", step)
    if shortcut == "none":
        return bottleneck(channels), None
    groups = [BlockDCT.groups(image_channels, channels[0], block), *[None] * (len(channels) - 1)]
    made = bottleneck(channels, groups=groups, gains=False)
    return made, DCTShortcut(made, image_channels, channels[0], block, step, overlap=min(8, block // 2))
