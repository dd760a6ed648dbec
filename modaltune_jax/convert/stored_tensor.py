"""A tensor in a file: where its bytes lie, and how they are read.

By seek and read, one tensor at a time. A memory map would count every page ever touched as resident.
"""

from __future__ import annotations

import dataclasses
import io
import math
import zlib
from collections.abc import Sequence

import numpy as np

from modaltune_jax.types import InputError

_MAX_AXES = 64
"""numpy's own limit."""
_CHUNK = 1 << 20


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of an array whose last axis runs fastest; torch counts an empty axis as 1."""
    return tuple(math.prod(max(size, 1) for size in shape[axis + 1 :]) for axis in range(len(shape)))


@dataclasses.dataclass
class Region:
    """A run of bytes in a file.

    Attributes:
      start: position of the first byte.
      num_bytes: length; whoever makes a region has checked that the file is long enough.
      crc: CRC-32 that the bytes should have; None if the format knows none, or once they were found right.
    """

    start: int
    num_bytes: int
    crc: int | None = None

    def read(
        self, file: io.BufferedReader, label: str, start: int = 0, stop: int | None = None
    ) -> np.ndarray:
        """Bytes `start` to `stop` of the region, as uint8; the checksum of the whole is checked once.

        Raises:
          InputError: the checksum differs, or the file has become shorter; the message begins with `label`.
        """
        data = np.empty((self.num_bytes if stop is None else stop) - start, np.uint8)
        file.seek(self.start + start)
        if file.readinto(data.data) < len(data):
            raise InputError(f"{label} ends early, the file was cut while it was read; copy it again")
        if self.crc is not None:
            self._check(zlib.crc32(data.data) if len(data) == self.num_bytes else self._crc(file), label)
        return data

    def _crc(self, file: io.BufferedReader) -> int:
        file.seek(self.start)
        crc = 0
        for done in range(0, self.num_bytes, _CHUNK):
            crc = zlib.crc32(file.read(min(_CHUNK, self.num_bytes - done)), crc)
        return crc

    def _check(self, crc: int, label: str) -> None:
        if crc != self.crc:
            # With checksums switched off, torch leaves zero in their place.
            off = (
                " or was written after torch.serialization.set_crc32_options(False)" if self.crc == 0 else ""
            )
            raise InputError(
                f"{label} has checksum {crc:08x} instead of {self.crc:08x}: the file is damaged{off}; "
                "download or write it again"
            )
        self.crc = None


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor as a strided view of a region, as torch describes it.

    Attributes:
      region: the storage; several tensors may share one.
      dtype: of the elements.
      shape: may be empty, may hold zeros.
      strides: steps along the axes, in elements.
      offset: first element, counted from the start of the region.
    """

    region: Region
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def dense(cls, region: Region, dtype: np.dtype, shape: tuple[int, ...]) -> StoredTensor:
        """A tensor in row-major order that starts where the region does."""
        # With more axes than `check` allows the strides could take for ever to multiply.
        return cls(region, dtype, shape, row_major(shape) if len(shape) <= _MAX_AXES else ())

    def check(self, label: str) -> None:
        """Makes sure that reading stays inside the region and takes no more memory than it has bytes.

        Raises:
          InputError: it would not; the message begins with `label`.
        """
        if len(self.shape) > _MAX_AXES or len(self.strides) != len(self.shape):
            raise InputError(
                f"{label} has {len(self.shape)} axes and {len(self.strides)} strides; at most {_MAX_AXES}"
                " axes with a stride each can be read: save it in another shape"
            )
        # numpy multiplies even the sizes beside a zero, and they must not overflow.
        sizes = math.prod(max(size, 1) for size in self.shape)
        if min((self.offset, *self.shape, *self.strides)) < 0 or sizes >= 2**59:
            raise InputError(f"{label} has a negative stride or an impossible shape; download the file again")
        capacity, size = self.region.num_bytes // self.dtype.itemsize, math.prod(self.shape)
        if size > capacity:
            raise InputError(
                f"{label} has {size} elements and a storage of {capacity}, as after torch's expand(); "
                "save it again after .contiguous()"
            )
        if size and self._stop() > capacity:
            raise InputError(
                f"{label} reaches element {self._stop()} of a storage of {capacity}; download the file again"
            )

    @property
    def num_bytes(self) -> int:
        """Memory that the tensor takes once it is read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, file: io.BufferedReader, label: str) -> np.ndarray:
        """The tensor in row-major order, with memory of its own.

        Raises:
          InputError: the bytes are damaged; the message begins with `label`.
        """
        if self.num_bytes == 0:
            return np.empty(self.shape, self.dtype)
        width = self.dtype.itemsize
        data = self.region.read(file, label, self.offset * width, self._stop() * width)
        # The step along an axis of one is never taken and may be anything.
        steps = [step * width if n > 1 else 0 for n, step in zip(self.shape, self.strides, strict=True)]
        return np.asarray(np.ndarray(self.shape, self.dtype, data, strides=steps), order="C")

    def _stop(self) -> int:
        """One past the last element that is used."""
        return self.offset + 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
