"""Survival probabilities beside the risks of case scores."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modaltune_jax.breslow import fit_breslow
from modaltune_jax.scores import has_survival

MONTHS = (12.0, 36.0, 60.0)
"""Horizons of everything that is asked at a time."""

_COX = ("probe", "risk")
"""Methods whose risk is a log hazard ratio."""


def survival_columns() -> tuple[str, ...]:
    """survival_12m, ... for `MONTHS`: the probability to live that long."""
    return tuple(f"survival_{month:g}m" for month in MONTHS)


def with_survival(scores: pd.DataFrame, predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """Case scores with `survival_columns`, NaN where there are none.

    Risks of Cox models get the baseline hazard of the training cases of their scope (`fit_breslow`). A risk
    head that was trained to rank has no scale, which its calibration shows. Hazards are probabilities.

    Args:
      scores: of `case_scores`, with the training cases among them.
      predictions: as of `predictions.predict`, for the survival of the hazard head; None without.
    """
    columns = list(survival_columns())
    scores = scores.assign(**dict.fromkeys(columns, np.nan))
    survival = scores[scores["target"] == "survival"]
    for (method, _), rows in survival.groupby(["method", "scope"], sort=False):
        if method in _COX:
            values = _by_breslow(rows)
        elif predictions is not None and set(columns) <= set(predictions.columns):
            values = predictions.set_index("case_id")[columns].reindex(rows["case_id"]).to_numpy(np.float64)
        else:
            continue
        scores.loc[rows.index, columns] = values
    return scores


def _by_breslow(rows: pd.DataFrame) -> np.ndarray:
    risk, time = rows["predicted"].to_numpy(np.float64), rows["time"].to_numpy(np.float64)
    event = rows["event"].to_numpy(np.int64)
    train = (rows["split"] == "train").to_numpy() & has_survival(time, event) & np.isfinite(risk)
    if not np.any(event[train]):
        return np.full((len(rows), len(MONTHS)), np.nan)
    baseline = fit_breslow(risk[train], time[train], event[train])
    return baseline.survival(risk, np.asarray(MONTHS))
