"""Large tensors are given huge pages: few of them have to be filled with zeros each time."""

import sys
from pathlib import Path

import pytest
from conftest import run_python

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MEGABYTES = 40
SCRIPT = f"""
import resource
import codec
import torch

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones({MEGABYTES << 20}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(min(faults() for _ in range(20)), resource.getpagesize())
"""


def faults(tmp_path: Path, **environment: str) -> float:
    """Page faults a page of a large tensor."""
    count, page = map(int, run_python("-c", SCRIPT, cwd=tmp_path, **environment).stdout.split())
    return count * page / (MEGABYTES << 20)


@pytest.mark.skipif(sys.platform != "linux" or not ENABLED.is_file(), reason="no huge pages here")
def test_a_large_tensor_takes_few_pages_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    if "[never]" in ENABLED.read_text():
        pytest.skip("the system gives none")
    assert faults(tmp_path) < 0.5
    if "[madvise]" in ENABLED.read_text():
        assert faults(tmp_path, THP_MEM_ALLOC_ENABLE="0") > 0.9
