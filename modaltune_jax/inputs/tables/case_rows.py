"""Rows of a table to cases: a case may have several, one a slide, which agree or complete each other."""

from __future__ import annotations

import pandas as pd

from modaltune_jax.inputs.counts import Count, plural, some
from modaltune_jax.inputs.tables.columns import Columns
from modaltune_jax.types import InputError


def one_row_a_case(
    stated: pd.DataFrame, columns: Columns, source: str
) -> tuple[pd.DataFrame, tuple[Count, ...]]:
    """Joins the rows of every case, which must agree where they say something.

    Args:
      stated: cells text, `""` missing.
      columns: which of them are used.
      source: file, for messages.

    Returns:
      The used columns, index case_id in the order of the file; and what was done to the rows.

    Raises:
      InputError: no row names a case, or rows of a case contradict each other.
    """
    key = columns.of["case_id"]
    named = stated[stated[key] != ""]
    counts = []
    if len(named) < len(stated):
        text = f"{plural(len(stated) - len(named), 'row')} with nothing in {key} left out"
        counts.append(Count("rows of labels with a case", len(stated), len(named), text, suspect=True))
    if named.empty:
        raise InputError(f"{source}: has no rows with a case; check that {key} is the column of the cases")
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
                f"{source}: case {case} has {column} {found[0]!r} and {found[1]!r}; keep one, a case has"
                " one label"
            )
        values = dict(zip(pairs[key], pairs[column], strict=True))
        cases[column] = [values.get(case, "") for case in cases.index]
    if columns.endpoint is not None:
        _check_outcomes(table[key], table[list(endpoint)], cases, source)
    counts.append(_repeats(table, key, cases))
    return cases, tuple(counts)


def _check_outcomes(keys: pd.Series, stated: pd.DataFrame, cases: pd.DataFrame, source: str) -> None:
    """Time and event must stand in one row of a case: put together from two, they may be of two dates."""
    time, status = stated
    outcomes = set(zip(keys, stated[time], stated[status], strict=True))
    for case, at, how in zip(cases.index, cases[time], cases[status], strict=True):
        if at and how and (case, at, how) not in outcomes:
            raise InputError(
                f"{source}: case {case} has {time} {at!r} and {status} {how!r} in different rows, which may"
                " be of different dates; write both into one row"
            )


def _repeats(table: pd.DataFrame, key: str, cases: pd.DataFrame) -> Count:
    """How rows became cases."""
    differs = (table[list(cases)].to_numpy() != cases.loc[table[key]].to_numpy()).any(axis=1)
    completed = list(dict.fromkeys(table[key][differs]))
    parts = []
    if len(table) > len(cases):
        parts.append(f"{plural(len(table) - len(cases), 'row')} of a case that has another")
    if completed:
        parts.append(f"in {plural(len(completed), 'case')} they complete each other")
    return Count("rows of labels to cases", len(table), len(cases), "; ".join(parts), some(completed))
