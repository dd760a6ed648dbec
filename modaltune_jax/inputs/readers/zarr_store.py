"""Zarr groups, version 2 or 3: the folder `<slide>.zarr`, arrays `features` [n, d] and `coords` [n, 2].

Attributes of the group say what those of an `.npz` do, see `arrays.py`: coords_unit, patch_size_level0, mpp,
encoder, dtype = "bfloat16" for features kept as uint16. Needs the package zarr.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modaltune_jax.inputs.readers import arrays
from modaltune_jax.inputs.readers.contents import Contents
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
        lambda group: TileArrays(_array(group, "features"), _array(group, "coords"), dict(group.attrs)),
    )
    return assemble(file, stored, arrays.described(file.path, stored), options)


def _array(group: Any, name: str) -> np.ndarray | None:
    return np.asarray(group[name][...]) if name in group.array_keys() else None


def _open(path: Path, take: Callable[[Any], Result]) -> Result:
    try:
        import zarr
    except ImportError as error:
        raise InputError(f"{path} needs a package to be read; pip install 'modaltune_jax[zarr]'") from error
    try:
        return take(zarr.open_group(str(path), mode="r"))
    # All of them are what zarr and its codecs make of damage.
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is no whole group of zarr ({reason}); write it again") from error
