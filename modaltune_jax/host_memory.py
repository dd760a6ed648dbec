"""Main memory: how much there is, and how this process keeps what it was once given."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers in glibc's malloc.h."""

_CGROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Limit and use of the control group that a container shows as its own: version 2, version 1."""


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


def limit() -> int:
    """Bytes of main memory that processes here may have at most: the machine's, or the control group's."""
    return min([_physical(), *(limit for limit, _ in _groups())])


def available() -> int:
    """Bytes that can still be had: free ones and those that caches would give back."""
    left = [limit - used for limit, used in _groups()]
    return max(min([_meminfo().get("MemAvailable", _physical()), *left]), 0)


def _physical() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _meminfo(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """Bytes by name; nothing where the system has no such file."""
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def _groups(root: Path = Path("/sys/fs/cgroup")) -> list[tuple[int, int]]:
    """Limit and use of every control group that has a limit."""
    found = []
    for limit_file, used_file in _CGROUPS:
        if (root / limit_file).exists() and (root / used_file).exists():
            limit, used = (
                (root / name).read_text(encoding="utf-8").strip() for name in (limit_file, used_file)
            )
            if limit != "max":
                found.append((int(limit), int(used)))
    return found
