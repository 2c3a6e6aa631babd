"""EntropyBottleneck: quantiser, prior and arithmetic coder for one latent, which may be a pyramid of tensors."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from codec.bitstream import QUALITY_UNIT, BitstreamError, pack_strings
from codec.checks import check_bottleneck, check_flag, check_integers
from codec.entropy import unbounded
from codec.entropy.priors.prior import Prior, Size, check_exact
from codec.entropy.rdoq import BIT, BitsAhead, Choose, ChooseAndWrite, ChooseInTraining, Targets
from codec.entropy.walk import Code, Measure, Read, ReadWhatIsThere, Train, Watched, Write
from codec.errors import ArgumentError, EncodeError
from codec.networks.exact import UnusableWeightsError, exact_kernels, whole
from codec.networks.rate import KNOTS, nearness_to_knots

# A variable rate halves the quantiser's step this many times from the lowest quality to the highest.
QUALITIES = (0.0, 100.0)
OCTAVES = 7.0
_MOST_CHANNELS = 1 << 14
# Where levels have no bounds, or a quality widens them, alphabets end here: what lies outside is escaped.
_WIDEST_REACH = 512
_LARGEST_GAIN = 4.0  # binary logarithm


class EntropyBottleneck(nn.Module):
    """The only way from a latent to bytes.

        training   y ─ clamp ─ + noise ─→ y_hat,  prior(y / step + U(−½, ½)) ─→ bits
        otherwise  y ─ clamp ─ round ──→ y_hat,   prior(levels) ─→ bits
        files      levels ─ passes of the prior, each by integer CDF tables ─ arithmetic coder ─→ one section

    A latent is a list of tensors `[B, C, H, W]`, coarse to fine, around 0, with `channels` C each. What lies
    outside [−½, ½] is clamped if `bounded`. Levels are ⌊y / step + ½⌋, and `y_hat = level · step`: with B = `bits`
    (1–8) the step is 2^-B, and with `variable_rate` 2^-B · 2^(7 · (½ − quality / 100)), of each image's own
    quality, 0–100. With `gains`, that is multiplied by a factor that every channel learns for each of six qualities
    (Cui et al. 2021, https://arxiv.org/abs/2003.02012), at first 1; an orthonormal transform is best without.

    `noise` is what the decoder is trained with: `uniform` U(−½, ½) steps, `paper` randn·0.5 − 0.5 steps,
    `straight_through` rounding whose gradient is the identity, or `chosen`, as that, to the levels that an encoder
    chooses (see `choose`) if a step of every channel is worth the same; a step of training takes an eighth
    longer so. With the latter two the prior sees whole levels as well.

    `prior` makes the probability model from the channels, the largest level of an alphabet, and `groups` (see
    ChannelContextPrior). Raises TypeError, naming the module, if a decoder would not be exact with it.

    `shapes_latent` False stops the gradient of the bits at the latent: the prior still learns to describe it.
    `progress`, if it is set, is called with the share of a section that is written or read, after every pass.
    """

    progress: Callable[[float], None] | None = None

    def __init__(
        self,
        channels: Sequence[int],
        bits: int = 6,
        noise: str = "uniform",
        prior: Callable[..., Prior] | None = None,
        bounded: bool = True,
        variable_rate: bool = False,
        groups: Sequence | None = None,
        gains: bool = True,
    ) -> None:
        super().__init__()
        check_integers("channels", channels, lowest=1)
        if sum(channels) > _MOST_CHANNELS:  # counted before anything of their number is made
            raise ArgumentError("channels", channels, f"allowed are {_MOST_CHANNELS} in all")
        check_flag("variable_rate", variable_rate)
        check_bottleneck(bits, noise)
        if prior is None:
            raise ArgumentError("prior", prior, "a bottleneck needs one, e.g. prior=factorized")
        self.channels = list(channels)
        self.scale = 2**bits
        self.noise = noise
        self.bounded = bounded
        self.variable_rate = variable_rate
        self.shapes_latent = True
        reach = self.scale // 2
        if variable_rate or not bounded:
            reach = max(reach, min(_WIDEST_REACH, reach * 2 ** math.ceil(OCTAVES / 2)))
        self.prior = prior(self.channels, reach, groups)
        check_exact(self.prior)
        # Binary logarithms, of each channel's step over the tensors' common one.
        self.gains = nn.ParameterList(torch.zeros(KNOTS, count) for count in channels if variable_rate and gains)

    def forward(self, y: Sequence[Tensor], quality: Tensor | None = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The latent → `y_hat` of the same shapes, and bits by part, `[B]` each; `quality` `[B]`."""
        with torch.autocast(y[0].device.type, enabled=False):
            exact = self.exact_levels(y, quality)
            if self.training:
                return self._trained(exact, quality)
            code = Measure()
            levels = [torch.floor(e + 0.5) for e in exact]
            try:
                self._visit([level.clone() for level in levels], code, quality)
            except UnusableWeightsError:  # a training that went wrong is told so by its loss
                code.bits = {"y": levels[0].new_full((len(levels[0]),), torch.nan)}
            return self.dequantised(levels, quality), dict(code.bits)

    def compress(self, y: Sequence[Tensor], quality: Tensor | None = None) -> bytes:
        """The latent of one image → its section, at a `quality` `[1]` that a file can hold where it varies.

        Raises EncodeError if the latent holds nan or numbers that no latent has.
        """
        return self.compress_levels([exact.add_(0.5).floor_() for exact in self.exact_levels(y, quality)], quality)

    def compress_levels(self, levels: Sequence[Tensor], quality: Tensor | None = None) -> bytes:
        """As `compress`, of whole levels."""
        if not are_codable(levels):
            raise EncodeError(
                "the latent holds nan or far too large numbers: the weights or the image are not usable"
            )
        code = Write()
        self._visit(levels, self._watched(code, [tensor.shape[-2:] for tensor in levels]), quality)
        return self._section(code.strings, quality)

    def decompress(self, section: bytes, sizes: Sequence[Size]) -> list[Tensor]:
        """A section → `y_hat`, B = 1, of `sizes` (H, W).

        Raises BitstreamError as `check_length` does, before memory is taken.
        """
        return self.dequantised(self.decompress_levels(section, sizes), self.quality_of(section))

    def decompress_levels(
        self, section: bytes, sizes: Sequence[Size], tensors: int | None = None, partial: bool = False
    ) -> list[Tensor]:
        """As `decompress`, to the levels that `dequantised` takes.

        Of `tensors`, no more than the first so many are read. `partial`: the end of the section may be missing, of
        which levels are 0; but not all of it.
        """
        if not partial:
            self.check_length(section, sizes)
        quality, wanted = self.quality_of(section), sizes[:tensors]
        device = next(self.prior.buffers()).device
        section = section[self.variable_rate :]
        code = ReadWhatIsThere(section, device) if partial else Read(section)
        with exact_kernels(device.type):
            levels = self.prior.visit(None, [(1, *size) for size in wanted], self._watched(code, wanted), quality)
        if len(wanted) == len(sizes):
            code.end()
        return levels

    def exact_levels(self, y: Sequence[Tensor], quality: Tensor | None = None) -> list[Tensor]:
        """What is rounded to levels: the latent, clamped if bounded, in steps."""
        clamped = [_Clamp.apply(tensor.float()) if self.bounded else tensor.float() for tensor in y]
        return [tensor / step for tensor, step in zip(clamped, self.steps(quality), strict=True)]

    def dequantised(self, levels: Sequence[Tensor], quality: Tensor | None = None) -> list[Tensor]:
        """The latent that levels stand for, or its first tensors that those are of."""
        return [tensor * step for tensor, step in zip(levels, self.steps(quality)[: len(levels)], strict=True)]

    def choose(
        self, targets: Sequence[Tensor], worth: Sequence[Tensor], quality: Tensor | None = None
    ) -> list[Tensor]:
        """Whole levels near `targets`, at which squared error and bits cost least together.

        `worth` is what the error of one step costs in bits, as large as the targets or `[1, C, 1, 1]`. See Choose.
        Where no gradient is wanted, the levels may come to lie where the targets were.
        """
        return self._visit_choosing(targets, worth, quality, Choose())

    def choose_and_compress(
        self, targets: Sequence[Tensor], worth: Sequence[Tensor], quality: Tensor | None = None
    ) -> tuple[list[Tensor], bytes | None]:
        """As `choose`, for one image; and the levels' section, where no side information depends on them."""
        code = ChooseAndWrite()
        watched = self._watched(code, [tensor.shape[-2:] for tensor in targets])
        levels = self._visit_choosing(targets, worth, quality, watched)
        return levels, None if code.strings is None else self._section(code.strings, quality)

    def bits_ahead(
        self, levels: Sequence[Tensor], quality: Tensor | None = None, counted: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Bits of all symbols together, differentiable in what they are predicted from. See BitsAhead.

        `counted`, `[1, 1, H, W]` for each tensor: how much those of a position count, side information's in full.
        """
        code = BitsAhead()
        told = levels if counted is None else list(map(Targets, levels, counted))
        self._visit(told, code, quality)
        return code.bits

    @staticmethod
    def coded_quality(quality: float) -> float:
        """The nearest quality that a file can hold."""
        return round(quality * QUALITY_UNIT) / QUALITY_UNIT

    @staticmethod
    def coded_qualities() -> tuple[float, ...]:
        """All qualities that a file can hold, rising."""
        return tuple(n / QUALITY_UNIT for n in range(round(QUALITIES[1] * QUALITY_UNIT) + 1))

    def relative_step(self, quality: Tensor) -> Tensor:
        """The quantiser's step at each quality over that at 50, `[B, 1, 1, 1]`."""
        return torch.exp2(_octaves(quality))

    @property
    def step_planes(self) -> int:
        """How many channels more `with_step` gives: one, or none if there is one rate."""
        return int(self.variable_rate)

    def with_step(self, y: Tensor, quality: Tensor | None) -> Tensor:
        """`y` `[B, C, H, W]` for a network, where the rate varies with a plane more that tells it the step.

        The plane is the step's binary logarithm, 0 at quality 50.
        """
        if not self.variable_rate:
            return y
        plane = _octaves(quality).to(y.dtype)
        return torch.cat([y, plane.expand(-1, -1, *y.shape[-2:])], 1)

    def fit_prior(self, y: Sequence[Tensor], quality: Tensor | None = None) -> None:
        """Starts the prior, if it can be fitted, by the latents of several images; see `forward` for both."""
        self.prior.fit([torch.floor(exact + 0.5) for exact in self.exact_levels(y, quality)], quality)

    def check_length(self, section: bytes, sizes: Sequence[Size]) -> None:
        """Raises BitstreamError if the section is shorter than any latent of `sizes` takes."""
        if 8 * len(section) < self.prior.least_bits(sizes):
            count = sum(c * height * width for c, (height, width) in zip(self.channels, sizes, strict=True))
            raise BitstreamError(f"a section of {len(section)} bytes is too short for its {count} symbols")

    def step(self, quality: Tensor | None) -> Tensor | float:
        """The quantiser's step at each quality, `[B, 1, 1, 1]`, or the one there is; without gains."""
        return self.relative_step(quality) / self.scale if self.variable_rate else 1 / self.scale

    def steps(self, quality: Tensor | None) -> Sequence[Tensor | float]:
        """The step of every channel of each tensor, `[B, C, 1, 1]`, or the one there is."""
        step = self.step(quality)
        if not self.gains:
            return [step] * len(self.channels)
        near = nearness_to_knots(quality).flatten(1)
        gains = (near @ gain.float().clamp(-_LARGEST_GAIN, _LARGEST_GAIN) for gain in self.gains)
        return [step * torch.exp2(gain)[..., None, None] for gain in gains]

    def quality_of(self, section: bytes) -> Tensor | None:
        """The quality `[1]` that a section was written at; None if there is one rate. Raises BitstreamError."""
        if not self.variable_rate:
            return None
        if not section or section[0] > QUALITIES[1] * QUALITY_UNIT:
            raise BitstreamError("the section does not begin with a quality")
        return torch.tensor([section[0] / QUALITY_UNIT], device=next(self.prior.buffers()).device)

    def _trained(self, exact: Sequence[Tensor], quality: Tensor | None) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Without a look at any value, for which a GPU would have to wait; see `forward`."""
        usable = [torch.nan_to_num(e if self.shapes_latent else e.detach()) for e in exact]
        if self.noise == "chosen":
            code = ChooseInTraining()
            common, steps = self.step(quality), self.steps(quality)
            worth = [(exact[0].new_ones(()) * step / common).detach() ** 2 / BIT for step in steps]
            levels = self._visit_choosing(usable, worth, quality, code)
            noisy = [e + (level - e).detach() for e, level in zip(exact, levels, strict=True)]
        else:
            code = Train(self.noise in ("uniform", "paper"))
            self._visit(usable, code, quality)
            noisy = [self._noisy(e) for e in exact]
        bits = code.bits()
        # 0 but for a latent that is not finite: the loss tells so.
        bits["y"] = bits["y"] + sum((0 * e.detach()).flatten(1).sum(1) for e in exact)
        return self.dequantised(noisy, quality), bits

    def _visit(self, levels: Sequence[Tensor | Targets], code: Code, quality: Tensor | None) -> list[Tensor]:
        values = [level.real if isinstance(level, Targets) else level for level in levels]
        sizes = [(len(tensor), *tensor.shape[-2:]) for tensor in values]
        with nullcontext() if self.training else exact_kernels(values[0].device.type):
            return self.prior.visit(levels, sizes, code, quality)

    def _visit_choosing(
        self, targets: Sequence[Tensor], worth: Sequence[Tensor], quality: Tensor | None, code: Code
    ) -> list[Tensor]:
        if self.bounded:  # to what a file's levels are
            with torch.no_grad():
                ends = [targets[0].new_full((), 0.5) / step for step in self.steps(quality)]
            lowest, highest = ([torch.floor(0.5 + sign * end) for end in ends] for sign in (-1, 1))
            targets = [_Within.apply(*ones) for ones in zip(targets, lowest, highest, strict=True)]
        pairs = zip(targets, worth, strict=True)
        told = [Targets(target, w[(None,) * (target.ndim - w.ndim)]) for target, w in pairs]
        return self._visit(told, code, quality)

    def _watched(self, code: Code, sizes: Sequence[Size]) -> Code:
        if self.progress is None:
            return code
        channels = self.channels[: len(sizes)]
        symbols = sum(c * height * width for c, (height, width) in zip(channels, sizes, strict=True))
        return Watched(code, symbols, self.progress)

    def _section(self, strings: Sequence[bytes], quality: Tensor | None) -> bytes:
        head = bytes([round(float(quality) * QUALITY_UNIT)]) if self.variable_rate else b""
        return head + pack_strings(strings)

    def _noisy(self, levels: Tensor) -> Tensor:
        if self.noise == "straight_through":
            return whole(levels)
        if self.noise == "uniform":
            return levels + torch.rand_like(levels) - 0.5
        return levels + torch.randn_like(levels) * 0.5 - 0.5


def are_codable(levels: Sequence[Tensor]) -> bool:
    """Whether a file can hold these levels, rounded or not: nan and what is far too large it cannot."""
    ends = torch.stack([torch.stack(tensor.aminmax()) for tensor in levels])
    return bool((ends.abs() < unbounded.LIMIT).all())  # nan is not smaller either


def _octaves(quality: Tensor) -> Tensor:
    """The binary logarithm of the step at each quality over that at 50, `[B, 1, 1, 1]`."""
    return (OCTAVES * (0.5 - quality.float() / QUALITIES[1])).view(-1, 1, 1, 1)


class _Within(torch.autograd.Function):
    """clamp(x, low, high) whose gradient is the identity; in place where none is wanted."""

    @staticmethod
    def forward(ctx, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return x.clamp(low, high) if ctx.needs_input_grad[0] else x.clamp_(low, high)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient, None, None


class _Clamp(torch.autograd.Function):
    """clamp(y, −½, ½) whose gradient is stopped only where it would push y further out of the range."""

    @staticmethod
    def forward(ctx, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y.clamp(-0.5, 0.5)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        outwards = ((y < -0.5) & (gradient > 0)) | ((y > 0.5) & (gradient < 0))
        return gradient.masked_fill(outwards, 0.0)
