"""What an encoder may do for a smaller file of the same format: look for better levels than the nearest ones.

With D the squared error of the decoded image and R the bits of the file, levels are sought that make D + λ·R small.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codec.entropy.bottleneck import are_codable
from codec.entropy.rdoq import BIT
from codec.networks.exact import UnusableWeightsError

if TYPE_CHECKING:
    from codec.learned_codec import LearnedCodec

EFFORTS = range(10)
_CORNER = 256


def improved(
    codec: "LearnedCodec",
    picture: Callable[[], Tensor],
    exact: Sequence[Tensor],
    quality: Tensor | None,
    effort: int,
    write: bool,
) -> tuple[Sequence[Tensor], bytes | None]:
    """A latent, B = 1, `exact` in steps of its `quality`, moved to the levels that `effort`, from 1 on, finds.

    And their section of a file, where it is to be written and the search, at effort 1, can do so on its way. They
    may come to lie where `exact` was. `picture` gives what the latent is of, as `g_a` takes it; from effort 2 on it
    is asked for.

    1 is rate-distortion-optimised quantisation: every symbol in coding order takes that of its two nearest levels
    which costs least, as if no other level mattered to its error. Further steps do so again, towards where the
    gradient of D + λ·R points, through the decoder and through what is predicted from each level, and keep what is
    better, or go half as far. (Yang, Bamler and Mandt 2020, https://arxiv.org/abs/2006.04240, descend the gradients
    of a relaxed quantiser.) Where latent or weights are of no use, what is given back has no file.
    """
    with torch.inference_mode(False), torch.no_grad():  # gradients are wanted of some parts
        exact = [tensor.clone() if tensor.is_inference() else tensor for tensor in exact]
        quality = None if quality is None else quality.clone()
        if not are_codable(exact):
            return exact, None
        try:
            return _searched(codec, picture, exact, quality, effort, write)
        except UnusableWeightsError:
            return exact, None


def _searched(
    codec: "LearnedCodec",
    picture: Callable[[], Tensor],
    exact: Sequence[Tensor],
    quality: Tensor | None,
    effort: int,
    write: bool,
) -> tuple[list[Tensor], bytes | None]:
    bottleneck = codec.bottleneck
    worth = _worth_of_levels(codec, exact, quality)
    bit = BIT * _mean_where_not_zero(worth, exact)
    in_bits = [tensor / bit for tensor in worth]
    if write and effort == 1:
        return bottleneck.choose_and_compress(exact, in_bits, quality)
    best = bottleneck.choose(exact, in_bits, quality)
    lowest, share = None, 1.0
    if effort > 1:
        x = picture().clone()
    for _ in range(effort - 1):
        if lowest is None:
            lowest, slopes = _cost_and_slopes(codec, x, best, quality, bit)
        moves = zip(best, slopes, worth, strict=True)
        targets = [level - share * slope / (2 * w) for level, slope, w in moves]
        found = bottleneck.choose(targets, in_bits, quality)
        if _cost(codec, x, found, quality, bit) < lowest:
            best, lowest = found, None
        else:
            share /= 2
    return best, None


def _worth_of_levels(codec: "LearnedCodec", exact: Sequence[Tensor], quality: Tensor | None) -> list[Tensor]:
    """The mean squared length of what a step of each channel does to the image, `[1, C, 1, 1]` each.

    By one product of the decoder's Jacobian with noise, whose expectation this is, in a corner of the image.
    """
    with torch.enable_grad():
        corners = zip(exact, codec.latent_sizes(codec.padded(_CORNER, _CORNER)), strict=True)
        levels = [_nearest(tensor[..., :height, :width]).requires_grad_() for tensor, (height, width) in corners]
        x_hat = codec.g_s(codec.bottleneck.dequantised(levels, quality), quality)
        noise = torch.randn(x_hat.shape, generator=torch.Generator().manual_seed(0)).to(x_hat.device)
        products = torch.autograd.grad((x_hat * noise).sum(), levels)
    return [product.square().mean((0, 2, 3), keepdim=True).clamp(min=1e-12) for product in products]


def _mean_where_not_zero(worth: Sequence[Tensor], exact: Sequence[Tensor]) -> Tensor:
    # Channel by channel, for memory's sake.
    coded = [
        torch.stack([(_nearest(plane) != 0).sum() for plane in tensor[0]]).float().view(1, -1, 1, 1) + 1e-6
        for tensor in exact
    ]
    total = sum((w * count).sum() for w, count in zip(worth, coded, strict=True))
    return total / sum(count.sum() for count in coded)


def _nearest(exact: Tensor) -> Tensor:
    return torch.floor(exact + 0.5)


def _cost(
    codec: "LearnedCodec", x: Tensor, levels: Sequence[Tensor], quality: Tensor | None, bit: Tensor
) -> Tensor:
    """D + λ·R; its gradient is that of D, and of what other symbols cost by a level."""
    x_hat = codec.g_s(codec.bottleneck.dequantised(levels, quality), quality)
    return (x_hat - x).square().sum() + bit * codec.bottleneck.bits_ahead(levels, quality)


def _cost_and_slopes(
    codec: "LearnedCodec", x: Tensor, levels: Sequence[Tensor], quality: Tensor | None, bit: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    with torch.enable_grad():
        levels = [tensor.clone().requires_grad_() for tensor in levels]
        cost = _cost(codec, x, levels, quality, bit)
        return cost.detach(), torch.autograd.grad(cost, levels)
