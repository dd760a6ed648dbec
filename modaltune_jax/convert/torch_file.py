"""The two containers of torch checkpoints: a zip archive, or, before torch 1.6, pickles and then bytes.

Either becomes the pickled object, in which tensors are descriptions, and the regions of the file that hold
the storages. No tensor is read yet.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import struct
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from modaltune_jax.convert import torch_pickle
from modaltune_jax.convert.stored_tensor import Region, StoredTensor
from modaltune_jax.convert.torch_names import Storage, Tensor, shown
from modaltune_jax.types import InputError

ZIP_MAGIC = b"PK\x03\x04"

_MAX_PICKLE = 1 << 24
"""Bytes that describe tensors: about 200 a tensor."""
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LOCAL_HEADER = struct.Struct("<4s22x2H")
_IS_ENCRYPTED = 1


@dataclasses.dataclass(frozen=True)
class TorchContents:
    """What a torch file holds.

    Attributes:
      path: the file.
      value: the pickled object: dicts, lists, tuples, numbers, text, `Tensor`.
      regions: where the bytes of each storage lie, by its key.
    """

    path: Path
    value: Any
    regions: dict[str, Region]

    def find(self, tensor: Tensor, label: str) -> StoredTensor:
        """The tensor at its place in the file.

        Raises:
          InputError: the file lacks its storage, or it reaches beyond it; the message begins with `label`.
        """
        storage = tensor.storage
        region = self.regions.get(storage.key)
        width = storage.dtype.itemsize
        if region is None or region.num_bytes != storage.size * width:
            found = "no storage" if region is None else f"a storage of {region.num_bytes} bytes"
            raise InputError(
                f"{label} has {found} {shown(storage.key)} instead of one of {storage.size * width} bytes; "
                "download the file again"
            )
        if storage.view is not None:
            first, size = storage.view
            if first + size > storage.size:
                raise InputError(f"{label} has a view beyond its storage; download the file again")
            region = Region(region.start + first * width, size * width)
        stored = StoredTensor(region, tensor.dtype, tensor.shape, tensor.strides, tensor.offset)
        stored.check(label)
        return stored


def read_zip(file: io.BufferedReader, path: Path) -> TorchContents:
    """Reads the directory and the pickle of a file in today's format.

    Args:
      file: opened for reading.
      path: its name, for messages.

    Raises:
      InputError: the archive is damaged, compressed, big-endian, or none of torch's.
    """
    infos = _directory(file, path)
    root = _root(path, infos)
    regions = {name: _region(file, info, f"{path}: entry {shown(name)}") for name, info in infos.items()}
    order = regions.get(f"{root}byteorder")
    if order is not None and bytes(order.read(file, f"{path}: byteorder")) != b"little":
        raise InputError(f"{path} was not written on a little-endian machine; save it again on one")
    pickled = regions[f"{root}data.pkl"]
    if pickled.num_bytes > _MAX_PICKLE:
        raise InputError(
            f"{path}: its pickle has {pickled.num_bytes} bytes, far more than tensors need; "
            "save the tensors alone: torch.save(model.state_dict(), ...)"
        )
    data = pickled.read(file, f"{path}: its pickle").data
    value, _ = torch_pickle.load(io.BytesIO(data), str(path))
    prefix = f"{root}data/"
    storages = {name[len(prefix) :]: region for name, region in regions.items() if name.startswith(prefix)}
    return TorchContents(path, value, storages)


def read_legacy(file: io.BufferedReader, path: Path) -> TorchContents:
    """Reads the pickles of a file in the format before torch 1.6, and finds its storages.

    Args:
      file: opened for reading.
      path: its name, for messages.

    Raises:
      InputError: the file is damaged, big-endian, or a pickle that torch did not write.
    """
    file.seek(0)
    head = io.BytesIO(file.read(_MAX_PICKLE))
    magic, _ = torch_pickle.load(head, str(path))
    if magic != _LEGACY_MAGIC:
        raise InputError(
            f"{path} is a pickle but none of torch's; where you trust it, save it with torch.save"
        )
    protocol, _ = torch_pickle.load(head, str(path))
    system, _ = torch_pickle.load(head, str(path))
    value, storages = torch_pickle.load(head, str(path))
    keys, _ = torch_pickle.load(head, str(path))
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict) or not isinstance(keys, list):
        raise InputError(f"{path} begins like a torch checkpoint and goes on otherwise; download it again")
    if system.get("little_endian") is not True:
        raise InputError(f"{path} was not written on a little-endian machine; save it again on one")
    return TorchContents(path, value, _legacy_regions(file, path, head.tell(), keys, storages))


def _directory(file: io.BufferedReader, path: Path) -> dict[str, zipfile.ZipInfo]:
    """What a zip archive says of its entries, by name."""
    try:
        infos = zipfile.ZipFile(file).infolist()
    # zipfile tells of damage in all these ways; OSError if an offset leads to before the start.
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, EOFError, OSError) as error:
        raise InputError(f"{path} is cut off or damaged ({error}); download it again") from error
    named: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        if info.filename in named:
            raise InputError(f"{path}: entry {shown(info.filename)} comes twice; download the file again")
        named[info.filename] = info
    return named


def _root(path: Path, names: Collection[str]) -> str:
    """The folder that holds everything in an archive of torch."""
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        held = ", ".join(shown(name) for name in itertools.islice(names, 3))
        raise InputError(
            f"{path} is a zip archive but no torch checkpoint, it holds {held or 'nothing'}; "
            "give the weights, unpacked if they are inside"
        )
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise InputError(
            f"{path} is a TorchScript archive, a programme with its weights; where you trust it, save the "
            "weights alone with torch: torch.save(torch.jit.load(...).state_dict(), ...)"
        )
    return root


def _region(file: io.BufferedReader, info: zipfile.ZipInfo, label: str) -> Region:
    """Where the bytes of an entry lie."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _IS_ENCRYPTED:
        raise InputError(
            f"{label} is compressed or encrypted, which torch never does; save it again with torch.save"
        )
    end = os.fstat(file.fileno()).st_size
    header = b""
    if 0 <= info.header_offset < end:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(ZIP_MAGIC):
        raise InputError(f"{label} is not where the archive says; download the file again")
    _, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + len(header) + name_size + extra_size
    if info.file_size != info.compress_size or start + info.file_size > end:
        raise InputError(f"{label} reaches beyond the end; the file is cut off, download it again")
    return Region(start, info.file_size, info.CRC)


def _legacy_regions(
    file: io.BufferedReader, path: Path, start: int, keys: list[Any], storages: dict[str, Storage]
) -> dict[str, Region]:
    """After the pickles: for every key the number of elements, 8 bytes, and the elements."""
    end = os.fstat(file.fileno()).st_size
    regions: dict[str, Region] = {}
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or key in regions:
            raise InputError(f"{path} lists a storage {shown(key)} twice or without a use; download it again")
        file.seek(start)
        size = int.from_bytes(file.read(8), "little")
        start += 8
        region = Region(start, size * storage.dtype.itemsize)
        start += region.num_bytes
        if start > end:
            raise InputError(f"{path} is cut off within storage {shown(key)}; download it again")
        regions[key] = region
    return regions
