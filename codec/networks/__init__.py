"""Plain nn.Modules: no training, no coding, no config."""

from codec.networks.blocks import ConvBlock, Upsample

__all__ = ["ConvBlock", "Upsample"]
