"""Symbols to bytes: the two coders, the integer tables, and torchac only where it is needed."""

import math
import os
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from bottlenecks import sample_levels
from conftest import ROOT, generator
from torch import Tensor

from codec.bitstream import BitstreamError
from codec.entropy import coder
from codec.entropy.tables import cdf_from_pmf

ALL_BITS = range(1, 9)
TOTAL = 1 << 16

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def torchac() -> coder.Coder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # setuptools' and torch's own, when the extension is compiled
        try:
            return coder.torchac_coder()
        except (ImportError, OSError, RuntimeError) as error:
            pytest.skip(f"torchac cannot be compiled here: {error}")


def pmfs(levels: int) -> dict[str, Tensor]:
    dominant = torch.full((2, levels), 1e-12)
    dominant[0, 0] = dominant[1, -1] = 1.0
    return {
        "uniform": torch.ones(2, levels),
        "skewed": 0.7 ** torch.arange(levels).expand(2, -1).float(),
        "dominant": dominant,
        "random": torch.rand(2, levels, generator=generator()),
    }


# ---- the two coders


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("shape", ["uniform", "skewed", "dominant", "random"])
def test_numpy_and_torchac_write_the_same_bytes_and_read_each_others(torchac, bits, shape):
    levels = 2**bits + 1
    pmf = pmfs(levels)[shape]
    tables = cdf_from_pmf(pmf)
    for count in (1, 2, 1000):
        index = torch.randint(0, 2, (count,), generator=generator(count))
        likely = sample_levels(pmf, count).gather(0, index[None])[0]
        unlikely = torch.randint(0, levels, (count,), generator=generator(count + 1))
        edges = torch.tensor([0, levels - 1]).repeat(count)[:count]
        for symbols in (likely, unlikely, edges):
            files = [coder.encode(symbols, index, tables, which) for which in (coder.NUMPY, torchac)]
            assert files[0] == files[1]
            for which in (coder.NUMPY, torchac):
                assert torch.equal(coder.decode(files[0], index, tables, which).long(), symbols)


@pytest.mark.parametrize(
    ("counts", "symbols", "bits"),
    [
        ([0, 32768, 65536], [1, 0, 1], "101" + "01"),  # each half settles a bit; then one is owed to an ending 0
        ([0, 16384, 49152, 65536], [1], "011"),  # the middle settles none and owes one
        (
            [0, 16384, 49152, 65536],
            [1, 1, 2],
            "1" + "00" + "1" + "01",
        ),  # owed bits follow the first bit that is settled
        ([0, 16384, 49152, 65536], [0], "00" + "01"),
    ],
)
def test_short_strings_are_those_that_the_definition_gives_by_hand(counts, symbols, bits):
    cdf = np.array([counts] * len(symbols)).astype(np.uint16)
    string = int(bits.ljust(8, "0"), 2).to_bytes(1, "big")
    assert coder.NUMPY.encode(cdf, np.array(symbols, np.int16)) == string
    assert coder.NUMPY.decode(cdf, string).tolist() == symbols


@pytest.mark.parametrize("count", [63, 64, 65, 128, 129, 1000])
def test_chunks_are_coded_alike_by_both_and_come_back(torchac, monkeypatch, count):
    monkeypatch.setattr(coder, "CHUNK", 64)
    tables = cdf_from_pmf(pmfs(17)["random"])
    index = torch.randint(0, 2, (count,), generator=generator())
    symbols = torch.randint(0, 17, (count,), generator=generator(1))
    section = coder.encode(symbols, index, tables, coder.NUMPY)
    assert section == coder.encode(symbols, index, tables, torchac)
    for which in (coder.NUMPY, torchac):
        assert torch.equal(coder.decode(section, index, tables, which).long(), symbols)


def test_a_chunk_costs_four_bytes_and_one_chunk_none(monkeypatch):
    tables = cdf_from_pmf(torch.ones(1, 256))  # one byte a symbol, and one more to end a string
    symbols, index = torch.arange(200) % 256, torch.zeros(200, dtype=torch.long)
    whole = coder.encode(symbols, index, tables, coder.NUMPY)
    monkeypatch.setattr(coder, "CHUNK", 200)
    assert coder.encode(symbols, index, tables, coder.NUMPY) == whole
    monkeypatch.setattr(coder, "CHUNK", 100)
    first, second = (coder.encode(part, index[:100], tables, coder.NUMPY) for part in symbols.split(100))
    parts = coder.encode(symbols, index, tables, coder.NUMPY)
    assert parts == len(first).to_bytes(4, "big") + first + second


def test_a_chunked_section_cut_inside_its_leading_chunks_is_refused(monkeypatch):
    monkeypatch.setattr(coder, "CHUNK", 50)
    tables = cdf_from_pmf(torch.ones(1, 16))
    symbols, index = torch.randint(0, 16, (150,), generator=generator()), torch.zeros(150, dtype=torch.long)
    section = coder.encode(symbols, index, tables, coder.NUMPY)
    last = len(coder.encode(symbols[100:], index[100:], tables, coder.NUMPY))
    for length in range(len(section) - last):
        with pytest.raises(BitstreamError, match="ends inside a chunk"):
            coder.decode(section[:length], index, tables, coder.NUMPY)


def test_encoding_takes_memory_by_the_symbol_and_not_by_the_table_s_entry(torchac):
    tables, count = cdf_from_pmf(torch.ones(2, 4096)), 1 << 14
    index, symbols = torch.zeros(count, dtype=torch.long), torch.arange(count) % 4096
    tracemalloc.start()
    coder.encode(symbols, index, tables, torchac)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * count


