"""Zarr groups, version 2 or 3: the folder `<slide>.zarr`, arrays `features` [n, d] and `coords` [n, 2].

Attributes of the group say what those of an `.npz` do, see `arrays.py`: coords_unit, patch_size_level0, mpp,
encoder, dtype = "bfloat16" for features kept as uint16. Needs the package zarr.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modaltune_jax.inputs.readers import arrays
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.failures import UnavailableError, told
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import TileArrays, assemble
from modaltune_jax.types import InputError, Slide

NAME = "zarr"
SUFFIXES = (".zarr",)

Result = TypeVar("Result")


def peek(path: Path) -> Contents:
    """Names of the arrays and attributes of a group.

    Raises:
      InputError: no group, or no package zarr.
    """
    return _open(path, lambda group: Contents("zarr", frozenset(group.array_keys()), frozenset(group.attrs)))


def fits(contents: Contents) -> bool:
    """Whether a folder is of this layout."""
    return contents.kind == "zarr" and {"features", "coords"} <= contents.arrays


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the group, or that it or the options say too little.
    """
    stored = _open(
        file.path,
        lambda group: TileArrays(
            _array(group, "features", file.path), _array(group, "coords", file.path), dict(group.attrs)
        ),
    )
    return assemble(file, stored, arrays.described(file.path, stored), options)


def _array(group: Any, name: str, path: Path) -> np.ndarray | None:
    if name not in group.array_keys():
        return None
    array = group[name]
    values = np.asarray(array[...])
    missing = array.nchunks - array.nchunks_initialized
    # Chunks of nothing but zeros need not be stored, and zarr makes zeros of those that were lost. Only a
    # chunk of the one tile at the very corner may be like that.
    is_corner = missing == 1 and name == "coords" and np.count_nonzero(~values.any(axis=-1)) == 1
    if missing and not is_corner:
        raise InputError(
            f"{path}: {missing} of the {array.nchunks} chunks of {name} are not there; copy or write it"
            " again, and set zarr's write_empty_chunks if they do hold zeros"
        )
    return values


def _open(path: Path, take: Callable[[Any], Result]) -> Result:
    try:
        import zarr
    except ImportError as error:
        raise UnavailableError(
            f"{path} needs a package to be read; pip install 'modaltune_jax[zarr]'"
        ) from error
    try:
        with warnings.catch_warnings():
            # Of files that others put into the folder, and of versions.
            warnings.simplefilter("ignore", UserWarning)
            return take(zarr.open_group(str(path), mode="r"))
    except InputError:
        raise
    # All of them are what zarr and its codecs make of damage.
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        raise told(path, error, "is no whole group of zarr {}; write it again") from error
