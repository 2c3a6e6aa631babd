"""Integer CDF tables: what encoder and decoder share."""

import torch
from torch import Tensor

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
        raise ValueError("a prior's probabilities are not finite, non-negative numbers with a positive sum")
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
