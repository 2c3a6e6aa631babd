"""Integer CDF tables: what encoder and decoder share."""

import hashlib
from abc import abstractmethod

import torch
from torch import Tensor

from codec.networks.exact import UnusableWeightsError
from codec.networks.kept import Kept

PRECISION = 16  # torchac's: cumulative counts run from 0 to 2**16


def cdf_from_pmf(pmf: Tensor) -> Tensor:
    """Cumulative counts for the arithmetic coder.

    `pmf` is float `[T, L]`, non-negative, one distribution a row (normalised here). Returns int32
    `[T, L + 1]`, each row strictly increasing from 0 to 65536, so that every symbol can be coded.
    Raises ValueError if L exceeds 65536 or a row holds nan, inf, a negative value or nothing but zeros.
    """
    symbols = pmf.shape[-1]
    total = 1 << PRECISION
    if symbols > total:
        raise ValueError(f"{symbols} symbols: a table of {PRECISION} bits holds at most {total}")
    pmf = pmf.detach().to("cpu", torch.float64)
    mass = pmf.sum(-1, keepdim=True)
    if not bool(torch.isfinite(pmf).all()) or bool((pmf < 0).any()) or bool((mass <= 0).any()):
        raise UnusableWeightsError(
            "a prior's probabilities are not finite, non-negative numbers with a positive sum"
        )
    share = pmf / mass * (total - symbols)
    counts = share.floor().to(torch.int64) + 1
    # The counts that flooring lost go to the symbols that lost most; a stable sort makes ties repeatable.
    order = (share - share.floor()).argsort(dim=-1, descending=True, stable=True)
    missing = total - counts.sum(-1, keepdim=True)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(symbols).expand_as(order).contiguous())
    counts += (rank < missing).to(torch.int64)
    cdf = torch.zeros(*pmf.shape[:-1], symbols + 1, dtype=torch.int64)
    cdf[..., 1:] = counts.cumsum(-1)
    return cdf.to(torch.int32)


class CodingTables(Kept):
    """A probability model that files are coded with: its integer CDFs are kept beside the weights they come from.

    A subclass calls `make_room(rows, symbols)` at the end of its constructor and writes `pmf`, of at most so many
    symbols. `tables` and `tables_of` are buffers: integer CDFs, filled up with 65536 where there are fewer symbols,
    and a hash of the weights they were made from. They are remade only after training has changed those weights,
    and before any state dict is written; a codec that was loaded reads them, so a file decodes with the very
    integers it was coded with.
    """

    tables: Tensor
    tables_of: Tensor

    @abstractmethod
    def pmf(self) -> Tensor:
        """The probabilities of every table's symbols, float `[T, L]`."""

    def make_room(self, rows: int, symbols: int) -> None:
        self.register_buffer("tables", torch.zeros(rows, symbols + 1, dtype=torch.int32))
        self.register_buffer("tables_of", torch.zeros((), dtype=torch.int64))
        self.register_state_dict_pre_hook(_make_current)

    def current_tables(self) -> Tensor:
        """The integer CDFs, int32 `[T, L + 1]`, remade first if the weights have changed since.

        In evaluation mode a change is seen if autograd counts it, else at the next `refresh`.
        """
        return self._current()[0]

    def costs(self) -> Tensor:
        """What each symbol of the current tables costs in bits, float32 `[T, L]`."""
        return self._current()[1]

    def _current(self) -> tuple[Tensor, Tensor]:
        if self.training:
            return self._made()
        return self.kept((*self.parameters(), self.tables, self.tables_of), self._made)

    def _made(self) -> tuple[Tensor, Tensor]:
        self.refresh()
        tables = self.tables[:, : self.width].contiguous()
        return tables, PRECISION - torch.log2(tables.diff().float())

    def refresh(self) -> None:
        """Remakes `tables` if the weights hold something else than what they were made of, however that came."""
        if not self.tables_are_current():
            with torch.no_grad():
                cdf = cdf_from_pmf(self.pmf())
                self.tables.fill_(1 << PRECISION)[:, : cdf.shape[1]] = cdf
                self.tables_of.fill_(self._hash())

    @property
    def width(self) -> int:
        """How many columns of `tables` are in use: up to the first that is 65536 in all rows."""
        return min(1 + int((self.tables != 1 << PRECISION).any(0).sum()), self.tables.shape[1])

    def tables_are_current(self) -> bool:
        """Whether `tables` were made from the present weights."""
        return int(self.tables_of) == self._hash()

    def least_bits_of_rows(self) -> Tensor:
        """What the likeliest symbol of each table costs, float64 `[T]` on the CPU."""
        likeliest = self.current_tables().cpu().diff().amax(-1).double() / (1 << PRECISION)
        return -torch.log2(likeliest)

    def _hash(self) -> int:
        digest = hashlib.sha256()
        for parameter in self.parameters():
            digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return int.from_bytes(digest.digest()[:8], "big", signed=True)


def _make_current(model: CodingTables, *_: object) -> None:
    model.refresh()
