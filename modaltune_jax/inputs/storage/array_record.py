"""Records of ArrayRecord files, read straight into the memory where they are wanted.

ArrayRecord's own reader copies a record through fresh memory, whose pages cost more than the reading when a
record holds tens of megabytes. An uncompressed file needs no such copies. It is a Riegeli file
(https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md): chunks, each a header and
data, one behind the other, and every 64 KiB a block header that interrupts whatever is there. With
`group_size:1` a chunk holds one record, at the end of its data.
"""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from modaltune_jax.inputs.storage.example_bytes import varint

_BLOCK = 1 << 16
_BLOCK_HEADER = 24
_CHUNK_HEADER = 40
_MOST_BUFFERS = 1000  # IOV_MAX is 1024

# Every Riegeli file begins with this chunk header: hash, no data, its hash, type "s", no records.
_SIGNATURE = bytes.fromhex("91bac23c9287e1a9 0000000000000000 e19f13c0e9b1c372 73") + bytes(15)


class RecordFiles:
    """The records of several files, numbered through; can be shared by threads.

    Args:
      paths: as ArrayRecord writes them with "group_size:1,uncompressed".
      counts: records in each.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]):
        self._paths, self._counts = list(paths), list(counts)
        self._starts = [0, *itertools.accumulate(counts)]
        self._places: dict[int, list[_Place]] = {}

    @contextmanager
    def open(self, i: int) -> Iterator[Record]:
        """Record number i, to be read before the context ends.

        Raises:
          OSError: its file cannot be read.
          ValueError: its file is cut off, damaged, or written with other options.
        """
        k = bisect.bisect_right(self._starts, i) - 1
        with open(self._paths[k], "rb", buffering=0) as file:
            if k not in self._places:
                self._places[k] = _find_records(file, self._counts[k])
            yield Record(file, self._places[k][i - self._starts[k]])


class Record:
    """One record of an open file; its length is its number of bytes."""

    def __init__(self, file: BinaryIO, place: _Place):
        self._file, self._place = file, place

    def __len__(self) -> int:
        return self._place.size

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from byte `start` on, fewer at the end of the record."""
        start = min(start, len(self))
        content = bytearray(min(size, len(self) - start))
        self.read_into(start, memoryview(content))
        return bytes(content)

    def read_into(self, start: int, out: memoryview) -> None:
        """Fills `out`, contiguous bytes, with those from `start` on; other threads run meanwhile.

        Raises:
          ValueError: the record or the file ends before.
        """
        if start + len(out) > len(self):
            raise ValueError(f"bytes {start} to {start + len(out)} are not in a record of {len(self)}")
        _read(self._file, _after(self._place.position, start), out)


class _Place(NamedTuple):
    """Where a record begins in its file, and its bytes without block headers."""

    position: int
    size: int


def _find_records(file: BinaryIO, count: int) -> list[_Place]:
    """The first `count` records of a file."""
    if _read_bytes(file, 0, _CHUNK_HEADER) != _SIGNATURE:
        raise ValueError(f"{file.name} is no ArrayRecord file")
    places = []
    chunk = _after(0, _CHUNK_HEADER)
    for _ in range(count):
        place = _find_record(file, chunk)
        places.append(place)
        chunk = _after(place.position, place.size)
    return places


def _find_record(file: BinaryIO, chunk: int) -> _Place:
    """The record of the chunk at a position.

    A chunk header is hash, size of data, hash of data (8 bytes each), type (1), number of records (7), their
    size (8). Data of a simple chunk, type "r", are compression type (1 byte), a varint with the size of the
    sizes, a varint a record with its size, and the records.
    """
    header = _read_bytes(file, chunk, _CHUNK_HEADER)
    data_size, num_records = int.from_bytes(header[8:16], "little"), int.from_bytes(header[25:32], "little")
    size = int.from_bytes(header[32:40], "little")
    sizes = varint(size)
    front = bytes([0, len(sizes)]) + sizes
    begins_as_expected = _read_bytes(file, _after(chunk, _CHUNK_HEADER), len(front)) == front
    if header[24:25] != b"r" or num_records != 1 or data_size != len(front) + size or not begins_as_expected:
        raise ValueError(
            f"{file.name} is damaged at byte {chunk}, or compressed or grouped: it was not written with"
            " group_size:1,uncompressed"
        )
    return _Place(_after(chunk, _CHUNK_HEADER + len(front)), size)


def _after(position: int, size: int) -> int:
    """The position behind `size` bytes that begin at `position`, counting the block headers among them."""
    usable = _BLOCK - _BLOCK_HEADER
    return position + size + (size + (position + usable - 1) % _BLOCK) // usable * _BLOCK_HEADER


def _read_bytes(file: BinaryIO, position: int, size: int) -> bytes:
    content = bytearray(size)
    _read(file, position, memoryview(content))
    return bytes(content)


def _read(file: BinaryIO, position: int, out: memoryview) -> None:
    """Fills `out` with what begins at a position, without the block headers."""
    discarded = bytearray(_BLOCK_HEADER)
    buffers: list[bytearray | memoryview] = []
    at = position
    while len(out):
        if at % _BLOCK == 0:
            buffers.append(discarded)
            at += _BLOCK_HEADER
        size = min(_BLOCK - at % _BLOCK, len(out))
        buffers.append(out[:size])
        out = out[size:]
        at += size
    while buffers:
        count = os.preadv(file.fileno(), buffers[:_MOST_BUFFERS], position)
        if count == 0:
            raise ValueError(f"{file.name} ends at byte {position}, within a record")
        position += count
        while buffers and count >= len(buffers[0]):
            count -= len(buffers.pop(0))
        if count:
            buffers[0] = memoryview(buffers[0])[count:]
