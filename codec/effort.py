"""What an encoder may do for a smaller file of the same format: look for better levels than the nearest ones.

With D the squared error of the decoded image and R the bits of the file, levels are sought that make D + λ·R small.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from codec.entropy.bottleneck import are_codable
from codec.entropy.rdoq import BIT
from codec.networks.exact import UnusableWeightsError
from codec.networks.modes import never_roughly
from codec.windows import Picture, Size, Window, tiles, whole

if TYPE_CHECKING:
    from codec.learned_codec import LearnedCodec

# Pixels a side of what is looked at together, as all that lies between levels and cost is kept for the gradient.
LARGEST = 1024
_CORNER = 256


def improved(
    codec: "LearnedCodec",
    picture: Picture,
    exact: Sequence[Tensor],
    quality: Tensor | None,
    effort: int,
    write: bool,
) -> tuple[Sequence[Tensor], bytes | None]:
    """A latent, B = 1, `exact` in steps of its `quality`, moved to the levels that `effort`, from 1 on, finds.

    And their section of a file, where it is to be written and the search, at effort 1, can do so on its way. They
    may come to lie where `exact` was. `picture` gives what the latent is of; from effort 2 on it is asked for.

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
            worth = _worth_of_levels(codec, exact, quality)
            bit = BIT * _mean_where_not_zero(worth, exact)
            in_bits = [tensor / bit for tensor in worth]
            if write and effort == 1:
                return codec.bottleneck.choose_and_compress(exact, in_bits, quality)
            best = codec.bottleneck.choose(exact, in_bits, quality)
            return _descended(Cost(codec, picture, quality, bit), best, worth, effort - 1), None
        except UnusableWeightsError:
            return exact, None


def _descended(cost: "Cost", best: list[Tensor], worth: Sequence[Tensor], steps: int) -> list[Tensor]:
    """The best levels after so many `steps` along the gradient."""
    lowest, share = None, 1.0
    in_bits = [tensor / cost.bit for tensor in worth]
    for _ in range(steps):
        if lowest is None:
            lowest, slopes = cost.with_slopes(best)
        moves = zip(best, slopes, worth, strict=True)
        targets = [level - share * slope / (2 * w) for level, slope, w in moves]
        found = cost.codec.bottleneck.choose(targets, in_bits, cost.quality)
        if cost.of(found) < lowest:
            best, lowest = found, None
        else:
            share /= 2
    return best


class Cost:
    """D + λ·R of a picture's levels, and its gradient: that of D, and of what other symbols cost by a level.

    Of a large picture it is summed up over windows, each seen with all that what is counted in it depends on.
    """

    def __init__(self, codec: "LearnedCodec", picture: Picture, quality: Tensor | None, bit: Tensor) -> None:
        self.codec, self.picture, self.quality, self.bit = codec, picture, quality, bit

    def of(self, levels: Sequence[Tensor]) -> Tensor:
        size = self._size(levels)
        with never_roughly():
            terms = self._terms(size)
            return sum(term([seen.of(tensor, size) for tensor in levels], part, seen) for term, part, seen in terms)

    def with_slopes(self, levels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The cost and its gradient, as large as the levels."""
        size, total = self._size(levels), 0
        slopes = [torch.zeros_like(tensor) for tensor in levels]
        for term, part, seen in self._terms(size):
            with torch.enable_grad():
                told = [seen.of(tensor, size).clone().requires_grad_() for tensor in levels]
                cost = term(told, part, seen)
            total += cost.detach()
            if not cost.requires_grad:
                continue  # bits that depend on no other level
            gradients = torch.autograd.grad(cost, told, allow_unused=True, materialize_grads=True)
            for slope, gradient in zip(slopes, gradients, strict=True):
                seen.of(slope, size).add_(gradient)
        return total, slopes

    def _terms(self, size: Size) -> Iterator[tuple[Callable[..., Tensor], Window, Window]]:
        """What the cost is summed up of: D and λ·R of parts of a picture, and what is seen with each.

        Both of one part, if it is small or cannot be cut.
        """
        unit = 2 * self.codec.stride  # passes of a prior are told apart by even and odd positions
        for term, reach in ((self._distortion, self._reach_of_pixels), (self._rate, self._reach_of_bits)):
            far = reach(unit) if max(size) > LARGEST else None
            if far is None:
                yield term, whole(size), whole(size)
                continue
            for part in tiles(whole(size), unit, max(LARGEST - 2 * far, LARGEST // 2) // unit * unit or unit):
                yield term, part, part.grown(far, unit, size)

    def _size(self, levels: Sequence[Tensor]) -> Size:
        """Of the picture."""
        stride = self.codec.stride
        (height, width), (rows, columns) = levels[0].shape[-2:], self.codec.latent_sizes((stride, stride))[0]
        return height * stride // rows, width * stride // columns

    def _distortion(self, levels: Sequence[Tensor], part: Window, seen: Window) -> Tensor:
        """D of `part`, by levels that are those of the window `seen`."""
        # An image that was made in inference mode has no gradient unless it is copied.
        x = self.picture(part).clone()
        return (part.within(seen).of(self._decoded(levels), seen.size) - x).square().sum()

    def _rate(self, levels: Sequence[Tensor], part: Window, seen: Window) -> Tensor:
        """As `_distortion`, λ·R."""
        counted = None
        if part != seen:
            counted = [tensor.new_zeros(1, 1, *tensor.shape[-2:]) for tensor in levels]
            for of_tensor in counted:
                part.within(seen).of(of_tensor, seen.size).fill_(1)
        return self.bit * self.codec.bottleneck.bits_ahead(levels, self.quality, counted)

    def _reach_of_pixels(self, unit: int) -> int | None:
        return self.codec.reach_of("D", lambda y: [self._decoded(y)], self.codec.latent_shapes, unit)

    def _reach_of_bits(self, unit: int) -> int | None:
        if self.codec.bottleneck.prior.has_side_information:
            return None  # whose bits belong to no part of the picture
        return self.codec.reach_of("R", self._bits_by_position, self.codec.latent_shapes, unit)

    def _decoded(self, levels: Sequence[Tensor]) -> Tensor:
        return self.codec.g_s(self.codec.bottleneck.dequantised(levels, self.quality), self.quality)

    def _bits_by_position(self, levels: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.enable_grad():
            levels = [tensor.requires_grad_() for tensor in levels]
            counted = [tensor.new_ones(1, 1, *tensor.shape[-2:]).requires_grad_() for tensor in levels]
            return torch.autograd.grad(self.codec.bottleneck.bits_ahead(levels, self.quality, counted), counted)


def _worth_of_levels(codec: "LearnedCodec", exact: Sequence[Tensor], quality: Tensor | None) -> list[Tensor]:
    """The mean squared length of what a step of each channel does to the image, `[1, C, 1, 1]` each.

    By one product of the decoder's Jacobian with noise, whose expectation this is, in a corner of the image. Of a
    transform with networks behind it, it is the transform's: theirs depends on the corner, and made larger files.
    """
    with torch.enable_grad():
        corners = zip(exact, codec.latent_sizes(codec.padded(_CORNER, _CORNER)), strict=True)
        levels = [_nearest(tensor[..., :height, :width]).requires_grad_() for tensor, (height, width) in corners]
        y_hat = codec.bottleneck.dequantised(levels, quality)
        x_hat = codec.by_transform(y_hat)
        if x_hat is None:
            x_hat = codec.g_s(y_hat, quality)
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
