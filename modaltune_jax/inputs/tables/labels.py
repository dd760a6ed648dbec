"""What a table says of its cases: one row a case, in the words and units of the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs.ajcc import FIELDS as AJCC_FIELDS
from modaltune_jax.inputs.ajcc import ajcc_category
from modaltune_jax.inputs.barcodes import is_barcode, slide_name
from modaltune_jax.inputs.counts import Count, some
from modaltune_jax.inputs.tables.columns import Columns
from modaltune_jax.inputs.tables.endpoints import Endpoint, Outcome, outcome
from modaltune_jax.inputs.tables.table_file import column_list
from modaltune_jax.types import InputError

FIELDS = ("diagnosis", "time", "event", "stage", "t", "n", "m", "age", "project", "split")
"""Columns of `LabelTable.frame`, in order."""

_OLDEST = 120.0
_SPLITS = {"train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "": ""}


@dataclasses.dataclass(frozen=True, eq=False)
class LabelTable:
    """Labels and further variables of cases.

    Attributes:
      frame: index case_id, unique; columns `FIELDS`. time in months, NaN unknown; event 1, 0 or -1 unknown;
        age in years, NaN unknown; the others text, `""` unknown. diagnosis is as written in the source.
      variables: same index; float64 columns are numbers, NaN missing; object columns are categories, None
        missing.
      slides: slide id -> case id where the source lists slides, else empty. Those of the GDC end with the
        barcode, without the UUID of file names; ask `case_of`.
      counts: what every step did.
    """

    frame: pd.DataFrame
    variables: pd.DataFrame
    slides: dict[str, str]
    counts: tuple[Count, ...]

    def case_of(self, slide_id: str) -> str:
        """The case of a slide, with or without UUID and ending; `""` if the source does not list it."""
        name = slide_name(slide_id)
        if name not in self.slides and is_barcode(name):
            name = name.split(".")[0]
        return self.slides.get(name, "")


class LabelSource(NamedTuple):
    """A table as text, and what its columns hold: what every kind of source is turned into.

    Attributes:
      table: cells text, `""` missing; several rows a case where it lists slides.
      columns: what the columns hold.
      name: file, for messages.
      endpoints: those that the source defines, by name; the first is the usual one.
      slides: slide id -> case id from elsewhere than a slide column.
      counts: what was done to the table before.
    """

    table: pd.DataFrame
    columns: Columns
    name: str
    endpoints: Mapping[str, Endpoint] = {}
    slides: Mapping[str, str] = {}
    counts: tuple[Count, ...] = ()


def label_table(source: LabelSource, columns: Columns, variables: Sequence[str] = ()) -> LabelTable:
    """One row a case: rows joined, survival, codes, ages and variables read by rule.

    Args:
      source: the table.
      columns: what is taken of it.
      variables: further columns to take as variables.

    Raises:
      InputError: a column is absent, a case has two values of a column, a slide two cases, or a value cannot
        be read and no rule says that it is then unknown.
    """
    columns = _with_variables(source, columns, variables)
    _check_columns(source, columns)
    cases, counts = _one_row_a_case(source, columns)
    # As columns of their own: a field may share its column with another, or with a variable.
    fields = {field: cases[columns.of[field]] if field in columns.of else _nothing(cases) for field in FIELDS}
    if columns.endpoint is None:
        survival = Outcome(np.full(len(cases), math.nan), np.full(len(cases), -1), ())
    else:
        survival = outcome(cases, columns.endpoint, source.name)
    counts += survival.counts
    for field in AJCC_FIELDS:
        fields[field], count = _codes(field, fields[field])
        counts += count
    age, count = _ages(fields["age"])
    counts += count
    fields["split"] = _splits(fields["split"], source.name)
    frame = pd.DataFrame(
        {**fields, "time": survival.time, "event": survival.event, "age": age}, index=cases.index
    )
    values = {name: _typed(cases[column]) for name, column in columns.variables.items()}
    counts += tuple(_describe(name, value) for name, value in values.items())
    slides = {**source.slides, **_slides(source, columns)}
    return LabelTable(
        frame[list(FIELDS)], pd.DataFrame(values, index=cases.index), slides, source.counts + counts
    )


def _with_variables(source: LabelSource, columns: Columns, names: Sequence[str]) -> Columns:
    """Adds variables by name: known already, or that of a column, or the last part of a dotted one."""
    chosen = dict(columns.variables)
    for name in (name for name in names if name not in chosen):
        candidates = [column for column in source.table if name in (column, column.split(".")[-1])]
        if name not in candidates and len(candidates) != 1:
            raise InputError(
                f"{source.name}: variable {name!r} fits {len(candidates)} columns, {candidates}; choose of"
                f" {column_list(source.table)}"
            )
        chosen[name] = name if name in candidates else candidates[0]
    return Columns(columns.of, columns.endpoint, chosen)


def _check_columns(source: LabelSource, columns: Columns) -> None:
    if "case_id" not in columns.of:
        raise InputError(
            f"{source.name}: no column is named case_id; say which one it is with case_id = in the columns"
            f" file, of {column_list(source.table)}"
        )
    endpoint = columns.endpoint
    survival = {} if endpoint is None else {"the time": endpoint.time, "the event": endpoint.status}
    for what, column in {**columns.of, **columns.variables, **survival}.items():
        if column not in source.table:
            raise InputError(
                f"{source.name}: has no column {column!r} for {what}; its columns are"
                f" {column_list(source.table)}"
            )


def _one_row_a_case(source: LabelSource, columns: Columns) -> tuple[pd.DataFrame, tuple[Count, ...]]:
    """The used columns, index case_id in the order of the file; several rows of a case must agree."""
    key = columns.of["case_id"]
    named = source.table[source.table[key] != ""]
    counts = []
    if len(named) < len(source.table):
        text = "they name no case"
        counts.append(Count("rows of labels without a case", len(source.table), len(named), text))
    if named.empty:
        raise InputError(
            f"{source.name}: has no rows with a case; check that {key} is the column of the cases"
        )
    endpoint = () if columns.endpoint is None else (columns.endpoint.time, columns.endpoint.status)
    used = {*columns.of.values(), *columns.variables.values(), *endpoint} - {key, columns.of.get("slide_id")}
    table = named.reset_index(drop=True)
    cases = pd.DataFrame(index=pd.Index(table[key].unique(), dtype=object, name="case_id"))
    for column in (column for column in table if column in used):
        pairs = table.loc[table[column] != "", [key, column]].drop_duplicates()
        twice = pairs[pairs[key].duplicated()]
        if len(twice):
            case = twice[key].iloc[0]
            found = pairs.loc[pairs[key] == case, column].tolist()
            raise InputError(
                f"{source.name}: case {case} has {column} {found[0]!r} and {found[1]!r}; keep one, a case has"
                " one label"
            )
        values = dict(zip(pairs[key], pairs[column], strict=True))
        cases[column] = [values.get(case, "") for case in cases.index]
    text = f"{len(table) - len(cases)} rows repeat a case, with the same values"
    text = text if len(cases) < len(table) else ""
    return cases, (*counts, Count("rows of labels to cases", len(table), len(cases), text))


def _nothing(cases: pd.DataFrame) -> pd.Series:
    return pd.Series([""] * len(cases), index=cases.index, dtype=object)


def _codes(field: str, texts: pd.Series) -> tuple[pd.Series, tuple[Count, ...]]:
    """The codes that can be read; the others are emptied and reported."""
    unreadable = {}
    for case, text in texts.items():
        try:
            ajcc_category(field, text)
        except InputError:
            unreadable[case] = text
    if not unreadable:
        return texts, ()
    examples = some(f"{case}: {text}" for case, text in unreadable.items())
    given = int((texts != "").sum())
    count = Count(
        f"{field} codes", given, given - len(unreadable), "a code that is not AJCC's is unknown", examples
    )
    return texts.where(~texts.index.isin(list(unreadable)), ""), (count,)


def _ages(texts: pd.Series) -> tuple[Float[np.ndarray, "b"], tuple[Count, ...]]:
    ages = np.asarray([_age(text) for text in texts], np.float64).reshape(len(texts))
    unreadable = [
        f"{case}: {text}"
        for (case, text), age in zip(texts.items(), ages, strict=True)
        if text and age != age
    ]
    if not unreadable:
        return ages, ()
    given = int((texts != "").sum())
    text = f"an age that is no number of years from 0 to {_OLDEST:.0f} is unknown"
    return ages, (Count("ages", given, given - len(unreadable), text, some(unreadable)),)


def _age(text: str) -> float:
    years = _number(text)
    return years if 0 <= years <= _OLDEST else math.nan


def _splits(texts: pd.Series, source: str) -> pd.Series:
    for case, text in texts.items():
        if text.lower() not in _SPLITS:
            raise InputError(
                f"{source}: case {case}: split is {text!r}; write train, val or test, or leave it empty"
            )
    return texts.map(lambda text: _SPLITS[text.lower()])


def _typed(texts: pd.Series) -> pd.Series:
    """Numbers if every given cell is a finite number, else categories."""
    numbers = np.asarray([_number(text) for text in texts], np.float64)
    is_given = np.asarray(texts != "")
    if is_given.any() and np.isfinite(numbers[is_given]).all():
        return pd.Series(np.where(is_given, numbers, math.nan), index=texts.index)
    return pd.Series([text or None for text in texts], index=texts.index, dtype=object)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _describe(name: str, values: pd.Series) -> Count:
    words = sorted(set(values.dropna())) if values.dtype == object else []
    if values.dtype == object:
        text = f"a category with {len(words)} values"
    else:
        text = f"a number, {values.min():g} to {values.max():g}"
    return Count(f"variable {name}", len(values), int(values.notna().sum()), text, some(words))


def _slides(source: LabelSource, columns: Columns) -> dict[str, str]:
    if "slide_id" not in columns.of:
        return {}
    pairs = source.table[[columns.of["slide_id"], columns.of["case_id"]]]
    return slide_owners(pairs[(pairs != "").all(axis=1)].itertuples(index=False, name=None), source.name)


def slide_owners(pairs: Iterable[tuple[str, str]], source: str) -> dict[str, str]:
    """Slide id -> case id.

    Raises:
      InputError: a slide has two cases.
    """
    owners: dict[str, str] = {}
    for slide_id, case_id in pairs:
        name = slide_name(slide_id)
        if owners.setdefault(name, case_id) != case_id:
            raise InputError(
                f"{source}: slide {slide_id} is of case {owners[name]} and of {case_id}; correct one row"
            )
    return owners
