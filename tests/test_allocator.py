"""Freed memory is there for the next tensor, instead of new pages of the system."""

import platform
import resource
import subprocess
import sys

import pytest

_MEGABYTES = 40
_SCRIPT = f"""
import resource
import codec
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({_MEGABYTES << 20}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

# At first what lies between what was freed and the next of it may be in use.
print(min(faults() for _ in range(50)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_large_tensor_takes_no_new_pages_where_one_was_freed() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)

    pages = (_MEGABYTES << 20) // resource.getpagesize()
    assert int(done.stdout) < pages // 100
