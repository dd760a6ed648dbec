"""Prov-GigaPath, and other tools that write two bare datasets: `<slide>.h5`.

Datasets `features` [n, d] and `coords` [n, 2] without attributes. Prov-GigaPath's coordinates are corners
(x, y) in level-0 pixels, which `--coords-unit` overrules for other tools. The side of a tile is said nowhere.
"""

from __future__ import annotations

from modaltune_jax.inputs.readers import hdf5
from modaltune_jax.inputs.readers.attributes import text, whole
from modaltune_jax.inputs.readers.contents import Contents
from modaltune_jax.inputs.readers.slide_file import SlideFacts, SlideFile, SlideOptions
from modaltune_jax.inputs.readers.tiles import Said, assemble
from modaltune_jax.types import Slide

NAME = "gigapath"
SUFFIXES = hdf5.SUFFIXES

_SAID_BY_OTHERS = {"patch_size_level0", "level0_magnification", "patch_level"}


def fits(contents: Contents) -> bool:
    """Whether a file is of this layout, which lacks what the others have."""
    is_bare = not _SAID_BY_OTHERS & contents.attributes
    return contents.kind == "hdf5" and {"features", "coords"} <= contents.arrays and is_bare


def read(file: SlideFile, options: SlideOptions) -> tuple[Slide, SlideFacts]:
    """Reads a slide.

    Raises:
      InputError: what is wrong with the file, or that the options say too little.
    """
    arrays = hdf5.read(file.path)
    said = Said(
        patch_size_level0=whole(arrays.attributes, "patch_size_level0", file.path),
        coords_unit=options.coords_unit or "level0",
        encoder=text(arrays.attributes, "encoder", file.path),
    )
    return assemble(file, arrays, said, options)
