"""Clinical variables that are the label under another name."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from modaltune_jax.inputs.counts import some
from modaltune_jax.inspection.leaks.leak import Leak
from modaltune_jax.inspection.leaks.separation import FEWEST, auroc

_PURE = 0.995
_SEPARATED = 0.999
_CORRELATED = 0.99
_MIXED = 0.95
"""Share of the largest label above which nothing can be said of a category."""
_FEWEST_TIMES = 20


def variable_leaks(variables: pd.DataFrame, cases: pd.DataFrame) -> list[Leak]:
    """Variables that tell the class, the event or the time of nearly every case.

    - class, event: each value of a category goes with one label (values of a single case say nothing), a
      number separates the labels at AUROC 0.999, or it is known of one label and missing of the other.
    - time: |correlation| above 0.99, of the values or of their ranks.

    Labels with fewer than 10 cases are not judged. What defines the label, such as the histology behind the
    classes, is found too: it must not be an input either. A variable that tells the label of most cases but
    not of all is not found.

    Args:
      variables: indexed by case id; numeric columns are numbers, others categories; NaN or None missing.
      cases: indexed by case id, with columns site, subtype, event (-1 unknown) and time.
    """
    ids = [id for id in variables.index if id in cases.index]
    table, cases = variables.loc[ids], cases.loc[ids]
    told: dict[str, list[str]] = {"class": [], "event": [], "time": []}
    for name, column in table.items():
        for site, rows in cases.groupby("site"):
            values = column.loc[rows.index]
            where = f"{name} in {site}"
            for what, label in (("class", rows["subtype"]), ("event", rows["event"])):
                told[what] += [f"{where} {how}" for how in _tells(values, label.to_numpy(int))]
        told["time"] += [f"{name} {how}" for how in _tells_time(column, cases["time"].to_numpy(float))]
    return [
        Leak(
            f"variable-tells-{what}",
            "error",
            f"clinical variables that are the {what} in other words: {len(found)}; a model that reads them"
            " predicts nothing, leave them out of the variables",
            some(found),
        )
        for what, found in told.items()
        if found
    ]


def _tells(column: pd.Series, label: Int[np.ndarray, "b"]) -> Iterator[str]:
    """How a variable gives the label away; nothing if it does not."""
    known = label >= 0
    column, label = column[known], label[known]
    labels, counts = np.unique(label, return_counts=True)
    if (counts >= FEWEST).sum() < 2:
        return
    missing = column.isna().to_numpy()
    if FEWEST <= missing.sum() <= len(missing) - FEWEST and _purity(missing.astype(str), label) >= _PURE:
        yield "by being missing"
    column, label = column[~missing], label[~missing]
    if not pd.api.types.is_numeric_dtype(column):
        if _purity(column.to_numpy(str), label) >= _PURE:
            yield "by its values"
        return
    values = column.to_numpy(float)
    for one in labels:
        inside, outside = values[label == one], values[label != one]
        if min(len(inside), len(outside)) >= FEWEST and auroc(inside, outside) >= _SEPARATED:
            yield "by its size"
            return


def _purity(values: np.ndarray, label: Int[np.ndarray, "b"]) -> float:
    """Share of cases whose label is the most frequent one of their value; 0 where that would say little."""
    table = pd.crosstab(values, label)
    table = table[table.sum(axis=1) > 1]
    total = table.to_numpy().sum()
    judged = (table.sum(axis=0) >= FEWEST).sum() > 1 and total >= len(label) / 2
    if not judged or table.sum(axis=0).max() > _MIXED * total:
        return 0.0
    return float(table.max(axis=1).sum() / total)


def _tells_time(column: pd.Series, time: Float[np.ndarray, "b"]) -> Iterator[str]:
    from scipy.stats import rankdata

    if not pd.api.types.is_numeric_dtype(column):
        return
    values = column.to_numpy(float)
    known = np.isfinite(values) & np.isfinite(time)
    values, time = values[known], time[known]
    if len(values) < _FEWEST_TIMES or np.ptp(values) == 0 or np.ptp(time) == 0:
        return
    pairs = (values, time), (rankdata(values), rankdata(time))
    if max(abs(np.corrcoef(one, other)[0, 1]) for one, other in pairs) > _CORRELATED:
        yield "by its size"
