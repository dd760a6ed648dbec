"""The clinical tables of the Genomic Data Commons: clinical.tsv, and slide.tsv and follow_up.tsv beside it.

Older downloads have flat column names (`case_submitter_id`), newer ones dotted names (`cases.submitter_id`).
A case has a row for every diagnosis and treatment; missing is "'--". The table gives overall survival: days
to death, or to the last follow-up of the living.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from modaltune_jax.inputs.counts import Count, plural, some
from modaltune_jax.inputs.table_file import column_list, read_table, split_sheet
from modaltune_jax.inputs.tables.columns import Columns
from modaltune_jax.inputs.tables.endpoints import Endpoint
from modaltune_jax.inputs.tables.labels import LabelSource, slide_owners
from modaltune_jax.types import InputError

_OS = Endpoint("days of overall survival", "days", event="vital status")

_DAYS_PER_YEAR = 365.25

_CASE = ("cases.submitter_id", "case_submitter_id", "submitter_id")
_SLIDE = ("slides.submitter_id", "slide_submitter_id")
_VITAL = ("demographic.vital_status", "vital_status")
_DEATH = ("demographic.days_to_death", "days_to_death")
_LAST_SEEN = ("diagnoses.days_to_last_follow_up", "days_to_last_follow_up")
_FOLLOW_UP = ("follow_ups.days_to_follow_up", "days_to_follow_up")
_AGE = ("demographic.age_at_index", "age_at_index")
_AGE_IN_DAYS = ("diagnoses.age_at_diagnosis", "age_at_diagnosis")
_IS_PRIMARY = ("diagnoses.diagnosis_is_primary_disease", "diagnosis_is_primary_disease")
_CLASSIFICATION = ("diagnoses.classification_of_tumor", "classification_of_tumor")
_FIELDS = {
    "project": ("project.project_id", "project_id", "project"),
    "diagnosis": ("diagnoses.primary_diagnosis", "primary_diagnosis"),
    "stage": ("diagnoses.ajcc_pathologic_stage", "ajcc_pathologic_stage", "tumor_stage"),
    "t": ("diagnoses.ajcc_pathologic_t", "ajcc_pathologic_t"),
    "n": ("diagnoses.ajcc_pathologic_n", "ajcc_pathologic_n"),
    "m": ("diagnoses.ajcc_pathologic_m", "ajcc_pathologic_m"),
}


def read(paths: Sequence[str]) -> LabelSource:
    """One row a case, with the columns of overall survival and an age in years.

    Rows of the primary diagnosis are taken where the table marks them, and of these the first value of each
    column. The last follow-up is the latest over all rows of the case.

    Args:
      paths: in any order; every table says by its columns what it is. Several clinical tables are joined.

    Raises:
      InputError: no clinical table among them, a table that is none of the three, or a value that is no
        number.
    """
    tables = {path: read_table(split_sheet(path)[0]) for path in paths}
    clinical: list[pd.DataFrame] = []
    follow_ups: list[pd.DataFrame] = []
    slides: dict[str, str] = {}
    for path, table in tables.items():
        case = _column(table, _CASE)
        if not case:
            raise InputError(
                f"{path}: has no column {', '.join(_CASE)}, so it is no table of the GDC; its columns are"
                f" {column_list(table)}"
            )
        table = table[table[case] != ""].rename(columns={case: "case"})
        if table.empty:
            continue
        if _column(table, _VITAL):
            clinical.append(table)
        elif slide := _column(table, _SLIDE):
            pairs = table.loc[table[slide] != "", [slide, "case"]]
            slides.update(slide_owners(pairs.itertuples(index=False, name=None), path))
        elif days := _column(table, _FOLLOW_UP):
            follow_ups.append(table[["case", days]].rename(columns={days: "days"}))
        else:
            raise InputError(
                f"{path}: is neither clinical.tsv, slide.tsv nor follow_up.tsv of the GDC; its columns are"
                f" {column_list(table)}"
            )
    name = ", ".join(paths)
    if not clinical:
        raise InputError(
            f"{name}: no clinical.tsv with cases (it has {_VITAL[0]} or {_VITAL[1]}); add it to the list"
        )
    if len({_column(table, _VITAL) for table in clinical}) > 1:
        raise InputError(f"{name}: old and new column names are mixed; download the tables anew, all at once")
    rows = pd.concat(clinical, ignore_index=True).fillna("")
    seen = [
        rows[["case", column]].set_axis(["case", "days"], axis=1) for column in rows if column in _LAST_SEEN
    ]
    cases, counts = _primary(rows)
    survival = _survival(cases, pd.concat([*seen, *follow_ups]) if seen or follow_ups else None, name)
    age, age_count = _ages(cases)
    table = pd.concat([cases, survival, age], axis=1)
    columns = {"case_id": "case", **{field: _column(cases, names) for field, names in _FIELDS.items()}}
    columns = {field: column for field, column in columns.items() if column} | {"age": "age in years"}
    return LabelSource(table, Columns(columns), name, {"OS": _OS}, slides, (*counts, *age_count))


def _column(table: pd.DataFrame, names: Sequence[str]) -> str:
    return next((name for name in names if name in table), "")


def _primary(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[Count, ...]]:
    """One row a case: the first given values among the rows of its primary diagnosis."""
    rank = pd.Series(2, index=rows.index)
    for worth, names, words in ((1, _CLASSIFICATION, ("primary",)), (0, _IS_PRIMARY, ("true", "yes"))):
        column = _column(rows, names)
        if column:
            rank = rank.where(~rows[column].str.lower().isin(words), worth)
    chosen = rows[rank == rank.groupby(rows["case"]).transform("min")]
    grouped = chosen.replace("", None).groupby("case", sort=False)
    cases = grouped.first().reset_index()
    cases = cases.astype(object).where(cases.notna(), "")
    others, repeats = len(rows) - len(chosen), len(chosen) - len(cases)
    parts = [
        *([f"{plural(others, 'row')} of other diagnoses than the primary"] if others else []),
        *([f"{plural(repeats, 'row')} more of the same diagnosis"] if repeats else []),
    ]
    text = "; ".join(parts)
    counts = [Count("rows of clinical.tsv to cases", len(rows), len(cases), text)]
    checked = {**_FIELDS, "vital_status": _VITAL, "days_to_death": _DEATH}
    fields = {column: field for field, names in checked.items() if (column := _column(chosen, names))}
    amounts = grouped[list(fields)].nunique()
    contradicted = amounts[(amounts > 1).any(axis=1)]
    if len(contradicted):
        text = "the primary diagnosis has several values of a column; the first in the file is taken"
        named = (f"{case}: {fields[row.idxmax()]}" for case, row in contradicted.iterrows())
        counts.append(
            Count("cases that contradict themselves", len(contradicted), len(contradicted), text, some(named))
        )
    return cases, tuple(counts)


def _survival(cases: pd.DataFrame, seen: pd.DataFrame | None, source: str) -> pd.DataFrame:
    """Days and vital status as text: of the dead the day of death, of the living the last follow-up."""
    vital = cases[_column(cases, _VITAL)]
    death = _column(cases, _DEATH)
    died = cases[death] if death else pd.Series("", index=cases.index)
    last = pd.Series(dtype=float)
    if seen is not None:
        days = seen[seen["days"] != ""]
        last = _numbers(days["days"], days["case"], source).groupby(days["case"].to_numpy()).max()
    alive = [f"{last[case]:.10g}" if case in last.index else "" for case in cases["case"]]
    time = np.where(vital.str.lower() == "dead", died, np.asarray(alive, object))
    return pd.DataFrame({_OS.time: time, _OS.status: vital}, index=cases.index, dtype=object)


def _numbers(texts: pd.Series, cases: pd.Series, source: str) -> pd.Series:
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.isna().any():
        row = int(np.argmax(numbers.isna().to_numpy()))
        raise InputError(
            f"{source}: case {cases.iloc[row]}: {texts.iloc[row]!r} is no number of days; download the table"
            " again"
        )
    return numbers.reset_index(drop=True)


def _ages(cases: pd.DataFrame) -> tuple[pd.Series, tuple[Count, ...]]:
    """Years as text: at the index date, else at diagnosis, which the GDC gives in days."""
    nothing = pd.Series("", index=cases.index)
    years = cases[_column(cases, _AGE)] if _column(cases, _AGE) else nothing
    days = cases[_column(cases, _AGE_IN_DAYS)] if _column(cases, _AGE_IN_DAYS) else nothing
    numbers = pd.to_numeric(days, errors="coerce") / _DAYS_PER_YEAR
    is_converted = (years == "") & numbers.notna()
    text = [
        f"{number:.2f}" if one else year
        for number, one, year in zip(numbers, is_converted, years, strict=True)
    ]
    age = pd.Series(text, index=cases.index, name="age in years", dtype=object)
    if not is_converted.any():
        return age, ()
    step = "ages from age_at_diagnosis"
    amount = int(is_converted.sum())
    rule = f"days are divided by {_DAYS_PER_YEAR} where age_at_index is missing"
    return age, (Count(step, amount, amount, rule, some(cases["case"][is_converted])),)
