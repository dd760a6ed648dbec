"""Plain numpy arrays, as anybody may write them: `<slide>.npz`, or `.npy` beside `<slide>_coords.npy`.

An `.npz` has `features` [n, d] and `coords` [n, 2], and may say coords_unit ("level0", "um" or "grid"),
patch_size_level0, mpp, encoder, and dtype = "bfloat16", which numpy itself does not store. An `.npy` has one
array and says nothing; its coordinates lie in `<slide>_coords.npy` or `<slide>.coords.npy`.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modaltune_jax.inputs.readers.attributes import number, text, whole
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.failures import told
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import Said, TileArrays, assemble
from modaltune_jax.types import InputError, Slide

NAME = "arrays"
SUFFIXES = (".npz", ".npy")

_ENDINGS = ("_coords", ".coords")
_ARRAYS = ("features", "coords")
_DAMAGE = (
    *(OSError, ValueError, EOFError, KeyError, MemoryError, OverflowError, SyntaxError, TypeError),
    *(NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""What numpy and zipfile raise of it."""


def peek(path: Path) -> Contents:
    """Names of the arrays of an `.npz`; the others of its entries are attributes.

    Raises:
      InputError: no whole file of numpy.
    """
    if path.suffix.lower() == ".npy":
        return Contents("numpy", frozenset({"features"}))
    names = frozenset(_load(path, lambda file: list(file)))
    return Contents("numpy", names & {*_ARRAYS}, names - {*_ARRAYS})


def fits(contents: Contents) -> bool:
    """Whether a file is of this layout."""
    return contents.kind == "numpy" and "features" in contents.arrays


def locate(paths: Sequence[Path]) -> list[SlideFile]:
    """The slides of these files; files of coordinates belong to their features."""
    present = {*paths}
    coords_of: dict[Path, Path] = {}
    for path in paths:
        for ending in _ENDINGS if path.suffix.lower() == ".npy" else ():
            coords_path = path.with_name(f"{path.stem}{ending}{path.suffix}")
            if coords_path in present:
                coords_of[path] = coords_path
    slides = present - {*coords_of.values()}
    return [SlideFile(path.stem, NAME, path, coords_of.get(path)) for path in paths if path in slides]


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the files, or that they or the options say too little.
    """
    if file.path.suffix.lower() == ".npz":
        entries = _load(file.path, dict)
        arrays = TileArrays(entries.pop("features", None), entries.pop("coords", None), entries)
    else:
        ending = next((ending for ending in _ENDINGS if file.id.endswith(ending)), "")
        if file.coords_path is None and ending:
            features = file.path.with_name(f"{file.id.removesuffix(ending)}{file.path.suffix}")
            raise InputError(
                f"{file.path} has coordinates of which {features} is missing; put that beside it"
            )
        if file.coords_path is None:
            raise InputError(
                f"{file.path} has features alone; put the coordinates into {file.id}_coords.npy beside it"
            )
        arrays = TileArrays(_load(file.path, np.asarray), _load(file.coords_path, np.asarray), {})
    return assemble(file, arrays, described(file.path, arrays), options)


def described(path: Path, arrays: TileArrays) -> Said:
    """What attributes of our own names say.

    Raises:
      InputError: one of them is not what it should be.
    """
    return Said(
        patch_size_level0=whole(arrays.attributes, "patch_size_level0", path),
        coords_unit=text(arrays.attributes, "coords_unit", path),
        mpp=number(arrays.attributes, "mpp", path),
        encoder=text(arrays.attributes, "encoder", path),
    )


def _load(path: Path, take: Callable[[Any], Any]) -> Any:
    try:
        # Opened here, as numpy leaves files open that it cannot read.
        with path.open("rb") as stream:
            return take(np.load(stream, allow_pickle=False))
    except _DAMAGE as error:
        raise told(path, error, "is no whole file of numpy arrays {}; write it again") from error
