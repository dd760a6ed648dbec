"""Where the tensors of a safetensors file lie.

The library checks the header, except for names that come twice. It does not read the tensors, as it would map
the file, and every page of a map that was touched stays resident.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from modaltune_jax.convert.stored_tensor import Region, StoredTensor
from modaltune_jax.types import InputError

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_header(file: io.BufferedReader, path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """The tensors of a file and its `__metadata__`.

    Args:
      file: opened for reading.
      path: its name.

    Raises:
      InputError: the file is not whole, names a tensor twice, or has a dtype that numpy lacks.
    """
    try:
        with safe_open(path, "np") as checked:
            metadata = checked.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); download it again") from error
    file.seek(0)
    size = int.from_bytes(file.read(8), "little")
    try:
        header = json.loads(file.read(size), object_pairs_hook=_unique)
    except KeyError as error:
        raise InputError(f"{path} names {error.args[0]!a} twice in its header; write it again") from error
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        label = f"{path}: tensor {name!a}"
        if entry["dtype"] not in _DTYPES:
            raise InputError(f"{label} has dtype {entry['dtype']}; save it as one of {', '.join(_DTYPES)}")
        start, stop = entry["data_offsets"]
        region = Region(8 + size + start, stop - start)
        tensors[name] = StoredTensor.dense(region, _DTYPES[entry["dtype"]], tuple(entry["shape"]))
        tensors[name].check(label)
    return tensors, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise KeyError(key)
        seen[key] = value
    return seen
