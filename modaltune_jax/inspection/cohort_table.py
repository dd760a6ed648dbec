"""The cases of a cohort as a table, without their tiles: what all numbers on a cohort are counted from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs import ajcc
from modaltune_jax.inputs.cohort import CohortSpec
from modaltune_jax.packing.planned_case import PlannedCase
from modaltune_jax.types import Case, InputError, Labels

KNOWN = ("slides", "expression", "clinical", "class", "survival")
"""What a case may have; columns of the missingness table."""


@dataclasses.dataclass(frozen=True, eq=False)
class CohortTable:
    """The cases without their tiles.

    Attributes:
      cases: one row a case: case_id, site, split, num_slides, the fields of `Labels`, and the names of
        `KNOWN`, True where a case has it.
      variables: further clinical values of every case.
      expression: `[n, g]` float32, NaN where not measured.
      genes: names of the columns of `expression`.
      specs: definitions of the sites.
    """

    cases: pd.DataFrame
    variables: tuple[Mapping[str, float | str], ...]
    expression: Float[np.ndarray, "n g"]
    genes: tuple[str, ...]
    specs: tuple[CohortSpec, ...]


def tabulate(
    cases: Iterable[Case | PlannedCase],
    genes: Sequence[str],
    specs: Sequence[CohortSpec],
    num_slides: Sequence[int] | None = None,
) -> CohortTable:
    """Cases as a table.

    Args:
      cases: read once.
      genes: names in the order of their expression.
      specs: definitions of the sites.
      num_slides: of every case; None counts the slides that it holds.
    """
    rows, variables, expression = [], [], []
    for i, case in enumerate(cases):
        labels = case.labels
        count = len(case.slides) if num_slides is None else int(num_slides[i])
        rows.append(
            {
                "case_id": case.id,
                "site": case.site,
                "split": case.split,
                "num_slides": count,
                **dataclasses.asdict(labels),
                "slides": count > 0,
                "expression": case.expression is not None,
                "clinical": _has_clinical(case),
                "class": labels.subtype >= 0,
                "survival": labels.event in (0, 1) and not math.isnan(labels.time),
            }
        )
        variables.append(dict(case.variables))
        expression.append(case.expression)
    fields = [field.name for field in dataclasses.fields(Labels)]
    columns = ["case_id", "site", "split", "num_slides", *fields, *KNOWN]
    unmeasured = np.full(len(genes), np.nan, np.float32)
    table = [unmeasured if values is None else values for values in expression]
    return CohortTable(
        cases=pd.DataFrame(rows, columns=columns),
        variables=tuple(variables),
        expression=np.asarray(table, np.float32).reshape(len(rows), len(genes)),
        genes=tuple(genes),
        specs=tuple(specs),
    )


def is_assessed(field: str, code: str) -> bool:
    """Whether an AJCC code says something: "T2" does, "TX" and "" do not."""
    try:
        return not math.isnan(ajcc.ajcc_ordinal(field, code))
    except InputError:  # The checks of cases name such codes.
        return True


def _has_clinical(case: Case | PlannedCase) -> bool:
    labels = case.labels
    has_code = any(is_assessed(field, getattr(labels, field)) for field in ajcc.FIELDS)
    return has_code or not math.isnan(labels.age) or bool(case.variables)
