"""BlockDCT: a learnable linear transform that starts out as JPEG's; a codec around it is one from step 0."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A stationary image model: neighbouring pixels correlate by this much (Jain 1989, section 5.12), ...
_CORRELATION = 0.95
# ... pixels in [0, 1] have this standard deviation, and luma and the two chroma differences share it so.
_DEVIATION = 0.25
_COLOUR_SHARES = (0.93, 0.05, 0.02)

# Quantiser steps grow with frequency, as JPEG's do, and are coarser for chroma. At equal rate and PSNR that gains
# 0.01 of MS-SSIM over equal steps.
_STEP_GROWTH = 4.5
_CHROMA_STEP = 1.75
# Against steps that are all equal, coarser chroma costs nothing in PSNR and gains MS-SSIM.
CHROMA_UNIT = 1.3

# What context models code together: of each band of frequencies u + v up to these, and what phases it is coded in.
_LUMA_BANDS = ((0, 4), (1, 2), (2, 2), (3, 2), (4, 2), (5, 1), (6, 1), (8, 1))
_CHROMA_BANDS = ((0, 4), (1, 2), (3, 1))

# What the networks beside a BlockDCT count: Adam's first steps move every weight of a zeroed end by the whole
# learning rate, which would drown the transform.
NETWORK_SHARE = 0.1


class BlockDCT(nn.Module):
    """Analysis `[B, C, H, W]` → `[B, M, H/n, W/n]` in about [−½, ½], and synthesis back; both learn.

    Both start as the DCT of n×n blocks (n = `block`) in opponent colours (themselves a DCT over R, G, B), of whose
    C·n² coefficients the M = `channels` of largest variance in a first-order Markov image are kept; where there
    are fewer, the rest of the channels start at zero. Kernels reach `overlap` pixels beyond the block, where they
    start at zero: learning can make the transform a lapped one.

    The latent's unit range is `levels` quantiser steps, more where six standard deviations of a coefficient need
    more. The step is `step` (of a coefficient of an image in [0, 1]) at frequency 0, 5.5 times that at the highest,
    and 1.75 times coarser for chroma. With `equal_steps` it is `step` at all frequencies, or what it takes for no
    coefficient to leave the unit range, and 1.3 times coarser for chroma. Works in full precision inside autocast
    too.
    """

    scale: Tensor

    def __init__(
        self,
        image_channels: int,
        channels: int,
        block: int,
        levels: int,
        step: float = 0.09,
        overlap: int = 0,
        equal_steps: bool = False,
    ) -> None:
        super().__init__()
        if block < 1 or not 0 <= overlap <= block:
            raise ValueError(f"block={block}, overlap={overlap}: allowed are a block from 1, an overlap up to it")
        if not (levels > 0 and step > 0):
            raise ValueError(f"levels={levels}, step={step}: allowed are numbers above 0")
        self.block = block
        self.overlap = overlap
        deviation = _deviation(image_channels, block)
        coarseness = _coarseness(image_channels, block, equal_steps)
        kept = _kept(deviation, channels)
        weight = torch.zeros(channels, image_channels, block + 2 * overlap, block + 2 * overlap)
        inner = slice(overlap, overlap + block)
        weight[: len(kept), :, inner, inner] = _basis(image_channels, block)[kept]
        # Adam moves each weight by about the learning rate, and a coefficient is a sum of n² of them: scaled like
        # this, a rate that suits the networks moves the transform gently whatever n.
        self.unit = block**2 / 8
        self.analysis_weight = nn.Parameter(weight * self.unit)
        self.synthesis_weight = nn.Parameter(weight * self.unit)
        # Of an image in [−½, ½], no coefficient leaves ±n·√C / 2.
        largest = block * math.sqrt(image_channels)
        needed = torch.full((len(kept),), largest) if equal_steps else (6 * deviation[kept]).clamp(max=largest)
        ranges = torch.maximum(needed, levels * step * coarseness[kept])
        scale = F.pad(1 / ranges, (0, channels - len(kept)), value=1 / (levels * step))
        self.register_buffer("scale", scale.view(-1, 1, 1))

    @staticmethod
    def groups(image_channels: int, channels: int, block: int) -> list[tuple[Sequence[int], int]]:
        """What a context model codes together, as (channels, passes over the positions), in coding order.

        The means, then luma's bands from low to high frequencies, then chroma's; channels that hold no coefficient
        come last. Each pass costs a file about four bytes.
        """
        kept = _kept(_deviation(image_channels, block), channels)
        chroma = kept >= block**2
        frequency = kept % block**2 // block + kept % block
        of_luma = _parts(frequency.masked_fill(chroma, -1), _LUMA_BANDS)
        of_chroma = _parts(frequency.masked_fill(~chroma, -1), _CHROMA_BANDS)
        spare = range(len(kept), channels)
        parts = [*of_luma[:1], *of_chroma[:1], *of_luma[1:], *of_chroma[1:], (spare, 1)]
        return [part for part in parts if part[0]]

    def analysis(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            x = F.pad(x.float() - 0.5, [self.overlap] * 4, mode="replicate")
            return F.conv2d(x, self.analysis_weight, stride=self.block) * (self.scale / self.unit)

    def synthesis(self, y: Tensor) -> Tensor:
        with torch.autocast(y.device.type, enabled=False):
            y = y.float() / (self.scale * self.unit)
            # A product and a sum of overlapping blocks: as a transposed convolution to so few channels, three times
            # as long on a CPU.
            height, width = (side * self.block for side in y.shape[-2:])
            basis = self.synthesis_weight.flatten(1).T.expand(len(y), -1, -1)
            blocks = torch.bmm(basis, y.flatten(2))  # (B, C·k², h·w)
            kernel = self.block + 2 * self.overlap
            return F.fold(blocks, (height, width), kernel, padding=self.overlap, stride=self.block) + 0.5


def _kept(deviation: Tensor, channels: int) -> Tensor:
    return deviation.argsort(descending=True, stable=True)[:channels]


def _parts(frequency: Tensor, bands: Sequence[tuple[int, int]]) -> list[tuple[Sequence[int], int]]:
    """Of each band, and of what is above all, the channels and their phases; channels of frequency −1 have none."""
    parts, low = [], -1
    for high, phases in (*bands, (math.inf, 1)):
        inside = (frequency > low) & (frequency <= high)
        parts.append((inside.nonzero().flatten().tolist(), phases))
        low = high
    return parts


def _basis(image_channels: int, block: int) -> Tensor:
    """The orthonormal basis `[C·n², C, n, n]`."""
    rows, colours = dct_matrix(block), dct_matrix(image_channels)
    return torch.einsum("kc,ui,vj->kuvcij", colours, rows, rows).flatten(0, 2).float()


def _deviation(image_channels: int, block: int) -> Tensor:
    """Each coefficient's standard deviation `[C·n²]`."""
    rows = dct_matrix(block)
    distance = (torch.arange(block)[:, None] - torch.arange(block)).abs()
    markov = (rows @ (_CORRELATION ** distance.double()) @ rows.T).diagonal()
    shares = torch.tensor(_COLOUR_SHARES if image_channels == 3 else (1.0,), dtype=torch.float64)
    # The shares are of a pixel's three values, C·σ² together.
    variance = torch.einsum("k,u,v->kuv", shares * image_channels * _DEVIATION**2, markov, markov)
    return variance.flatten().sqrt().float()


def _coarseness(image_channels: int, block: int, equal_steps: bool) -> Tensor:
    """Each coefficient's step `[C·n²]` over that of luma's mean."""
    steps_growth, chroma_step = (0.0, CHROMA_UNIT) if equal_steps else (_STEP_GROWTH, _CHROMA_STEP)
    frequency = torch.arange(block, dtype=torch.float64) / max(1, block - 1)
    growth = 1 + steps_growth * torch.hypot(frequency[:, None], frequency) / math.sqrt(2)
    chroma = torch.tensor([1.0] + [chroma_step] * (image_channels - 1), dtype=torch.float64)
    return torch.einsum("k,uv->kuv", chroma, growth).flatten().float()


def dct_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, float64 `[size, size]`, a row per frequency."""
    n = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * torch.outer(n, n + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
