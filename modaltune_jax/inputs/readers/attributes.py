"""What a file says beside its arrays, and what the user says: read, compared, or demanded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from modaltune_jax.inputs.readers.slide_file import COORDS_UNITS, SlideOptions
from modaltune_jax.types import InputError

Value = TypeVar("Value", float, int, str)

_MAX_SIZE = np.iinfo(np.int32).max
_NONE = "None"
"""What TRIDENT writes for a value that it does not know."""


def text(attributes: Mapping[str, Any], name: str, path: Path) -> str:
    """An attribute as text, `""` if there is none.

    Raises:
      InputError: it is something else.
    """
    value = attributes.get(name)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or value == _NONE:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{path}: {name} is {_shown(value)}, which is no text; correct it in the file")
    return value


def number(attributes: Mapping[str, Any], name: str, path: Path) -> float | None:
    """An attribute as a positive number, None if there is none.

    Raises:
      InputError: it is something else.
    """
    value = attributes.get(name)
    if value is None or (isinstance(value, str) and value == _NONE):
        return None
    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in "iuf":
        found = float(array.reshape(()))
        if math.isfinite(found) and found > 0:
            return found
    raise InputError(
        f"{path}: {name} is {_shown(value)}, which is no positive number; correct it in the file"
    )


def whole(attributes: Mapping[str, Any], name: str, path: Path) -> int | None:
    """An attribute as a number of pixels, None if there is none.

    Raises:
      InputError: it is something else, or no whole number.
    """
    found = number(attributes, name, path)
    if found is None or found.is_integer():
        return None if found is None else int(found)
    raise InputError(f"{path}: {name} is {found:g}, which is no whole number; correct it in the file")


def agreed(path: Path, name: str, said: Value | None, flag: str, given: Value | None) -> Value | None:
    """What the file says or what the user says, whichever there is.

    Raises:
      InputError: both, and not the same.
    """
    if not said or not given or _same(said, given):
        return said or given
    raise InputError(
        f"{path} has {name} {said} while {flag} is {given}; leave {flag} out, or take the file away"
    )


def tile_size(path: Path, said: int | None, options: SlideOptions) -> int:
    """Side of a tile in level-0 pixels.

    Raises:
      InputError: nobody says it, file and user differ, or it is beyond any slide.
    """
    name, flag = "patch_size_level0", "--patch-size-level0"
    size = agreed(path, name, said, flag, options.patch_size_level0)
    if size is None:
        raise InputError(
            f"{path} does not say how large its tiles are; give their side in level-0 pixels with {flag}, "
            "for example 512 for tiles of 256 pixels at 20x from slides scanned at 40x"
        )
    if size > _MAX_SIZE:
        raise InputError(f"{path}: {name} is {size}, larger than any slide; correct it in the file")
    return size


def coords_unit(path: Path, said: str, options: SlideOptions) -> str:
    """Unit of the coordinates, one of `COORDS_UNITS`.

    Raises:
      InputError: nobody says it, it is unknown, or file and user differ.
    """
    unit = agreed(path, "coords_unit", said, "--coords-unit", options.coords_unit)
    if not unit:
        raise InputError(
            f"{path} does not say what its coordinates count; say it with --coords-unit: level0 for level-0 "
            "pixels, um for micrometres, grid for columns and rows of tiles"
        )
    if unit not in COORDS_UNITS:
        raise InputError(
            f"{path}: coords_unit is {unit!r}; correct it in the file to one of {', '.join(COORDS_UNITS)}"
        )
    return unit


def _shown(value: Any) -> str:
    """A value of any type, on one line of a message."""
    shown = repr(np.asarray(value).tolist())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _same(said: int | float | str, given: int | float | str) -> bool:
    if isinstance(said, str) or isinstance(given, str):
        return str(said).casefold() == str(given).casefold()
    # A number may have been stored in 32 bits.
    return math.isclose(said, given, rel_tol=1e-6)
