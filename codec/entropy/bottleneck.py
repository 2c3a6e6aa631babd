"""EntropyBottleneck: quantiser, prior and arithmetic coder for one latent tensor."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from codec.bitstream import BitstreamError
from codec.checks import check_bottleneck, check_integer
from codec.entropy import coder
from codec.entropy.tables import PRECISION, cdf_from_pmf
from codec.errors import ArgumentError, EncodeError

# The middle of a bottleneck's range, around which a latent starts out.
CENTRE = 0.5


class EntropyBottleneck(nn.Module):
    """The only way from a latent to bytes.

        training   y ─ clamp ─ + noise ─→ y_hat,  prior(clamp(y)·2^B + U(−½, ½)) ─→ bits
        otherwise  y ─ clamp ─ round ──→ y_hat,   prior(levels) ─→ bits
        files      levels ─ integer CDF tables ─ arithmetic coder ─→ one section

    `y` is `[B, C, H, W]`; what lies outside [0, 1] is clamped. With B = `bits` (1–8) there are 2^B + 1 levels,
    `int(clamp(y)·2^B + 0.5)`, and `y_hat = level / 2^B`. `noise` is what the decoder is trained with:
    `uniform` U(−½, ½)·2^-B, `paper` (randn·0.5 − 0.5)·2^-B, or `straight_through` rounding whose gradient is
    the identity. `prior` makes the probability model from (channels, levels).

    `tables` and `tables_of` are buffers: integer CDFs, and a hash of the prior's weights they were made from.
    They are remade only after training has changed those weights, and before any state dict is written; a
    codec that was loaded reads them, so a file decodes with the very integers it was coded with.

    `shapes_latent` False stops the gradient of the bits at the latent: the prior still learns to describe it.
    """

    tables: Tensor
    tables_of: Tensor

    def __init__(
        self,
        channels: int,
        bits: int = 6,
        noise: str = "uniform",
        prior: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        check_integer("channels", channels, 1)
        check_bottleneck(bits, noise)
        if prior is None:
            raise ArgumentError("prior", prior, "a bottleneck needs one, e.g. prior=factorized")
        self.channels = channels
        self.scale = 2**bits
        self.noise = noise
        self.shapes_latent = True
        self.prior = prior(channels, self.scale + 1)
        rows, levels = self.prior.pmf().shape
        self.register_buffer("tables", torch.zeros(rows, levels + 1, dtype=torch.int32))
        self.register_buffer("tables_of", torch.zeros((), dtype=torch.int64))
        self.register_state_dict_pre_hook(_make_current)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """`y` `[B, C, H, W]` → `y_hat` of the same shape, in [0, 1] but for noise, and bits `[B]`."""
        with torch.autocast(y.device.type, enabled=False):
            y = _Clamp.apply(y.float())
            if not self.training:
                levels = self._levels(y)
                return levels / self.scale, self.prior(levels)
            exact = y * self.scale
            seen = exact if self.shapes_latent else exact.detach()
            bits = self.prior(seen + torch.rand_like(seen) - 0.5)
            if self.noise == "straight_through":
                y_hat = y + (self._levels(y) / self.scale - y).detach()
            elif self.noise == "uniform":
                y_hat = y + (torch.rand_like(y) - 0.5) / self.scale
            else:
                y_hat = y + (torch.randn_like(y) * 0.5 - 0.5) / self.scale
            return y_hat, bits

    def compress(self, y: Tensor) -> bytes:
        """One latent `[1, C, H, W]` → its section. Raises EncodeError if it holds nan."""
        if bool(torch.isnan(y).any()):
            raise EncodeError("the latent holds nan: the weights or the image are not usable")
        symbols = self._levels(y.float().clamp(0, 1)).reshape(-1)
        return coder.encode(symbols, self.prior.table_index(*y.shape[-2:]), self.current_tables())

    def decompress(self, section: bytes, size: tuple[int, int]) -> Tensor:
        """A section → `y_hat` `[1, C, H, W]` in [0, 1], `size` = (H, W).

        Raises BitstreamError as `check_length` does, before memory is taken.
        """
        self.check_length(section, size)
        symbols = coder.decode(section, self.prior.table_index(*size), self.current_tables())
        levels = symbols.to(self.tables.device, torch.float32).reshape(1, self.channels, *size)
        return levels / self.scale

    def check_length(self, section: bytes, size: tuple[int, int]) -> None:
        """Raises BitstreamError if the section is shorter than any latent of `size` (H, W) takes."""
        if 8 * len(section) < self.least_bits(size):
            count = self.channels * size[0] * size[1]
            raise BitstreamError(f"a section of {len(section)} bytes is too short for its {count} symbols")

    def least_bits(self, size: tuple[int, int]) -> float:
        """What a latent of `size` (H, W) costs if every symbol is the likeliest of its table."""
        likeliest = self.current_tables().cpu().diff().amax(-1).double() / (1 << PRECISION)
        return -float(torch.log2(likeliest) @ self.prior.table_counts(*size).double())

    def current_tables(self) -> Tensor:
        """The integer CDFs, int32 `[T, L + 1]`, remade first if the prior's weights have changed since."""
        if not self.tables_are_current():
            with torch.no_grad():
                self.tables.copy_(cdf_from_pmf(self.prior.pmf()))
                self.tables_of.fill_(self._prior_hash())
        return self.tables

    def tables_are_current(self) -> bool:
        """Whether `tables` were made from the prior's present weights."""
        return int(self.tables_of) == self._prior_hash()

    def _levels(self, y: Tensor) -> Tensor:
        return torch.floor(y * self.scale + 0.5)

    def _prior_hash(self) -> int:
        digest = hashlib.sha256()
        for parameter in self.prior.parameters():
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return int.from_bytes(digest.digest()[:8], "big", signed=True)


def _make_current(bottleneck: EntropyBottleneck, *_: object) -> None:
    bottleneck.current_tables()


class _Clamp(torch.autograd.Function):
    """clamp(y, 0, 1) whose gradient is stopped only where it would push y further out of the range."""

    @staticmethod
    def forward(ctx, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y.clamp(0, 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        outwards = ((y < 0) & (gradient > 0)) | ((y > 1) & (gradient < 0))
        return gradient.masked_fill(outwards, 0.0)
