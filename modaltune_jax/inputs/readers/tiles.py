"""What every reader does with the arrays it found: their types, shapes and units become those of `Slide`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Float, Int

from modaltune_jax.inputs.readers import attributes
from modaltune_jax.inputs.readers.positions import check_coords, level0_pixels, type_name, without_batch
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.types import InputError, Slide


class TileArrays(NamedTuple):
    """What a file holds, as it is stored; None where it does not.

    Attributes:
      features: of any type and shape.
      coords: of any type and shape.
      attributes: what is said about them, at whatever place.
    """

    features: np.ndarray | None
    coords: np.ndarray | None
    attributes: Mapping[str, Any]


class Said(NamedTuple):
    """What a layout or its file says; `""` and None where neither does, and the options have to.

    Attributes:
      patch_size_level0, coords_unit, mpp, encoder: as in `SlideOptions`.
      magnification, tile_size: as in `SlideFacts`.
    """

    patch_size_level0: int | None = None
    coords_unit: str = ""
    mpp: float | None = None
    encoder: str = ""
    magnification: float | None = None
    tile_size: str = ""


def assemble(
    file: SlideFile, arrays: TileArrays, said: Said, options: SlideOptions
) -> tuple[Slide, SlideFacts]:
    """The slide of a file's arrays.

    Raises:
      InputError: arrays that are missing or of the wrong kind, a unit or size that nobody says, or an option
        that contradicts the file.
    """
    path = file.path
    size = attributes.tile_size(path, said.patch_size_level0, options)
    unit = attributes.coords_unit(path, said.coords_unit, options)
    mpp = attributes.agreed(path, "mpp", said.mpp, "--mpp", options.mpp)
    features = check_features(path, arrays)
    coords = level0_pixels(path, check_coords(path, arrays.coords), unit, size, mpp)
    facts = SlideFacts(
        encoder=attributes.agreed(path, "encoder", said.encoder, "--encoder", options.encoder) or "",
        mpp=mpp,
        magnification=said.magnification,
        tile_size=said.tile_size or f"{size} px at level 0",
    )
    return make_slide(file, features, coords, size), facts


def make_slide(
    file: SlideFile, features: Float[np.ndarray, "l d"], coords: Int[np.ndarray, "n 2"], size: int
) -> Slide:
    """A slide of checked arrays.

    Raises:
      InputError: not as many features as coordinates.
    """
    if len(features) != len(coords):
        raise InputError(
            f"{file.path} has features of {len(features)} tiles and coordinates of {len(coords)}; extract "
            "the slide again"
        )
    return Slide(file.id, features, coords, size)


def check_features(path: Path, arrays: TileArrays) -> Float[np.ndarray, "l d"]:
    """Features in their own type, float64 as float32; without tiles they may have no columns.

    Raises:
      InputError: none there, of another shape or type, or float64 that float32 cannot hold.
    """
    if arrays.features is None:
        if arrays.coords is not None and arrays.coords.size == 0:
            return np.zeros((0, 0), np.float32)
        raise InputError(
            f"{path} has no features; give the files with the features, not those of the patches"
        )
    values = without_batch(arrays.features)
    if values.ndim == 1 and values.size == 0:
        values = values.reshape(0, 0)
    if values.ndim != 2 or (len(values) and not values.shape[1]):
        raise InputError(
            f"{path} has features of shape {arrays.features.shape}, which is not [tiles, width]; give the "
            "features of tiles, not of whole slides"
        )
    return _floats(path, values, attributes.text(arrays.attributes, "dtype", path))


def _floats(path: Path, values: np.ndarray, dtype: str) -> Float[np.ndarray, "l d"]:
    """Features of a type that `Slide` has, bit for bit."""
    if dtype == "bfloat16" and values.dtype in (np.dtype("V2"), np.dtype(np.uint16)):
        # h5py and numpy know no bfloat16: they keep the two bytes of each number, and forget what they are.
        return values.view(ml_dtypes.bfloat16)
    if values.dtype == ml_dtypes.bfloat16:
        return values
    if values.dtype.kind != "f" or values.dtype.itemsize not in (2, 4, 8):
        raise InputError(
            f"{path} has features of type {type_name(values)}; store them as float16 or float32, or as "
            'bfloat16 with an attribute dtype = "bfloat16"'
        )
    if values.dtype.itemsize < 8:
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.array_equal(single, values, equal_nan=True):
        raise InputError(f"{path} has features in float64, which float32 cannot hold; store them as float32")
    return single
