"""Arithmetic coding of symbols under integer CDF tables: torchac, or the same bytes from NumPy.

A coded string is a sequence of chunks of 131,072 symbols (the last may be shorter), each coded by itself, so
that the expanded tables of one chunk only are ever in memory. Every chunk but the last is preceded by its
length in bytes, 4 bytes big-endian; most images need one chunk and pay nothing.
"""

import functools
import hashlib
import logging
import os
import struct
import sys
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import numpy_coder
from codec.entropy.tables import PRECISION

CHUNK = 1 << 17
_ONE_AT_A_TIME = threading.Lock()
_LENGTH = struct.Struct(">I")


class Coder(NamedTuple):
    """`encode(cdf, symbols) -> bytes` and `decode(cdf, bytes) -> symbols` for one chunk.

    `cdf` is uint16 `[N, L + 1]` (65536 wraps to 0), `symbols` int16 `[N]` in [0, L).
    """

    encode: Callable[[np.ndarray, np.ndarray], bytes]
    decode: Callable[[np.ndarray, bytes], np.ndarray]


NUMPY = Coder(numpy_coder.encode, numpy_coder.decode)


@functools.cache
def torchac_coder() -> Coder:
    """torchac; the first import in an environment compiles it. Raises what that raises without a compiler."""
    # That there is a CUDA compiler but no GPU is nothing to a coder.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with (
        _ONE_AT_A_TIME,  # what follows changes the process's outputs and environment
        _narrated_briefly("compiling torchac's arithmetic coder, once in this environment (about 20 s) ..."),
        _built_by_this_environment(),
    ):
        import torchac

    def encode(cdf: np.ndarray, symbols: np.ndarray) -> bytes:
        return torchac.encode_int16_normalized_cdf(torch.from_numpy(cdf.view(np.int16)), torch.from_numpy(symbols))

    def decode(cdf: np.ndarray, data: bytes) -> np.ndarray:
        return torchac.decode_int16_normalized_cdf(torch.from_numpy(cdf.view(np.int16)), data).numpy()

    return Coder(encode, decode)


@functools.cache
def default_coder() -> Coder:
    """torchac where it can be compiled, else the NumPy coder, with one warning."""
    try:
        return torchac_coder()
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        warnings.warn(f"torchac is not usable ({reason}): coding with the slower NumPy coder", stacklevel=2)
        return NUMPY


@contextmanager
def _built_by_this_environment() -> Iterator[None]:
    """Has torch build extensions in a folder of this Python environment, with its ninja.

    In one folder for all, which is torch's default, or with another ninja, one would build anew what another has.
    """
    from torch.utils.cpp_extension import get_default_build_root  # slow to import, as torchac is, which needs it

    before = {name: os.environ.get(name) for name in ("PATH", "TORCH_EXTENSIONS_DIR")}
    digest = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(Path(get_default_build_root()) / f"quintet-{digest}"))
    os.environ["PATH"] = os.pathsep.join(filter(None, [sysconfig.get_path("scripts"), before["PATH"]]))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _narrated_briefly(line: str) -> Iterator[None]:
    """Keeps what is printed inside, by child processes too, off the terminal; after 6 s `line` is shown."""
    kept = [os.dup(1), os.dup(2)]
    timer = threading.Timer(6.0, lambda: os.write(kept[1], f"{line}\n".encode()))
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        timer.start()
        os.dup2(null, 1)
        os.dup2(null, 2)
        yield
    finally:
        timer.cancel()
        timer.join()
        for target, fd in zip((1, 2), kept, strict=True):
            os.dup2(fd, target)
        for fd in (null, *kept):
            os.close(fd)


def encode(symbols: Tensor, index: Tensor, tables: Tensor, coder: Coder | None = None) -> bytes:
    """Codes `symbols`, integers `[N]`; symbol n under row `index[n]` of `tables`, int32 `[T, L + 1]`.

    Raises ValueError if a symbol lies outside [0, L).
    """
    levels = tables.shape[-1] - 1
    if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < levels:
        raise ValueError(
            f"symbols from {int(symbols.min())} to {int(symbols.max())}: allowed are 0 to {levels - 1}"
        )
    index, symbols, tables = index.cpu().numpy(), symbols.cpu().long().numpy(), tables.cpu().numpy()
    return _encode(tables[index, symbols], tables[index, symbols + 1], coder)


