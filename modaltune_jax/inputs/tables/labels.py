"""What a table says of its cases: one row a case, in the words and units of the package."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from modaltune_jax.inputs.ajcc import FIELDS as AJCC_FIELDS
from modaltune_jax.inputs.ajcc import ajcc_category
from modaltune_jax.inputs.barcodes import is_barcode, slide_name
from modaltune_jax.inputs.cohort import split_of_word
from modaltune_jax.inputs.counts import Count, is_nearly_lost, some
from modaltune_jax.inputs.table_file import clean, column_list, number
from modaltune_jax.inputs.tables.case_rows import one_row_a_case
from modaltune_jax.inputs.tables.columns import Columns, check_variables
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.tables.outcomes import Outcome, outcome
from modaltune_jax.inputs.tables.variables import describe, typed
from modaltune_jax.types import InputError

FIELDS = ("diagnosis", "time", "event", "stage", "t", "n", "m", "age", "project", "split")
"""Columns of `LabelTable.frame`, in order."""

_IDS = ("case_id", "slide_id")
_OLDEST = 120.0


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


def label_table(
    source: LabelSource, columns: Columns, variables: Sequence[str] = (), asked: Collection[str] = ()
) -> LabelTable:
    """One row a case: rows joined, survival, codes, ages and variables read by rule.

    Args:
      source: the table.
      columns: what is taken of it.
      variables: further columns to take as variables.
      asked: fields that the user named; where hardly a case has one, that is suspect.

    Raises:
      InputError: a column is absent, a case has two values of a column, a slide two cases, or a value cannot
        be read and no rule says that it is then unknown.
    """
    columns = _with_variables(source, columns, variables)
    _check_columns(source, columns)
    source = _cleaned(source, columns)
    cases, counts = one_row_a_case(source.table, columns, source.name)
    # As columns of their own: a field may share its column with another, or with a variable.
    fields = {field: cases[columns.of[field]] if field in columns.of else _nothing(cases) for field in FIELDS}
    counts += _absent(fields, asked)
    if columns.endpoint is None:
        survival = Outcome(np.full(len(cases), math.nan), np.full(len(cases), -1), ())
    else:
        is_sure = columns.endpoint in source.endpoints.values()
        survival = outcome(cases, columns.endpoint, source.name, is_unit_sure=is_sure)
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
    values = {name: typed(cases[column].map(clean)) for name, column in columns.variables.items()}
    counts += tuple(describe(name, value) for name, value in values.items())
    slides = {**source.slides, **_slides(source, columns)}
    return LabelTable(
        frame[list(FIELDS)], pd.DataFrame(values, index=cases.index), slides, source.counts + counts
    )


def _with_variables(source: LabelSource, columns: Columns, names: Sequence[str]) -> Columns:
    """Adds variables by name: known already, or that of a column, or the last part of a dotted one."""
    chosen = dict(columns.variables)
    check_variables(names, source.name)
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
        if what not in _IDS and column in [columns.of.get(name) for name in _IDS]:
            raise InputError(
                f"{source.name}: {what} is column {column!r}, which names the cases or slides; give another"
            )


def _cleaned(source: LabelSource, columns: Columns) -> LabelSource:
    """Missing cells emptied, other than those of the status to which a meaning was given."""
    endpoint = columns.endpoint
    meanings = set() if endpoint is None else {word.strip().lower() for word in endpoint.values}

    def of_status(text: str) -> str:
        # Where an empty cell has a meaning, "NA" must not become one.
        return text if "" in meanings or text.lower() in meanings else clean(text)

    table = source.table.copy()
    for column in table:
        text_of = of_status if endpoint is not None and column == endpoint.status else clean
        table[column] = table[column].map({text: text_of(text) for text in table[column].unique()})
    return source._replace(table=table)


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
    read = given - len(unreadable)
    text, suspect = "a code that is not AJCC's is unknown", is_nearly_lost(given, read)
    count = Count(f"{field} codes", given, read, text, examples, suspect)
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
    read = given - len(unreadable)
    return ages, (Count("ages", given, read, text, some(unreadable), is_nearly_lost(given, read)),)


def _age(text: str) -> float:
    years = number(text)
    return years if 0 <= years <= _OLDEST else math.nan


def _splits(texts: pd.Series, source: str) -> pd.Series:
    for case, text in texts.items():
        if text and split_of_word(text) is None:
            raise InputError(
                f"{source}: case {case}: split is {text!r}; write train, val or test, or leave it empty"
            )
    return texts.map(lambda text: split_of_word(text) or "")


def _absent(fields: Mapping[str, pd.Series], asked: Collection[str]) -> tuple[Count, ...]:
    """Fields asked for that hardly a case has."""
    given = {
        field: (len(texts), int((texts != "").sum())) for field, texts in fields.items() if field in asked
    }
    text = "hardly a case has it, though its column was asked for"
    return tuple(
        Count(f"cases with {field}", before, after, text, suspect=True)
        for field, (before, after) in given.items()
        if is_nearly_lost(before, after)
    )


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