def test_nothing_is_coded_in_no_bytes():
    tables, nothing = cdf_from_pmf(torch.ones(1, 4)), torch.zeros(0, dtype=torch.long)
    assert coder.encode(nothing, nothing, tables, coder.NUMPY) == b""
    assert coder.decode(b"", nothing, tables, coder.NUMPY).shape == (0,)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 7, bytes(range(256))])
def test_both_coders_read_any_bytes_as_the_same_symbols_in_range(torchac, data):
    tables = cdf_from_pmf(pmfs(9)["skewed"])
    index = torch.randint(0, 2, (500,), generator=generator())
    symbols = coder.decode(data, index, tables, coder.NUMPY)
    assert torch.equal(symbols, coder.decode(data, index, tables, torchac))
    assert 0 <= int(symbols.min()) <= int(symbols.max()) <= 8


@pytest.mark.parametrize("wrong", [-1, 16, 17, 70_000])
def test_a_symbol_outside_the_alphabet_is_refused(wrong):
    tables, index = cdf_from_pmf(torch.ones(1, 16)), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match=f"{wrong}.*allowed are 0 to 15"):
        coder.encode(torch.tensor([3, wrong, 5]), index, tables)


# ---- the tables


@pytest.mark.parametrize(
    "pmf",
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
        [1e-30, 1e-30],
        [1e-30, 1.0, 1e-30],
        [1e30, 1e-30, 1e30],
        [0.25] * 4,
        [1 / 3] * 3,
        [5.0],
        [1.0] * 65_536,
        [1.0] * 257,
        [0.5**n for n in range(257)],
    ],
    ids=lambda pmf: f"{len(pmf)}x{pmf[0]:g}",
)
def test_a_table_rises_strictly_from_0_to_65536(pmf):
    table = cdf_from_pmf(torch.tensor([pmf], dtype=torch.float64))
    assert table.dtype == torch.int32
    assert table.shape == (1, len(pmf) + 1)
    assert table[0, 0] == 0
    assert table[0, -1] == TOTAL
    assert int(table.diff().min()) >= 1


@pytest.mark.parametrize("levels", [2, 3, 17, 65, 257, 4096])
def test_random_tables_rise_strictly_from_0_to_65536_and_repeat(levels):
    pmf = torch.rand(50, levels, generator=generator(levels)) ** 20
    table = cdf_from_pmf(pmf)
    assert bool((table[:, 0] == 0).all())
    assert bool((table[:, -1] == TOTAL).all())
    assert int(table.diff().min()) >= 1
    assert torch.equal(table, cdf_from_pmf(pmf))


def test_equal_probabilities_get_counts_within_one_and_more_probable_symbols_never_fewer():
    counts = cdf_from_pmf(torch.ones(1, 257)).diff()
    assert int(counts.max()) - int(counts.min()) <= 1
    pmf = torch.rand(1, 257, generator=generator())
    counts = cdf_from_pmf(pmf).diff()[0][pmf[0].argsort()]
    assert int(counts.diff().min()) >= 0


@pytest.mark.parametrize(
    "pmf",
    [[0.5, math.nan], [math.inf, 1.0], [-0.1, 1.1], [0.0, 0.0]],
)
def test_what_is_no_distribution_is_refused(pmf):
    with pytest.raises(ValueError, match="not finite, non-negative"):
        cdf_from_pmf(torch.tensor([[0.5, 0.5], pmf]))


def test_more_symbols_than_counts_are_refused():
    with pytest.raises(ValueError, match="65537 symbols"):
        cdf_from_pmf(torch.ones(1, TOTAL + 1))


@pytest.mark.parametrize("bits", [1, 4, 6, 8])
def test_a_table_costs_less_than_a_thousandth_over_the_entropy(bits):
    levels = torch.arange(2**bits + 1, dtype=torch.float64)
    deviation = 2**bits / 4
    pmf = (-(((levels - 2**bits / 2) / deviation) ** 2) / 2).exp()
    pmf /= pmf.sum()
    entropy = -(pmf * pmf.log2()).sum()
    cost = -(pmf * (cdf_from_pmf(pmf[None])[0].diff() / TOTAL).log2()).sum()
    assert entropy <= cost <= 1.001 * entropy


# ---- torchac is loaded late, and is not needed


def run(program: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_does_not_import_torchac():
    assert run("import sys, codec.entropy; print('torchac' in sys.modules)") == "False\n"


PROGRAM = """
import sys, warnings
import torch
import codec.entropy
from codec.entropy import coder
from codec.entropy.tables import cdf_from_pmf
tables, index = cdf_from_pmf(torch.ones(1, 17)), torch.zeros(50, dtype=torch.long)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        section = coder.encode(torch.arange(50) % 17, index, tables)
        assert (coder.decode(section, index, tables) == torch.arange(50) % 17).all()
print(coder.default_coder() is coder.NUMPY)
print([str(w.message) for w in caught if "torchac" in str(w.message)])
print(section.hex())
"""


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
def test_without_torchac_the_numpy_coder_writes_the_same_bytes_after_one_warning(tmp_path, error):
    (tmp_path / "torchac.py").write_text(f"raise {error}('no compiler\\nin this house')\n")
    printed = run(PROGRAM, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    is_numpy, warned, section = printed.splitlines()
    assert is_numpy == "True"
    assert warned == "['torchac is not usable (no compiler): coding with the slower NumPy coder']"
    tables, index = cdf_from_pmf(torch.ones(1, 17)), torch.zeros(50, dtype=torch.long)
    assert bytes.fromhex(section) == coder.encode(torch.arange(50) % 17, index, tables)
