"""Where tiles are: coordinates as a file stores them become level-0 pixels, whatever they count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Num

from modaltune_jax.types import InputError

ROUNDING = 1e-3
"""Part of a tile by which a stored number may fall short of the cell that was meant; float32 does better."""

_MAX_COORD = np.iinfo(np.int32).max


def check_coords(path: Path, stored: np.ndarray | None) -> Num[np.ndarray, "l 2"]:
    """Coordinates as stored: integers, or floats in 32 or 64 bits; finite and not negative.

    Raises:
      InputError: none there, of another shape or type, or a value that is no place.
    """
    if stored is None:
        raise InputError(
            f"{path} has no coordinates; extract the slide again with a tool that keeps them, or choose "
            "another layout with --layout"
        )
    values = without_batch(stored)
    if values.size == 0:
        return np.zeros((0, 2), np.int64)
    if values.dtype.kind not in "iuf" or values.dtype == np.float16:
        raise InputError(
            f"{path} has coordinates of type {type_name(values)}; store them as int64, or float32 at least"
        )
    if values.ndim != 2 or values.shape[1] != 2:
        raise InputError(
            f"{path} has coordinates of shape {stored.shape}, which is not [tiles, 2]; store x and y alone"
        )
    _check_rows(path, values, ~np.isfinite(values), "not finite", "extract the slide again")
    _check_rows(path, values, values < 0, "negative", "count them from the slide's upper left corner")
    return values


def level0_pixels(
    path: Path, coords: Num[np.ndarray, "l 2"], unit: str, size: int, mpp: float | None
) -> Int[np.ndarray, "l 2"]:
    """Coordinates as level-0 pixels in int32.

    Args:
      path: for messages.
      coords: checked by `check_coords`.
      unit: one of `COORDS_UNITS`.
      size: side of a tile in level-0 pixels.
      mpp: micrometres per level-0 pixel, needed for "um" alone.

    Raises:
      InputError: pixels or cells that are no whole numbers, places beyond int32, or no `mpp` for micrometres.
    """
    if unit == "um":
        if mpp is None:
            raise InputError(
                f"{path} has coordinates in micrometres; give the micrometres per level-0 pixel with --mpp"
            )
        return as_int32(path, pixels_of(coords / (mpp * size), size))
    if coords.dtype.kind == "f":
        _check_rows(
            path,
            coords,
            coords != np.rint(coords),
            "no whole numbers",
            "say what they count with --coords-unit, or round them where they are made",
        )
    if unit == "grid":
        # In float64, which holds every product that int32 can, and does not wrap around beyond.
        coords = coords.astype(np.float64) * size
    return as_int32(path, coords)


def pixels_of(position: Float[np.ndarray, "l 2"], size: int) -> Float[np.ndarray, "l 2"]:
    """Whole pixels of places counted in tiles; rounding moves none into another cell.

    >>> pixels_of(np.array([[2.99999, 0.5]]), 100).tolist()
    [[300.0, 50.0]]
    """
    cell = np.floor(position + ROUNDING)
    return cell * size + np.clip(np.rint((position - cell) * size), 0, size - 1)


def as_int32(path: Path, coords: Num[np.ndarray, "l 2"]) -> Int[np.ndarray, "l 2"]:
    """Whole numbers as int32.

    Raises:
      InputError: one is too large.
    """
    _check_rows(
        path,
        coords,
        # float32 would round the limit up.
        coords.astype(np.float64) > _MAX_COORD,
        "beyond what 32 bits can hold",
        "say what they count with --coords-unit",
    )
    return coords.astype(np.int32)


def without_batch(values: np.ndarray) -> np.ndarray:
    """Some extractors leave the axis of a batch of one in front."""
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def type_name(values: np.ndarray) -> str:
    return "text" if values.dtype.kind in "OSUT" else values.dtype.name


def _check_rows(path: Path, values: np.ndarray, is_wrong: np.ndarray, what: str, remedy: str) -> None:
    if not is_wrong.any():
        return
    row = int(np.argmax(is_wrong.any(axis=1)))
    raise InputError(
        f"{path} has coordinates that are {what}, the first in tile {row}: {values[row].tolist()}; {remedy}"
    )
