"""What the C library does with memory that is freed."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT = 256 << 20


def keep_freed_memory() -> None:
    """Has glibc keep up to 256 MB of freed memory for what is allocated next; elsewhere nothing is done.

    Otherwise tensors of some megabytes get pages of their own from the system every time, which fills them with
    zeros first.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, _KEPT)
