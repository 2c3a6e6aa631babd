"""Memory that one training step frees stays with the process for the next one."""

import platform
from pathlib import Path

import pytest
from conftest import run_python

# How much of what was freed the process still holds, as a share of it.
FREED = """
import ctypes, resource
from codec.training.memory import keep_freed_memory
{first}
libc, size = ctypes.CDLL(None), 24 << 20
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
block = libc.malloc(size)
ctypes.memset(block, 1, size)
libc.free(block)
print((resident() - before) / size)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc, which is left alone")
@pytest.mark.parametrize(("first", "low", "high"), [("", -0.1, 0.1), ("keep_freed_memory()", 0.9, 1.1)])
def test_what_is_freed_is_kept(first: str, low: float, high: float, tmp_path: Path) -> None:
    told = run_python("-c", FREED.format(first=first), cwd=tmp_path)
    assert low < float(told.stdout) < high
