"""Clinical values as numbers: one vocabulary over all cohorts, what is missing marked and never guessed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from modaltune_jax.inputs import ajcc
from modaltune_jax.types import Case, InputError

DEFAULT_COLUMNS = (*ajcc.FIELDS, "age")
"""What the labels of every cohort have; further columns are the variables of a data set."""

KINDS = ("number", "category")
"""What a variable of a data set can be."""


@dataclasses.dataclass(frozen=True)
class ClinicalColumn:
    """How one clinical value becomes one number or more.

    Attributes:
      name: "stage", "t", "n", "m", "age", or a variable of the data set.
      kind: "ordinal" (AJCC codes, on a scale from 0 to 1), "number" (standardised) or "category" (one of n).
      mean, std: of a number over the train cases that have it.
      categories: words of a category in the train cases, sorted.
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 0.0
    categories: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers it becomes."""
        if self.kind == "category":
            return tuple(f"{self.name}={word}" for word in self.categories)
        return (self.name,)

    def encode(self, case: Case) -> Float[np.ndarray, "k"]:
        """Its numbers for a case, all NaN where it is missing, or is a word that no train case has."""
        value = _value(case, self.name)
        if self.kind == "category":
            known = value in self.categories
            return np.array([float(value == word) if known else math.nan for word in self.categories])
        if self.kind == "ordinal":
            return np.array([ajcc.ajcc_ordinal(self.name, str(value))])
        if self.std == 0:
            return np.array([float(value) * 0.0])
        return np.array([(float(value) - self.mean) / self.std])


@dataclasses.dataclass(frozen=True)
class ClinicalEncoder:
    """The clinical values of a case as one vector: all numbers, then for every column whether it is missing.

    A value that is missing or not assessable ("NX", "Stage X") is 0 with its flag 1.
    """

    columns: tuple[ClinicalColumn, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the k numbers: "stage", "age", "sex=female", ..., "stage_missing", ..."""
        values = [name for column in self.columns for name in column.names]
        return (*values, *(f"{column.name}_missing" for column in self.columns))

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, case: Case) -> Float[np.ndarray, "k"]:
        values = [column.encode(case) for column in self.columns]
        missing = [not len(value) or bool(np.isnan(value).any()) for value in values]
        return np.nan_to_num(np.concatenate([*values, missing]).astype(np.float32))

    def is_known(self, encoded: Float[np.ndarray, "k"]) -> bool:
        """Whether any column of an encoded case is not missing."""
        return bool(self.columns) and not encoded[len(encoded) - len(self.columns) :].all()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ClinicalEncoder:
        """Inverse of `dataclasses.asdict`."""
        columns = (column | {"categories": tuple(column["categories"])} for column in fields["columns"])
        return cls(tuple(ClinicalColumn(**column) for column in columns))


def fit_clinical(
    cases: Sequence[Case], columns: Sequence[str] = DEFAULT_COLUMNS, kinds: Mapping[str, str] | None = None
) -> ClinicalEncoder:
    """Fits means and vocabularies.

    Args:
      cases: the train cases.
      columns: names to encode, in this order; may be empty.
      kinds: "number" or "category" for every variable of the data set.

    Raises:
      InputError: a name twice, or one that is neither in the labels nor among the variables.
    """
    kinds = {**dict.fromkeys(ajcc.FIELDS, "ordinal"), "age": "number", **(kinds or {})}
    unknown = [name for name in columns if name not in kinds]
    if unknown or len(set(columns)) < len(columns):
        raise InputError(
            f"clinical columns {tuple(columns)}: each must be there once, and be one of {', '.join(kinds)};"
            " further columns are packed with --variables"
        )
    return ClinicalEncoder(tuple(_fit(name, kinds[name], cases) for name in columns))


def _fit(name: str, kind: str, cases: Sequence[Case]) -> ClinicalColumn:
    if kind == "ordinal":
        return ClinicalColumn(name, kind)
    values = [_value(case, name) for case in cases]
    if kind == "category":
        words = sorted({str(value) for value in values if isinstance(value, str)})
        return ClinicalColumn(name, kind, categories=tuple(words))
    known = np.array([value for value in values if not math.isnan(float(value))], np.float64)
    if not len(known):
        return ClinicalColumn(name, kind)
    # Equal values can get a tiny std by rounding, which must not become a divisor.
    std = float(known.std()) if np.ptp(known) > 0 else 0.0
    return ClinicalColumn(name, kind, float(known.mean()), std)


def _value(case: Case, name: str) -> float | str:
    """A value as the source has it; NaN, or an empty AJCC code, where it is missing."""
    if name in DEFAULT_COLUMNS:
        return getattr(case.labels, name)
    return case.variables.get(name, math.nan)
