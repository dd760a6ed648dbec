"""What would make results look better than they are: cases, slides, expression and variables that leak."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from modaltune_jax.inspection.leaks.expression import expression_leaks
from modaltune_jax.inspection.leaks.leak import Leak
from modaltune_jax.inspection.leaks.sketches import SlideSketch, sketch
from modaltune_jax.inspection.leaks.slides import case_leaks, copy_leaks, owner_leaks
from modaltune_jax.inspection.leaks.variables import variable_leaks

__all__ = ["Leak", "SlideSketch", "find_leaks", "sketch"]


def find_leaks(
    cases: pd.DataFrame,
    *,
    slides: Iterable[tuple[str, str]] = (),
    sketches: Sequence[SlideSketch] = (),
    expression: pd.DataFrame | None = None,
    variables: pd.DataFrame | None = None,
) -> list[Leak]:
    """Looks for every leak that the data at hand can show; errors come first.

    Each check says what it cannot find: `sketches.alike`, `expression_leaks`, `variable_leaks`.

    Args:
      cases: indexed by case id, a row a case and split: columns split (`""` if none yet), site, subtype (-1
        none), time (NaN unknown), event (-1 unknown), and project where it is known.
      slides: (slide, case) pairs.
      sketches: of the slides that were read.
      expression: case x gene, NaN where not measured.
      variables: further clinical columns by case; numeric ones are numbers, others categories.
    """
    slides = list(slides)
    found = [
        *case_leaks(zip(cases.index.astype(str), cases["split"], strict=True)),
        *owner_leaks(slides),
    ]
    once = cases[~cases.index.duplicated()]
    found += copy_leaks(sketches, dict(slides), once["split"].to_dict())
    if expression is not None:
        found += expression_leaks(expression, once)
    if variables is not None:
        found += variable_leaks(variables, once)
    return sorted(found, key=lambda leak: leak.severity != "error")
