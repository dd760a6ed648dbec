"""Large arrays whose memory is used again: the pages of fresh memory cost as much time as filling them."""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped


class BufferPool:
    """Hands out arrays, and takes their memory back when nothing refers to them any more.

    A view of an array, or a jax array that shares its memory, keeps it from being handed out again. As many
    arrays exist as were ever in use at a time, all of the size of the largest; pages that were never touched
    take no memory. Can be shared by threads.
    """

    def __init__(self) -> None:
        # Appending and popping are atomic: a lock could be taken twice, by the collector of garbage.
        self._free: deque[mmap.mmap] = deque()
        self._size = 1

    def take(self, shape: Sequence[int], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
        """An array of any content."""
        size = math.prod(shape) * dtype.itemsize
        self._size = max(self._size, size)
        memory = self._pop(size)
        if memory is None:
            memory = mmap.mmap(-1, self._size)
        # Views refer to this array itself, as the memory that it refers to is no array.
        whole = np.frombuffer(memory, np.uint8)
        weakref.finalize(whole, self._free.append, memory).atexit = False
        return whole[:size].view(dtype).reshape(shape)

    def _pop(self, size: int) -> mmap.mmap | None:
        """Free memory of a size; smaller ones on the way are dropped, as the pool has outgrown them."""
        while True:
            try:
                memory = self._free.pop()
            except IndexError:
                return None
            if len(memory) >= size:
                return memory