def encode_intervals(lower: Tensor, upper: Tensor, coder: Coder | None = None) -> bytes:
    """Codes symbols whose tables are not at hand: symbol n takes the counts `lower[n]` to `upper[n]` of 65536.

    Both are integers `[N]`, 0 ≤ lower < upper ≤ 65536. `decode_rows` gets the symbols back from whole tables.
    """
    return _encode(lower.cpu().numpy(), upper.cpu().numpy(), coder)


def _encode(lower: np.ndarray, upper: np.ndarray, coder: Coder | None) -> bytes:
    return encode_chunks(((lower[part], upper[part]) for part in chunks_of(len(lower))), coder)


def chunks_of(count: int) -> Iterator[slice]:
    """The symbols of each chunk of a string of so many."""
    return (slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK))


def encode_chunks(intervals: Iterable[tuple[np.ndarray, np.ndarray]], coder: Coder | None = None) -> bytes:
    """As `encode_intervals`, of one pair of arrays a chunk, all but the last of CHUNK symbols."""
    coder = coder or default_coder()
    return joined([coder.encode(*_three_symbols(lower, upper)) for lower, upper in intervals])


def joined(chunks: Sequence[bytes]) -> bytes:
    """The string of these chunks."""
    return b"".join(_LENGTH.pack(len(coded)) + coded for coded in chunks[:-1]) + b"".join(chunks[-1:])


def decode(data: bytes, index: Tensor, tables: Tensor, coder: Coder | None = None) -> Tensor:
    """The symbols, int16 `[N]`, that `encode` was given. Raises BitstreamError if a chunk reaches past the end.

    Damage of other kinds is not seen here: the checksum of the file is there for it.
    """
    index = index.cpu().numpy()
    return decode_rows(data, len(index), rows_of_tables(tables, index.__getitem__), coder)


def rows_of_tables(tables: Tensor, index: Callable[[slice], np.ndarray]) -> Callable[[slice], np.ndarray]:
    """What `decode_rows` asks for, of symbols whose rows of `tables`, int32 `[T, L + 1]`, `index` gives."""
    narrow = tables.cpu().numpy().astype(np.uint16)
    expanded = np.empty((0, narrow.shape[1]), np.uint16)

    def rows(part: slice) -> np.ndarray:
        nonlocal expanded
        wanted = index(part)
        if len(wanted) > len(expanded):  # once, as the first chunk is the largest: new memory takes longest
            expanded = np.empty((len(wanted), narrow.shape[1]), np.uint16)
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(narrow):
            raise IndexError(f"rows {int(wanted.min())} to {int(wanted.max())} of {len(narrow)} tables")
        # mode="raise" would write to memory of its own first.
        return np.take(narrow, wanted, axis=0, out=expanded[: len(wanted)], mode="clip")

    return rows


def decode_rows(data: bytes, count: int, rows: Callable[[slice], np.ndarray], coder: Coder | None = None) -> Tensor:
    """As `decode`, for `count` symbols whose tables, uint16 `[n, L + 1]`, `rows` makes for one slice at a time."""
    symbols = np.empty(count, np.int16)
    for part, decoded in decode_chunks(data, count, rows, coder):
        symbols[part] = decoded
    return torch.from_numpy(symbols)


def decode_chunks(
    data: bytes, count: int, rows: Callable[[slice], np.ndarray], coder: Coder | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """As `decode_rows`, chunk by chunk: which symbols, and what they are."""
    coder = coder or default_coder()
    for part, chunk in chunks_in(data, count):
        yield part, coder.decode(rows(part), bytes(chunk))


def chunks_in(data: bytes, count: int) -> Iterator[tuple[slice, memoryview]]:
    """The chunks of a string of `count` symbols, and which are theirs. Raises BitstreamError as `decode`."""
    left = memoryview(data)
    for part in chunks_of(count):
        chunk = left
        if part.stop < count:
            length = _LENGTH.unpack_from(left)[0] if len(left) >= _LENGTH.size else 1 << 32
            left = left[_LENGTH.size :]
            if length > len(left):
                raise BitstreamError("a coded section ends inside a chunk")
            chunk, left = left[:length], left[length:]
        yield part, chunk


def _three_symbols(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tables of four entries that stand for larger ones, and the symbols of the given counts in them.

    A table has the symbols below, this one, and those above. The last entry of a row is always taken for 65536, so
    that an interval up to there must be the last symbol's.
    """
    last = upper == 1 << PRECISION
    cdf = np.zeros((len(last), 4), np.uint16)
    cdf[:, 1] = np.where(last, 0, lower)
    cdf[:, 2] = np.where(last, lower, upper)
    return cdf, 1 + last.astype(np.int16)
