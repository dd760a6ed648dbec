"""Scores of predictions by split and site: the rows of one table for probes and heads alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Integer, Shaped

from modaltune_jax.metrics.classification import balanced_accuracy
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.survival import harrell_c
from modaltune_jax.types import TASKS, InputError

COLUMNS = (
    *("split", "site", "target", "task", "method", "metric"),
    *("value", "num", "num_events", "reason"),
)
"""Of a table of scores. What cannot be estimated has value NaN and a reason."""

TARGET_TASKS = {"subtype": "diagnosis", "survival": "survival", "site": "general"}
"""The task whose embedding serves each target."""

POOLED, OVERALL = "pooled", "overall"
"""In place of a site: the cases of all sites together; the headline of a target, the mean over sites."""

_UNKNOWN = {"subtype": -1, "event": -1, "time": math.nan}

PROBE = "probe"
"""The method of predictions by a probe; heads have names of their own."""


def task_of(target: str, num_tasks: int) -> str:
    """The task whose embedding serves a target; an only one, as of a baseline, serves all."""
    return TARGET_TASKS[target] if num_tasks > 1 else TASKS[0]


def score_name(target: str, method: str) -> str:
    """What a score is called where a checkpoint is picked by it: "survival", or "survival:risk" of a head."""
    return target if method == PROBE else f"{target}:{method}"


class Classes(NamedTuple):
    """Classes to predict.

    Attributes:
      labels: of every case, -1 if unknown.
    """

    labels: Integer[np.ndarray, "n"]
    metric: str = "balanced_accuracy"

    def known(self) -> Bool[np.ndarray, "n"]:
        return self.labels >= 0

    def score(self, predicted: Float[np.ndarray, "m"], rows: Integer[np.ndarray, "m"]) -> Estimate:
        """Of predicted classes of the cases in `rows`."""
        return balanced_accuracy(self.labels[rows], predicted.astype(np.int64))


class Survival(NamedTuple):
    """Survival to predict.

    Attributes:
      time: months, NaN if unknown.
      event: 1 death seen, 0 censored, -1 unknown.
    """

    time: Float[np.ndarray, "n"]
    event: Shaped[np.ndarray, "n"]
    metric: str = "harrell_c"

    def known(self) -> Bool[np.ndarray, "n"]:
        return has_survival(self.time, self.event)

    def score(self, predicted: Float[np.ndarray, "m"], rows: Integer[np.ndarray, "m"]) -> Estimate:
        """Of predicted risks of the cases in `rows`, higher is worse."""
        return harrell_c(predicted, self.time[rows], self.event[rows])


Truth = Classes | Survival

Predictions = Float[np.ndarray, "n"] | str
"""A class or risk for every case, NaN where there is none; or why there are no predictions at all."""


def truth_of(target: str, table: pd.DataFrame, sites: Sequence[str]) -> Truth:
    """What is to be predicted of every case; subtypes of different sites are different classes.

    Args:
      target: a key of `TARGET_TASKS`.
      table: columns site, subtype, time and event, as `check_table` wants them.
      sites: order of the sites, the classes of the target "site".
    """
    if target == "survival":
        return Survival(table["time"].to_numpy(np.float64), table["event"].to_numpy())
    site = site_index(table, sites)
    if target == "site":
        return Classes(site)
    subtype = table["subtype"].to_numpy(np.int64)
    return Classes(np.where(subtype >= 0, site * (subtype.max(initial=0) + 1) + subtype, -1))


class ClassProbabilities(NamedTuple):
    """Probabilities of the classes that a method tells apart.

    Attributes:
      classes: increasing, as in `Classes.labels`.
      values: a row a case, NaN where there are none.
    """

    classes: Integer[np.ndarray, "k"]
    values: Float[np.ndarray, "n k"]


class Predicted(NamedTuple):
    """What one method predicts of one target.

    Attributes:
      target: a key of `TARGET_TASKS`.
      task: the embedding that predicts.
      method: how it does.
      truth: what is to be predicted.
      cases: rows of the table whose truth is known, by site and `POOLED` as from `cases_by_site`.
      predictions: for the same keys; all cases may be predicted, those of `cases` are scored.
      probabilities: of classes, for those of the keys that there are any for.
    """

    target: str
    task: str
    method: str
    truth: Truth
    cases: Mapping[str, Integer[np.ndarray, "m"]]
    predictions: Mapping[str, Predictions]
    probabilities: Mapping[str, ClassProbabilities] = MappingProxyType({})

    def score(self, site: str, rows: Integer[np.ndarray, "m"]) -> Estimate:
        """The metric on some rows, of those predictions that are made for `site` or `POOLED`."""
        predicted = self.predictions[site]
        if isinstance(predicted, str):
            return Estimate.missing(predicted, len(rows))
        if len(rows) == 0:
            return Estimate.missing("no case")
        if not np.isfinite(predicted[rows]).all():
            return Estimate.missing("predictions are not finite", len(rows))
        return self.truth.score(predicted[rows], rows)


def judged_cases(table: pd.DataFrame, modalities: Sequence[str]) -> pd.DataFrame:
    """The table of cases, in which those that a model is shown nothing of have no labels.

    A model that is shown expression alone can say nothing of a case without: no probe is fitted on it, and it
    is not scored. Clinical values count as known of every case.

    Args:
      table: columns num_tiles, has_expression, subtype, time and event.
      modalities: what the model is shown.
    """
    is_seen = np.full(len(table), "clinical" in modalities)
    if "slides" in modalities:
        is_seen |= (table["num_tiles"] > 0).to_numpy()
    if "expression" in modalities:
        is_seen |= table["has_expression"].to_numpy(bool)
    seen = pd.Series(is_seen, table.index)
    return table.assign(**{name: table[name].where(seen, none) for name, none in _UNKNOWN.items()})


def cases_by_site(
    target: str, truth: Truth, table: pd.DataFrame, sites: Sequence[str]
) -> dict[str, Integer[np.ndarray, "m"]]:
    """Rows of the cases of known truth by site and for `POOLED`; for the target "site", `OVERALL` alone."""
    site = table["site"].to_numpy()
    everywhere = np.flatnonzero(truth.known() & np.isin(site, list(sites)))
    if target == "site":
        return {OVERALL: everywhere}
    return {name: everywhere[site[everywhere] == name] for name in sites} | {POOLED: everywhere}


def score_table(predicted: Iterable[Predicted], table: pd.DataFrame, splits: Sequence[str]) -> pd.DataFrame:
    """Scores predictions on `splits`.

    Args:
      predicted: of every target and method.
      table: one row a case; of its columns only split is read.
      splits: splits to score.

    Returns:
      `COLUMNS`: for each target and method a row a split for every key of `Predicted.cases`, and for the mean
      over sites, `OVERALL`.
    """
    split_of = table["split"].to_numpy()
    rows = []
    for one in predicted:
        estimates = {
            (split, site): one.score(site, cases[split_of[cases] == split])
            for site, cases in one.cases.items()
            for split in splits
        }
        if OVERALL not in one.cases:
            for split in splits:
                sites = [site for site in one.cases if site != POOLED]
                estimates[split, OVERALL] = _mean({site: estimates[split, site] for site in sites})
        common = {"target": one.target, "task": one.task, "method": one.method, "metric": one.truth.metric}
        rows += [
            {"split": split, "site": site, **common, **dataclasses.asdict(estimate)}
            for (split, site), estimate in estimates.items()
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _mean(per_site: dict[str, Estimate]) -> Estimate:
    """Mean over the sites that could be estimated; the reason names the others."""
    good = [estimate for estimate in per_site.values() if estimate.is_estimable]
    missing = [site for site, estimate in per_site.items() if not estimate.is_estimable]
    value = math.fsum(estimate.value for estimate in good) / len(good) if good else math.nan
    return Estimate(
        value,
        sum(estimate.num for estimate in good),
        sum(estimate.num_events for estimate in good),
        f"without {', '.join(missing)}" if missing else "",
    )


def has_survival(time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Cases of known time and event."""
    return np.isfinite(time) & (event >= 0)


def site_index(table: pd.DataFrame, sites: Sequence[str]) -> Integer[np.ndarray, "n"]:
    """Position of each case's site in `sites`, -1 for another site."""
    return pd.Index(sites).get_indexer(table["site"])


def check_table(table: pd.DataFrame, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Checks the table of cases and that every named array has one row a case.

    Raises:
      InputError: a missing column, or another number of rows.
    """
    missing = sorted({"split", "site", "subtype", "time", "event"} - set(table.columns))
    if missing:
        raise InputError(f"the table of cases lacks column(s) {', '.join(missing)}")
    for name, array in arrays:
        if len(array) != len(table):
            raise InputError(f"{len(array)} rows of {name} for {len(table)} cases: give one row per case")
