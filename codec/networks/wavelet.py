"""Wavelet: a learnable CDF 9/7 pyramid that starts out as JPEG 2000's; a codec around it is one from step 0."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codec.networks.block_dct import CHROMA_UNIT, dct_matrix

# Daubechies and Sweldens, "Factoring wavelet transforms into lifting steps" (1998), section 7.7: the 9/7 filter
# pair as predict, update, predict, update, and the scaling that makes it nearly orthonormal.
LIFTING = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
SCALING = 1.149604398860241


class Wavelet(nn.Module):
    """Analysis `[B, C, H, W]` → a pyramid, coarse to fine, and synthesis back; both learn.

    Of L = `levels` halvings, the coarsest tensor `[B, 4C, H/2^L, W/2^L]` holds the approximation and the details of
    the last one; then follow the details `[B, 3C, H/2^k, W/2^k]` for k from L − 1 to 1: of each colour those across
    rows, across columns and across both (LH, HL, HH), colours outermost. Height and width are multiples of 2^L.
    Colours are opponent (a DCT over R, G, B), chroma in units 1.3 times as large: quantised in equal steps it is
    coarser by that. Luma's basis functions have about unit norm.

    Every level has lifting steps of its own, and synthesis has others than analysis, which start equal: what undoes
    a transform best is no longer its inverse once quantisation lies in between. Works in full precision inside
    autocast too.
    """

    def __init__(self, image_channels: int, levels: int) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"levels={levels}: allowed are integers from 1")
        self.levels = levels
        self.channels = [4 * image_channels] + [3 * image_channels] * (levels - 1)
        colours = dct_matrix(image_channels).float()
        units = torch.tensor([1.0] + [CHROMA_UNIT] * (image_channels - 1))
        self.to_colours = nn.Parameter(colours / units[:, None])
        self.from_colours = nn.Parameter(colours.T * units)
        # [levels, vertical and horizontal, lifting steps, the neighbours before and after]
        steps = torch.tensor(LIFTING).view(1, 1, 4, 1).expand(levels, 2, 4, 2)
        self.forward_steps = nn.Parameter(steps.clone())
        self.inverse_steps = nn.Parameter(steps.clone())

    def analysis(self, x: Tensor) -> list[Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            low = torch.einsum("kc,bchw->bkhw", self.to_colours, x.float() - 0.5)
            details = []
            for steps in self.forward_steps:
                low, high = _halve(low, steps[0], -2)
                low, hl = _halve(low, steps[1], -1)
                lh, hh = _halve(high, steps[1], -1)
                details.append(torch.stack([lh, hl, hh], 2).flatten(1, 2))
            coarsest = torch.cat([low, details.pop()], 1)
            return [coarsest, *reversed(details)]

    def synthesis(self, pyramid: Sequence[Tensor]) -> Tensor:
        """The pyramid → `[B, C, H, W]`; from its first k tensors alone, `[B, C, H/2^(L−k), W/2^(L−k)]`."""
        coarsest, *finer = pyramid
        low, detail = coarsest.split([len(self.to_colours), 3 * len(self.to_colours)], 1)
        with torch.autocast(low.device.type, enabled=False):
            low = low.float()
            for details, steps in zip([detail, *finer], self.inverse_steps.flip(0), strict=False):
                lh, hl, hh = details.float().unflatten(1, (-1, 3)).unbind(2)
                low = _double(_double(low, hl, steps[1], -1), _double(lh, hh, steps[1], -1), steps[0], -2)
            # Each level that is left out would have halved the mean.
            gain = 2.0 ** (len(pyramid) - self.levels)
            return torch.einsum("ck,bkhw->bchw", self.from_colours, low * gain) + 0.5

    def groups(self) -> list[list[tuple[tuple[int, ...], int]]]:
        """What a context model codes together, as (channels, passes over the positions), in coding order.

        Luma's bands one after the other, then chroma; in the fine tensors, which have most of the bits, with more
        passes. Each pass costs a file about four bytes.
        """
        colours = len(self.to_colours)

        def details(first: int, level: int) -> list[tuple[tuple[int, ...], int]]:
            luma = tuple(range(first, first + 3))
            chroma = tuple(range(first + 3, first + 3 * colours))
            phases = {1: 4, 2: 4, 3: 2}.get(level)
            if phases is None:
                parts = [(luma, 1 if level == self.levels else 2), (chroma, 1)]
            else:
                parts = [*(((band,), phases) for band in luma), (chroma, 2)]
            return [part for part in parts if part[0]]

        approximation = (tuple(range(colours)), 4)
        coarsest = [approximation, *details(colours, self.levels)]
        return [coarsest, *(details(0, level) for level in range(self.levels - 1, 0, -1))]


def _halve(x: Tensor, steps: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`x` → its low and high half-bands along `dim`; `steps` `[4, 2]` are the lifting steps."""
    even, odd = x.unfold(dim, 2, 2).unbind(-1)
    odd = odd + _both(even, steps[0], dim, after=True)
    even = even + _both(odd, steps[1], dim, after=False)
    odd = odd + _both(even, steps[2], dim, after=True)
    even = even + _both(odd, steps[3], dim, after=False)
    return even * SCALING, odd / SCALING


def _double(low: Tensor, high: Tensor, steps: Tensor, dim: int) -> Tensor:
    even, odd = low / SCALING, high * SCALING
    even = even - _both(odd, steps[3], dim, after=False)
    odd = odd - _both(even, steps[2], dim, after=True)
    even = even - _both(odd, steps[1], dim, after=False)
    odd = odd - _both(even, steps[0], dim, after=True)
    return torch.stack([even, odd], dim).flatten(dim - 1, dim)


def _both(x: Tensor, weights: Tensor, dim: int, after: bool) -> Tensor:
    """The weighted sum of each sample's two neighbours on the other grid, mirrored at the ends."""
    size = x.shape[dim]
    if after:
        other = torch.cat([x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)], dim)
        return weights[0] * x + weights[1] * other
    other = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, size - 1)], dim)
    return weights[0] * other + weights[1] * x
