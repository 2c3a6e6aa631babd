"""Plain nn.Modules: no training, no coding, no config."""

from codec.networks.block_dct import NETWORK_SHARE, BlockDCT
from codec.networks.blocks import (
    ConvBlock,
    ImageConv2d,
    MaxPool,
    ResidualBlock,
    Upsample,
    UpsamplingLayers,
    companded,
    zero_,
)
from codec.networks.com_rec import ComCNN, RecCNN, RecUNet
from codec.networks.dct_rate import DCTRate
from codec.networks.modes import quick_layout
from codec.networks.noise_schedule import NoiseSchedule
from codec.networks.unet import SKIP_WIDTHS, DetailDenoiser, UNetDecoder
from codec.networks.wavelet import Wavelet
from codec.networks.wavelet_unet import WaveletUNet

__all__ = [
    "NETWORK_SHARE",
    "SKIP_WIDTHS",
    "BlockDCT",
    "ComCNN",
    "ConvBlock",
    "DCTRate",
    "DetailDenoiser",
    "ImageConv2d",
    "MaxPool",
    "NoiseSchedule",
    "RecCNN",
    "RecUNet",
    "ResidualBlock",
    "UNetDecoder",
    "Upsample",
    "UpsamplingLayers",
    "Wavelet",
    "WaveletUNet",
    "companded",
    "quick_layout",
    "zero_",
]
