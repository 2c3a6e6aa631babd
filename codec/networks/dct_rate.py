"""DCTRate: about how many bits a block-DCT codec such as JPEG spends on an image, with a gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.networks.block_dct import dct_matrix

# ITU-T T.81, tables K.1 (luma) and K.2 (chroma), of 255 grey levels: what JPEG encoders use at quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# Rows Y, Cb, Cr of R, G, B (JFIF).
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class DCTRate(nn.Module):
    """`x` `[B, C, H, W]` in [0, 1], C 1 or 3, and `log_step` `[B]` → `[B]`: Σ log2(1 + |coefficient| / step).

    The coefficients are those of JPEG's 8×8 blocks but the means, whose level costs nothing: of Y, and of Cb and Cr
    at half resolution. The steps are JPEG's at quality 50 times 2 to the power of `log_step`. Works in full
    precision inside autocast too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dct", dct_matrix(8).float(), persistent=False)
        self.register_buffer("steps", torch.tensor([_LUMA, _CHROMA]) / 255, persistent=False)
        self.register_buffer("ycbcr", torch.tensor(_YCBCR), persistent=False)

    def forward(self, x: Tensor, log_step: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x, scale = x.float(), torch.exp2(log_step.float()).view(-1, 1, 1, 1, 1, 1)
            if x.shape[1] == 1:
                return self._bits(x, self.steps[0] * scale)
            planes = torch.einsum("yc,bchw->byhw", self.ycbcr, x)
            chroma = F.avg_pool2d(planes[:, 1:], 2, ceil_mode=True)
            return self._bits(planes[:, :1], self.steps[0] * scale) + self._bits(chroma, self.steps[1] * scale)

    def _bits(self, planes: Tensor, steps: Tensor) -> Tensor:
        height, width = planes.shape[-2:]
        padded = F.pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)  # (B, C, H/8, W/8, 8, 8)
        bits = torch.log2(1 + (self.dct @ blocks @ self.dct.T / steps).abs()).flatten(-2)[..., 1:]
        return bits.sum((1, 2, 3, 4))
