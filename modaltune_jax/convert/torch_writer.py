"""Torch checkpoints written without torch: a dict of tensors that `torch.load(weights_only=True)` reads."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from modaltune_jax.convert.new_file import new_file
from modaltune_jax.convert.stored_tensor import row_major
from modaltune_jax.convert.torch_names import STORAGES
from modaltune_jax.types import InputError

_STORAGES = {dtype: name for (module, name), dtype in STORAGES.items() if module == "torch"}
_ROOT = "archive"
_ALIGNMENT = 64
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every entry, so that the same tensors give the same file."""

_LOCAL_HEADER_SIZE = 30
_ZIP64_EXTRA_SIZE = 20
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write_torch(path: Path, tensors: Mapping[str, np.ndarray], *, under: str | None = None) -> None:
    """Writes tensors as torch does, atomically and one at a time, so that `tensors` may be lazy.

    Args:
      path: of the file; replaced if it exists.
      tensors: by name; any strides, each gets a storage of its own in row-major order.
      under: key of an outer dict, e.g. "model"; None writes the tensors at the top.

    Raises:
      InputError: torch has no such dtype, or the file cannot be written.
    """
    with new_file(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        described = []
        for key, (name, tensor) in enumerate(tensors.items()):
            described.append(_text(name) + _tensor(name, tensor, str(key)))
            _write(archive, f"data/{key}", _bytes(tensor))
        pickle = _dict(described)
        if under is not None:
            pickle = b"}" + _text(under) + pickle + b"s"
        _write(archive, "data.pkl", b"\x80\x02" + pickle + b".")
        _write(archive, "byteorder", b"little")
        _write(archive, "version", b"3\n")


def _write(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Adds an entry whose bytes begin at a multiple of 64, for readers that map them."""
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", _EPOCH)
    info.file_size = len(data)
    start = archive.start_dir + _LOCAL_HEADER_SIZE + len(info.filename) + _ZIP64_EXTRA_SIZE
    padding = -(start + 4) % _ALIGNMENT
    # An extra field of torch's own kind, "FB", which readers skip.
    info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
    with archive.open(info, "w", force_zip64=True) as entry:
        entry.write(data)


def _bytes(array: np.ndarray) -> memoryview:
    """Row-major and little-endian; copied only if it is not already."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8).data


# The operations of the pickle: "(" sets a mark, "t" makes a tuple of what came since, "R" calls, "Q" asks for
# a storage, "u" puts names and values into a dict.


def _dict(items: Iterable[bytes]) -> bytes:
    return _ORDERED_DICT + b"(" + b"".join(items) + b"u"


def _tensor(name: str, array: np.ndarray, key: str) -> bytes:
    if array.dtype.newbyteorder("=") not in _STORAGES:
        raise InputError(
            f"tensor '{name}' has dtype {array.dtype}, which torch files do not hold; convert it"
        )
    kind = _STORAGES[array.dtype.newbyteorder("=")].encode()
    storage = _tuple(
        _text("storage"), b"ctorch\n" + kind + b"\n", _text(key), _text("cpu"), _integer(array.size)
    )
    shape = _tuple(*map(_integer, array.shape))
    strides = _tuple(*map(_integer, row_major(array.shape)))
    arguments = _tuple(storage + b"Q", _integer(0), shape, strides, b"\x89", _ORDERED_DICT)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integer(number: int) -> bytes:
    data = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(data)]) + data
