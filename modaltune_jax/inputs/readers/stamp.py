"""STAMP (Kather Lab) 2.0 to 2.4: `<slide>.h5`.

Datasets `feats` float16 [n, d] and `coords` float32 [n, 2], corners (x, y) in micrometres. Attributes of the
file: extractor, unit = "um", and tile_size (2.0) or tile_size_um with tile_size_px (since 2.1), feat_type.
STAMP 1 wrote neither unit nor size. Its files need `--coords-unit level0 --patch-size-level0 224`, as they
count the pixels of tiles.

STAMP cuts a slide into tiles of ceil(tile_size_um / mpp) level-0 pixels, and counts each as tile_size_um wide
within the larger regions that it reads at once. So coordinates drift off exact multiples, by up to a pixel a
tile. Here a tile goes back to the cell that it was cut from. The file does not say mpp; where the user does
not either, coordinates are in pixels of the tiles as extracted, with exact cells all the same.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float

from modaltune_jax.inputs.readers import hdf5
from modaltune_jax.inputs.readers.attributes import agreed, coords_unit, number, text, whole
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.positions import ROUNDING, as_int32, check_coords
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import Said, TileArrays, assemble, check_features, make_slide
from modaltune_jax.types import InputError, Slide

NAME = "stamp"
SUFFIXES = hdf5.SUFFIXES

_NEAR = 0.25
"""Part of a tile that coordinates may lie off the grid from which STAMP cuts, if its mpp is known."""


def fits(contents: Contents) -> bool:
    """Whether a file is of this layout."""
    return contents.kind == "hdf5" and "feats" in contents.arrays


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the file, or contradicts the options.
    """
    path = file.path
    arrays = hdf5.read(path, features="feats")
    attributes = arrays.attributes
    kind = text(attributes, "feat_type", path) or "tile"
    if kind != "tile":
        raise InputError(f"{path} has features of a {kind}; give those of tiles, as `stamp preprocess` makes")
    unit = coords_unit(path, text(attributes, "unit", path), options)
    encoder = text(attributes, "extractor", path)
    if unit != "um":
        return assemble(file, arrays, Said(coords_unit=unit, encoder=encoder), options)
    tile_um = number(attributes, "tile_size_um", path) or number(attributes, "tile_size", path)
    if tile_um is None:
        raise InputError(
            f"{path} has no attribute tile_size_um; extract the slide again with STAMP 2.0 or later"
        )
    features = check_features(path, arrays)
    place, size, frame = _place(path, arrays, tile_um, options)
    facts = SlideFacts(
        encoder=agreed(path, "extractor", encoder, "--encoder", options.encoder) or "",
        mpp=options.mpp,
        frame=frame,
        tile_size=f"{tile_um:g} um",
    )
    return make_slide(file, features, as_int32(path, place), size), facts


def _place(
    path: Path, arrays: TileArrays, tile_um: float, options: SlideOptions
) -> tuple[Float[np.ndarray, "l 2"], int, str]:
    """Where the tiles are in pixels, the side of a tile, and the frame of both."""
    coords = check_coords(path, arrays.coords).astype(np.float64)
    given, mpp = options.patch_size_level0, options.mpp
    if mpp is None:
        size = given or whole(arrays.attributes, "tile_size_px", path) or round(tile_um)
        return np.floor(coords / tile_um + ROUNDING) * size, size, "level0" if given else "tile"
    size = math.ceil(tile_um / mpp)
    if given and abs(given * mpp - tile_um) > mpp:
        raise InputError(
            f"{path} has tiles of {tile_um:g} um, which are {size} pixels with --mpp {mpp:g} while "
            f"--patch-size-level0 is {given}; leave one of the two out"
        )
    return _on_grid(path, coords / mpp, given or size), given or size, "level0"


def _on_grid(path: Path, pixels: Float[np.ndarray, "l 2"], size: int) -> Float[np.ndarray, "l 2"]:
    """The corners of the grid that are nearest, since each tile was cut from one.

    Raises:
      InputError: a tile is not near one, so that this is not the slide's mpp.
    """
    cell = np.rint(pixels / size)
    distance = np.abs(pixels / size - cell).max(axis=1, initial=0)
    if np.any(distance > _NEAR):
        tile = int(np.argmax(distance))
        raise InputError(
            f"{path}: with this --mpp, tile {tile} lies {distance[tile]:.2f} tiles off STAMP's grid of "
            f"{size} pixels; give the exact mpp of this slide, or leave --mpp out"
        )
    return cell * size
