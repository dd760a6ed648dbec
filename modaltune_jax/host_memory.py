"""How this process keeps the memory that it was once given."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers in glibc's malloc.h."""


def keep_memory() -> None:
    """Lets glibc use large blocks again: giving them back and taking fresh pages costs time at every step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


def give_memory_back() -> None:
    """Returns to the system what glibc holds and nobody uses, for another process that needs it now."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
