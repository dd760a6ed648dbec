"""What passes between the rooms of the house. Imports no jax, so that data workers stay light.

Axis letters, everywhere in the package::

    b case    l tile    m modal token    g gene or pathway    t task
    d width   h head    k clinical value  e embedding          c class or time bin
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MODALITIES = ("slides", "expression", "clinical")
"""Order of the last axis of `Batch.present`."""

TASKS = ("general", "diagnosis", "survival")
"""Order of the task axis t: each task is trained on its own sentence and probed on its own embedding."""


class InputError(ValueError):
    """Wrong input from the user: one sentence that names the file, the case, the value, and what to do.

    Commands print it without a traceback and exit with code 2.
    """


@dataclasses.dataclass(frozen=True)
class Slide:
    """Tile features of one slide.

    Attributes:
      id: slide barcode or file stem.
      features: `[l, d]` float16, bfloat16 or float32.
      coords: `[l, 2]` int32, (x, y) of each tile's corner in level-0 pixels.
      patch_size_level0: side of a tile in level-0 pixels.
    """

    id: str
    features: np.ndarray
    coords: np.ndarray
    patch_size_level0: int


@dataclasses.dataclass(frozen=True)
class Labels:
    """What is known about a case, raw; every field may be missing.

    Attributes:
      diagnosis: cleaned diagnosis words, `""` if unknown.
      subtype: class index within the case's site, -1 if none.
      time: months to death or last follow-up, NaN if unknown.
      event: 1 death seen, 0 censored, -1 unknown.
      stage, t, n, m: AJCC codes as written in the source ("Stage IIB", "T2a"), `""` if unknown.
      age: years at diagnosis, NaN if unknown.
    """

    diagnosis: str = ""
    subtype: int = -1
    time: float = math.nan
    event: int = -1
    stage: str = ""
    t: str = ""
    n: str = ""
    m: str = ""
    age: float = math.nan


@dataclasses.dataclass(frozen=True)
class Case:
    """A patient: the unit of training, splitting and evaluation.

    Attributes:
      id: case barcode.
      site: cohort name in lower case, e.g. "brca".
      split: "train", "val" or "test".
      slides: may be empty.
      expression: `[g]` float32 in the order of the data set's gene list, NaN where a gene was not
        measured; None if the case has no expression.
      labels: raw labels.
      variables: further clinical values by name, numbers or words as in the source; what is not known is
        left out.
    """

    id: str
    site: str
    split: str
    slides: tuple[Slide, ...]
    expression: np.ndarray | None
    labels: Labels
    variables: Mapping[str, float | str] = dataclasses.field(default_factory=dict)


class Batch(NamedTuple):
    """A padded batch of cases; a pytree of arrays, numpy on the host and jax on the mesh.

    Attributes:
      features: `[b, l, d]` tile features, zero beyond `length`.
      cells: `[b, l, 2]` int32 (column, row) of each tile in its grid.
      length: `[b]` int32 number of tiles, 0 for a case without slides.
      expression: `[b, g]` float32 standardised, 0 where missing.
      clinical: `[b, k]` float32 encoded, 0 where missing.
      present: `[b, 3]` bool, one column per name in `MODALITIES`.
      targets: `[b, t, e]` float32 projected text.
      subtype: `[b]` int32, -1 none.
      site: `[b]` int32 index into the data set's site list.
      time: `[b]` float32 months, NaN unknown.
      event: `[b]` int32, -1 unknown.
      weight: `[b]` float32, 0 for filler cases that only complete the batch.
      index: `[b]` int32 row of the case in the data set, -1 for filler.
    """

    features: Any
    cells: Any
    length: Any
    expression: Any
    clinical: Any
    present: Any
    targets: Any
    subtype: Any
    site: Any
    time: Any
    event: Any
    weight: Any
    index: Any
