"""TRIDENT (mahmoodlab): `features_<encoder>/<slide>.h5`.

Datasets `features` [n, d] and `coords` [n, 2], corners (x, y) in level-0 pixels. `coords` says patch_size and
target_magnification (of the tiles), patch_size_level0 and level0_magnification (of the slide). `features`
says the encoder; where it does not, the folder is named after it. A slide without tissue has no rows, or not
even a dataset of features.
"""

from __future__ import annotations

import math

from modaltune_jax.inputs.readers import hdf5
from modaltune_jax.inputs.readers.attributes import number, text, whole
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import Said, TileArrays, assemble
from modaltune_jax.types import Slide

NAME = "trident"
SUFFIXES = hdf5.SUFFIXES

_FOLDER = "features_"


def fits(contents: Contents) -> bool:
    """Whether a file is of this layout."""
    said = {"patch_size_level0", "level0_magnification"} & contents.attributes
    return contents.kind == "hdf5" and "coords" in contents.arrays and bool(said)


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the file, or contradicts the options.
    """
    arrays = hdf5.read(file.path)
    path, attributes = file.path, arrays.attributes
    magnification = number(attributes, "target_magnification", path)
    side = whole(attributes, "patch_size", path)
    encoder = text(attributes, "encoder", path)
    folder = path.parent.name
    if not encoder and not options.encoder and folder.startswith(_FOLDER):
        encoder = folder.removeprefix(_FOLDER)
    said = Said(
        patch_size_level0=_size(file, arrays),
        coords_unit="level0",
        encoder=encoder,
        magnification=magnification,
        tile_size=f"{side} px at {magnification:g}x" if side and magnification else "",
    )
    return assemble(file, arrays, said, options)


def _size(file: SlideFile, arrays: TileArrays) -> int | None:
    """Side of a tile in level-0 pixels; where only its parts are said, they are joined as TRIDENT does."""
    path, attributes = file.path, arrays.attributes
    size = whole(attributes, "patch_size_level0", path)
    side = whole(attributes, "patch_size", path)
    scanned = number(attributes, "level0_magnification", path)
    shown = number(attributes, "target_magnification", path)
    if size is None and side and scanned and shown:
        return math.floor(side * scanned / shown)
    return size
