"""Results of one run or several as one table: mean, spread over runs, intervals over cases."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from modaltune_jax.evaluation.groups import Group, Key, mean_of_draws, scored
from modaltune_jax.evaluation.measures import Bootstrap, Measured
from modaltune_jax.metrics.intervals import percentiles
from modaltune_jax.scores import OVERALL

KEYS = tuple(field.name for field in dataclasses.fields(Key))
COLUMNS = (*KEYS, "metric", "value", "sd", "low", "high", "num_runs", "num", "num_events", "reason")
"""Of the table: `value` is the mean over runs, `sd` their spread, NaN for one run."""


def table_of_runs(runs: Sequence[Sequence[Group]], bootstrap: Bootstrap) -> pd.DataFrame:
    """One row a group and metric.

    Runs that score the same cases (seeds) get the interval of their mean: each draw of cases is the same for
    all runs. Runs of other cases (folds) get none here, see `out_of_fold`; numbers are of the largest.

    Args:
      runs: groups of each run.
      bootstrap: level of the intervals.
    """
    by_key: dict[Key, list[Group]] = {}
    for groups in runs:
        for group in groups:
            by_key.setdefault(group.key, []).append(group)
    rows = []
    for key, groups in by_key.items():
        for metric in dict.fromkeys(one.metric for group in groups for one in group.measured):
            rows.append({**dataclasses.asdict(key), "metric": metric, **_row(groups, metric, bootstrap)})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def per_run(runs: Sequence[Sequence[Group]], names: Sequence[str], bootstrap: Bootstrap) -> pd.DataFrame:
    """The same without averaging, with a column run."""
    tables = [
        table_of_runs([groups], bootstrap).assign(run=name) for name, groups in zip(names, runs, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)[["run", *COLUMNS]].drop(columns=["sd", "num_runs"])


def out_of_fold(runs: Sequence[Sequence[Group]], bootstrap: Bootstrap) -> list[Group]:
    """Of groups whose cases no two runs share, the cases of all folds scored together.

    Risks of Cox models of different folds are taken as they are: log hazard ratios to the mean training case.

    Returns:
      A group with the split "test out of fold" for every "test"; none for means over sites.
    """
    if len(runs) < 2:
        return []
    pooled = []
    for group in runs[0]:
        same = [other for groups in runs for other in groups if other.key == group.key]
        is_mean = group.key.site == OVERALL and group.key.target != "site"
        if is_mean or len(same) < len(runs) or not group.rows.size or not _are_disjoint(same):
            continue
        rows = pd.concat([other.rows for other in same], ignore_index=True)
        train = pd.concat([other.train for other in same], ignore_index=True).drop_duplicates("case_id")
        key = dataclasses.replace(group.key, split=f"{group.key.split} out of fold")
        pooled.append(scored(key, rows, train, bootstrap, is_main_only=bool(key.variable)))
    return pooled


def _are_disjoint(groups: Sequence[Group]) -> bool:
    cases = [set(group.rows["case_id"]) for group in groups]
    return sum(map(len, cases)) == len(set().union(*cases))


def _row(groups: Sequence[Group], metric: str, bootstrap: Bootstrap) -> dict[str, float | int | str]:
    found = [one for group in groups for one in group.measured if one.metric == metric]
    good = [one for one in found if one.estimate.is_estimable]
    reason = next((one.estimate.reason for one in found if one.estimate.reason), "")
    if good and len(good) < len(groups):
        reason = f"{len(good)} of {len(groups)} runs: {reason}"
    values = [one.estimate.value for one in good]
    low, high = _interval(groups, good, bootstrap)
    if math.isnan(low) and len(good) > 1 and len({group.cases for group in groups}) > 1:
        reason = reason or "no interval: the runs score different cases"
    return {
        "value": float(np.mean(values)) if good else math.nan,
        "sd": float(np.std(values, ddof=1)) if len(good) > 1 else math.nan,
        "low": low,
        "high": high,
        "num_runs": len(good),
        "num": max((one.estimate.num for one in found), default=0),
        "num_events": max((one.estimate.num_events for one in found), default=0),
        "reason": reason,
    }


def _interval(groups: Sequence[Group], good: Sequence[Measured], bootstrap: Bootstrap) -> tuple[float, float]:
    if len({group.cases for group in groups}) > 1 or len(good) < len(groups):
        return math.nan, math.nan
    low, high = percentiles(mean_of_draws([one.draws for one in good]), bootstrap.level)
    return low, high
