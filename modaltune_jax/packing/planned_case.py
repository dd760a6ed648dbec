"""A case before its slides are read, and what is said of a case or slide that is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from modaltune_jax.inputs.readers.slide_file import SlideFile
from modaltune_jax.types import Case, Labels, Slide


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedCase:
    """Everything of a case but its tiles; fields as of `Case`, and `split` is `""` if nobody gave splits."""

    id: str
    site: str
    split: str
    slides: tuple[SlideFile, ...]
    labels: Labels
    variables: Mapping[str, float | str]
    expression: np.ndarray | None

    def with_slides(self, slides: tuple[Slide, ...]) -> Case:
        """The case with these slides."""
        return Case(self.id, self.site, self.split, slides, self.expression, self.labels, self.variables)


class Quarantined(NamedTuple):
    """What is not packed, and why; `slide_id` is `""` for a whole case, `case_id` if nobody knows it."""

    case_id: str
    slide_id: str
    path: str
    reason: str
