"""Loops that numba compiles, once in an environment: IEEE 754 without fused or reordered operations.

What it kept of an earlier compilation it takes for valid while the file of the loop is the same: who changes the
options here changes those files, too.
"""

from collections.abc import Callable

from numba import njit

# "numpy": a division does not look first whether it is one by zero, of which there are none.
OPTIONS = {"nogil": True, "error_model": "numpy"}


# A call hands over seven numbers an array: a loop is half as quick again with what it calls inside.
inlined = njit(forceinline=True, **OPTIONS)


def compiled(function: Callable) -> Callable:
    """`function`, compiled when it is first called, and kept beside its file where that can be written."""
    try:
        return njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # there is no folder to keep what is compiled in
        return njit(**OPTIONS)(function)
