"""Side information: a coarse latent z that the encoder makes of a tensor, and what the decoder reads from it.

Ballé et al. 2018 (https://arxiv.org/abs/1802.01436); with means, Minnen, Ballé, Toderici 2018
(https://arxiv.org/abs/1809.02736).
"""

import torch
from torch import Tensor, nn

from codec.entropy.per_channel import ChannelTables, PerChannel
from codec.entropy.priors.prior import EncoderOnly, Size
from codec.entropy.rdoq import Targets
from codec.entropy.walk import Code
from codec.networks.exact import ExactConv2d, ExactUpConv2d, UnusableWeightsError, codes

_REACH = 32


class Hyper(nn.Module):
    """z of `features` channels at a quarter of a tensor's grid, and features of it on that grid.

    What follows from z is exact.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.analysis = EncoderOnly(
            nn.Conv2d(2 * channels, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(features, features, 5, stride=2, padding=2),
        )
        self.tables = ChannelTables(features, _REACH)
        self.expand = ExactConv2d(features, features, 3, padding=1, reach=_REACH)
        self.ups = nn.ModuleList(ExactUpConv2d(features, features) for _ in range(2))

    def visit(
        self, levels: Tensor | Targets | None, size: tuple[int, int, int], code: Code, whole_levels: bool
    ) -> Tensor:
        """Codes z of a tensor of `size` (B, H, W) → codes `[B, F, H, W]`; `whole_levels`: z is rounded before."""
        batch, height, width = size
        z = None
        if levels is not None:
            levels = levels.real if isinstance(levels, Targets) else levels
            signed = torch.cat([levels.clamp(min=0), -levels.clamp(max=0)], 1)
            z = self.analysis(torch.log2(1 + signed))
            if whole_levels:
                if not bool(torch.isfinite(z).all()):
                    raise UnusableWeightsError("side information is not finite: the weights are not usable")
                z = torch.floor(z + 0.5)
        z = code("z", PerChannel(self.tables, (batch, *self.size_of_z((height, width)))), z)
        # What lies outside the alphabet is escaped in the file, and counts as its end here.
        h = codes(self.expand(z.clamp(-_REACH, _REACH)))
        for up in self.ups:
            h = codes(up(h))
        return h[..., :height, :width]

    def size_of_z(self, size: Size) -> Size:
        return -(-size[0] // 4), -(-size[1] // 4)

    def least_bits(self, size: Size) -> float:
        height, width = self.size_of_z(size)
        return float(self.tables.least_bits_of_rows().sum()) * height * width
