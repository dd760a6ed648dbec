"""The values of a table: mean over seeds, and how far they would move with other cases."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer

from modaltune_jax.evaluation.class_draws import (
    balanced_accuracy_of_draws,
    confusion_of_draws,
    times_drawn,
)
from modaltune_jax.metrics.classification import balanced_accuracy
from modaltune_jax.metrics.concordance import concordance_of_draws
from modaltune_jax.metrics.intervals import draw_cases, percentiles
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.reporting.published import OVERALL
from modaltune_jax.reporting.rows import Run
from modaltune_jax.scores import has_survival
from modaltune_jax.types import InputError

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Cell:
    """A metric of one row at one site.

    Attributes:
      values: `[s]` by seed, NaN where it cannot be estimated.
      draws: `[k]` mean over seeds on each bootstrap draw of the cases; the draws of a site are the same in
        all rows that have the same cases.
      cases: ids of the cases, in order.
      num_events: deaths among them.
      reason: why there is no value.
    """

    values: Float[np.ndarray, "s"]
    draws: Float[np.ndarray, "k"]
    cases: tuple[str, ...]
    num_events: int
    reason: str = ""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values)) if len(self.values) else np.nan

    @property
    def sd(self) -> float:
        """Over seeds; NaN for one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else np.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Of the mean over seeds, by cases; NaN if fewer than half of the draws can be estimated."""
        return percentiles(self.draws, LEVEL)


def make_cell(runs: Sequence[Run], target: str, head: str, site: str, split: str, num_draws: int) -> Cell:
    """The cell of runs that differ by their seeds.

    Cases are drawn with replacement, those of a class among themselves, so that a rare one is in every draw.
    All seeds are scored on the same draw.

    Raises:
      InputError: the runs have other cases.
    """
    tables = [_cases(run, target, head, site, split) for run in runs]
    first = tables[0]
    for run, table in zip(runs, tables, strict=True):
        if list(table["case_id"]) != list(first["case_id"]):
            raise InputError(
                f"{runs[0].folder} and {run.folder} have other {split} cases at {site}: seeds of one row "
                "must share their cases; for folds use `modaltune_jax.evaluate`"
            )
    cases, num_events = tuple(first["case_id"]), int((first["event"] == 1).sum())
    reasons = [str(table["reason"].iloc[0]) for table in tables if table["predicted"].isna().any()]
    if reasons or not cases:
        return Cell(
            np.full(len(runs), np.nan),
            np.full(num_draws, np.nan),
            cases,
            num_events,
            (reasons or ["no case"])[0],
        )
    strata = first["label"].to_numpy() if target == "subtype" else None
    rows = draw_cases(len(cases), num_draws, strata=strata, seed=zlib.crc32(site.encode()))
    values, draws = zip(*(_score(table, target, rows) for table in tables), strict=True)
    return Cell(np.array(values), np.mean(draws, axis=0), cases, num_events)


def overall(cells: Mapping[str, Cell], sites: Sequence[str]) -> Cell:
    """The mean over sites; without value where a site has none."""
    missing = [site for site in sites if site not in cells or np.isnan(cells[site].mean)]
    if missing:
        return Cell(np.array([]), np.array([]), (), 0, f"without {', '.join(missing)}")
    chosen = [cells[site] for site in sites]
    if len({len(cell.values) for cell in chosen}) > 1:
        return Cell(np.array([]), np.array([]), (), 0, "other numbers of seeds by site")
    return Cell(
        np.mean([cell.values for cell in chosen], axis=0),
        np.mean([cell.draws for cell in chosen], axis=0),
        tuple(case for cell in chosen for case in cell.cases),
        sum(cell.num_events for cell in chosen),
    )


@dataclasses.dataclass(frozen=True)
class Difference:
    """One row less another on the same cases and draws, with its interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """The interval excludes 0."""
        return self.low > 0 or self.high < 0


def difference(one: Cell, other: Cell) -> Difference | None:
    """None where a value is missing or the cases are others."""
    if np.isnan(one.mean) or np.isnan(other.mean) or one.cases != other.cases:
        return None
    return Difference(one.mean - other.mean, *percentiles(one.draws - other.draws, LEVEL))


def cells_of_row(
    places: Mapping[str, Sequence[Run]],
    target: str,
    head: str,
    sites: Sequence[str],
    *,
    split: str,
    num_draws: int,
) -> dict[str, Cell]:
    """Every cell of a row, with that of "overall"."""
    cells = {
        site: make_cell(places[site], target, head, site, split, num_draws)
        for site in sites
        if site in places
    }
    return cells | {OVERALL: overall(cells, sites)}


def _cases(run: Run, target: str, head: str, site: str, split: str) -> pd.DataFrame:
    """Cases of known truth, in order of their ids."""
    scores = run.scores
    chosen = (scores["target"] == target) & (scores["method"] == head)
    chosen &= (scores["scope"] == site) & (scores["split"] == split)
    table = scores[chosen].sort_values("case_id")
    if target == "subtype":
        return table[table["label"] >= 0]
    return table[has_survival(table["time"].to_numpy(np.float64), table["event"].to_numpy(np.float64))]


def _score(
    table: pd.DataFrame, target: str, rows: Integer[np.ndarray, "k n"]
) -> tuple[float, Float[np.ndarray, "k"]]:
    predicted = table["predicted"].to_numpy(np.float64)
    if target == "subtype":
        labels, classes = table["label"].to_numpy(np.int64), predicted.astype(np.int64)
        num_classes = 1 + int(max(labels.max(), classes.max()))
        confusion = confusion_of_draws(labels, classes, num_classes, times_drawn(rows, len(labels)))
        return balanced_accuracy(labels, classes).value, balanced_accuracy_of_draws(confusion)
    time, event = table["time"].to_numpy(np.float64), table["event"].to_numpy(np.int64)
    return harrell_c(predicted, time, event).value, concordance_of_draws(predicted, time, event, rows)
