"""HDF5 files, in which most tools keep the tiles of a slide: two datasets, and attributes somewhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.failures import told
from modaltune_jax.inputs.readers.tiles import TileArrays
from modaltune_jax.types import InputError

SUFFIXES = (".h5", ".hdf5")


def peek(path: Path) -> Contents:
    """Names of the datasets at the top and of all their attributes and the file's.

    Raises:
      InputError: no whole HDF5 file.
    """
    with _open(path) as file:
        datasets = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        attributes = {name for item in (file, *datasets.values()) for name in item.attrs}
    # h5py gives a name that is no UTF-8 as bytes.
    return Contents("hdf5", frozenset(map(str, datasets)), frozenset(map(str, attributes)))


def read(path: Path, features: str = "features", coords: str = "coords") -> TileArrays:
    """Two datasets, and the attributes of the file, the features and the coordinates; the last one counts.

    Args:
      path: of the file.
      features, coords: names of the datasets; `""` reads none.

    Raises:
      InputError: no whole HDF5 file.
    """
    with _open(path) as file:
        attributes: dict[str, Any] = dict(file.attrs)
        values: list[np.ndarray | None] = []
        for name in (features, coords):
            dataset = file.get(name) if name else None
            if not isinstance(dataset, h5py.Dataset):
                values.append(None)
                continue
            attributes |= dict(dataset.attrs)
            _check_complete(dataset, path)
            values.append(np.asarray(dataset[()]))
    return TileArrays(values[0], values[1], attributes)


def _check_complete(dataset: h5py.Dataset, path: Path) -> None:
    """HDF5 itself fills rows that were never written with zeros; a damaged size makes billions of them."""
    if dataset.chunks is None:
        stored, needed, what = dataset.id.get_storage_size(), dataset.nbytes, "bytes"
    else:
        sizes = zip(dataset.shape, dataset.chunks, strict=True)
        needed, what = math.prod(-(-length // chunk) for length, chunk in sizes), "chunks"
        stored = dataset.id.get_num_chunks()
    if stored < needed:
        raise InputError(
            f"{path}: {dataset.name} has {stored} of its {needed} {what}, as after an extraction that was "
            "stopped; extract the slide again"
        )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    try:
        # Not every network file system can lock a file, and none needs it to be read.
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except InputError:
        raise
    # All of them are what h5py makes of damage, the last of sizes that damage made absurd.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise told(path, error, "is no whole HDF5 file {}; copy it or extract it again") from error
