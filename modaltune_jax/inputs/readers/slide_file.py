"""A slide's feature file before it is read: where it is, and what the user says that it does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from modaltune_jax.types import InputError

COORDS_UNITS = ("level0", "um", "grid")
"""Level-0 pixels; micrometres; (column, row) of a grid whose cells are tiles."""


@dataclasses.dataclass(frozen=True)
class SlideOptions:
    """What the files of a folder do not say themselves; what contradicts a file is an error.

    Attributes:
      layout: name of a reader; `""` recognises it by content.
      patch_size_level0: side of a tile in level-0 pixels.
      coords_unit: one of `COORDS_UNITS`.
      mpp: micrometres per level-0 pixel.
      encoder: name of the tile encoder.
    """

    layout: str = ""
    patch_size_level0: int | None = None
    coords_unit: str = ""
    mpp: float | None = None
    encoder: str = ""

    def __post_init__(self) -> None:
        if self.coords_unit and self.coords_unit not in COORDS_UNITS:
            raise InputError(
                f"--coords-unit is {self.coords_unit!r}; it must be one of {', '.join(COORDS_UNITS)}"
            )
        if self.patch_size_level0 is not None and not 1 <= self.patch_size_level0 < 2**31:
            raise InputError(
                f"--patch-size-level0 is {self.patch_size_level0}; it must be 1 to 2147483647 pixels"
            )
        if self.mpp is not None and not 0.01 <= self.mpp <= 100:
            raise InputError(f"--mpp is {self.mpp}; it is micrometres per pixel, about 0.25 at 40x")


@dataclasses.dataclass(frozen=True)
class SlideFile:
    """Where the tile features of a slide are.

    Attributes:
      id: slide barcode or name.
      layout: name of the reader.
      path: the features.
      coords_path: the coordinates, where a layout keeps them apart; None otherwise, or if there are none.
    """

    id: str
    layout: str
    path: Path
    coords_path: Path | None = None


class SlideFacts(NamedTuple):
    """What a feature file says besides its tiles; `""` and None where it does not.

    Attributes:
      encoder: name of the tile encoder.
      mpp: micrometres per level-0 pixel.
      magnification: of the tiles.
      frame: "level0", or "tile" where coordinates are in pixels of the tiles as extracted, because the file
        counts in micrometres and nobody gave the mpp: cells are exact all the same.
      tile_size: side of a tile in the unit of the file, for people: "256 um", "1024 px at level 0".
    """

    encoder: str = ""
    mpp: float | None = None
    magnification: float | None = None
    frame: str = "level0"
    tile_size: str = ""
