"""Curves and groups: Kaplan-Meier, risk groups, the log-rank test, ROC."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from modaltune_jax.metrics.classification import auroc
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.follow_up import check_cases
from modaltune_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class KaplanMeier:
    """Estimated survival, constant from each of `months` to the next.

    Attributes:
      months: 0, then every time at which a case dies or is censored, rising.
      survival: probability to live longer.
      low, high: of its interval (Greenwood's variance on the log-log scale), 1 before the first death and 0
        once nobody lives.
      num_censored: cases censored at that time.
      time: of all cases, rising.
    """

    months: Float[np.ndarray, "m"]
    survival: Float[np.ndarray, "m"]
    low: Float[np.ndarray, "m"]
    high: Float[np.ndarray, "m"]
    num_censored: Int[np.ndarray, "m"]
    time: Float[np.ndarray, "n"]

    def at(self, month: float) -> tuple[float, float, float]:
        """Survival, low and high; NaN after the last case was censored, for nothing is known then."""
        if month > self.months[-1] and self.survival[-1] > 0:
            return math.nan, math.nan, math.nan
        i = int(np.searchsorted(self.months, month, side="right")) - 1
        return float(self.survival[i]), float(self.low[i]), float(self.high[i])

    def num_at_risk(self, months: Float[np.ndarray, "k"]) -> Int[np.ndarray, "k"]:
        """Cases that are alive and followed just before each of `months`."""
        return len(self.time) - np.searchsorted(self.time, months, side="left")

    @property
    def median(self) -> float:
        """The first time by which half have died; NaN if the curve ends above one half."""
        below = self.survival <= 0.5
        return float(self.months[np.argmax(below)]) if below.any() else math.nan


def kaplan_meier(
    time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"], *, level: float = 0.95
) -> KaplanMeier:
    """The product-limit estimate of survival (Kaplan and Meier 1958); at a time of both, deaths come first.

    Examples:
      >>> curve = kaplan_meier(np.array([2.0, 5.0, 5.0, 9.0]), np.array([1, 1, 0, 0]))
      >>> curve.at(5.0)[0], curve.median, curve.num_at_risk(np.array([0.0, 5.0, 6.0]))
      (0.5, 5.0, array([4, 3, 1]))

    Args:
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).
      level: of the interval at each time; it is not a band for the whole curve.

    Returns:
      The curve; without cases, of its start alone.

    Raises:
      InputError: a time that is negative or not finite, an event that is neither 0 nor 1.
    """
    check_cases(time, event)
    one = np.ones(1)
    if len(time) == 0:
        return KaplanMeier(np.zeros(1), one, one, one, np.zeros(1, int), np.zeros(0))
    from sksurv.nonparametric import kaplan_meier_estimator

    event = event.astype(bool)
    months, survival, (low, high) = kaplan_meier_estimator(event, time, conf_level=level, conf_type="log-log")
    at = np.searchsorted(months, time[~event])
    num_censored = np.append(0, np.bincount(at, minlength=len(months)))
    return KaplanMeier(
        months=np.append(0.0, months),
        survival=np.append(1.0, survival),
        low=np.append(1.0, low),
        high=np.append(1.0, high),
        num_censored=num_censored,
        time=np.sort(time),
    )


def risk_cutoffs(
    train_risk: Float[np.ndarray, "t"], quantiles: Sequence[float] = (0.5,)
) -> Float[np.ndarray, "q"]:
    """Risks that part the groups, quantiles over training cases; one at the median parts low from high.

    Fixed on training cases: a cut-off chosen on the cases it is shown on makes curves part by chance.

    Raises:
      InputError: no training case, or a risk that is not finite.
    """
    if len(train_risk) == 0:
        raise InputError("no training case has a risk: cut-offs are fixed on training cases")
    if not np.isfinite(train_risk).all():
        row = int(np.argmin(np.isfinite(train_risk)))
        raise InputError(f"training case {row} has risk {train_risk[row]}: drop such cases")
    return np.quantile(train_risk, sorted(quantiles)).astype(np.float64)


def risk_groups(risk: Float[np.ndarray, "n"], cutoffs: Float[np.ndarray, "q"]) -> Integer[np.ndarray, "n"]:
    """0 for the lowest risks to q for the highest; a risk on a cut-off is in the lower group.

    Examples:
      >>> risk_groups(np.array([0.1, 0.5, 0.9]), risk_cutoffs(np.array([0.0, 0.5, 2.0])))
      array([0, 0, 1])
    """
    return np.searchsorted(cutoffs, risk, side="left")


class LogRank(NamedTuple):
    """Of the log-rank test.

    Attributes:
      statistic: chi-squared with `num_groups` - 1 degrees of freedom, NaN if not estimable.
      p: of no difference between the groups, NaN if not estimable.
      num_groups: groups that were compared.
      reason: why there is no test, or which groups it leaves out.
    """

    statistic: float
    p: float
    num_groups: int
    reason: str = ""


def log_rank(
    time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"], group: Integer[np.ndarray, "n"]
) -> LogRank:
    """Whether groups die at different rates (Mantel 1966); two-sided, for two or more groups.

    Groups of which nobody is followed until the first death tell nothing and are left out.

    Args:
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).
      group: of each case.

    Raises:
      InputError: a time that is negative or not finite, an event that is neither 0 nor 1.
    """
    check_cases(time, event)
    event = event.astype(bool)
    if not event.any():
        return LogRank(math.nan, math.nan, 0, "no death seen" if len(time) else "no case")
    first = time[event].min()
    rows = time >= first
    groups = np.unique(group[rows])
    left_out = sorted(set(group.tolist()) - set(groups.tolist()))
    reason = f"without group {', '.join(map(str, left_out))}" if left_out else ""
    if len(groups) < 2:
        return LogRank(math.nan, math.nan, len(groups), "one group only")
    if np.all(event[rows] & (time[rows] == first)):
        return LogRank(math.nan, math.nan, len(groups), "all die at one time")
    from sksurv.compare import compare_survival
    from sksurv.util import Surv

    statistic, p = compare_survival(Surv.from_arrays(event[rows], time[rows]), group[rows])
    return LogRank(float(statistic), float(p), len(groups), reason)


class RocCurve(NamedTuple):
    """Shares of both kinds of cases that are scored at or above each threshold.

    Attributes:
      false_positive: of the other cases, from 0 to 1; empty if the curve does not exist.
      true_positive: of the cases of the class.
      area: under the curve, or why there is none.
    """

    false_positive: Float[np.ndarray, "k"]
    true_positive: Float[np.ndarray, "k"]
    area: Estimate


def roc(is_class: Shaped[np.ndarray, "n"], scores: Float[np.ndarray, "n"]) -> RocCurve:
    """The ROC curve of one class against the rest; corners only, equal scores make a slope.

    Args:
      is_class: 1 for cases of the class, 0 for others (or bool).
      scores: higher for cases held to belong to it.

    Raises:
      InputError: a label that is neither 0 nor 1, or a score that is not finite.
    """
    labels = is_class.astype(np.int64)
    area = auroc(labels, np.stack([-scores, scores], axis=1))
    if not area.is_estimable:
        return RocCurve(np.zeros(0), np.zeros(0), area)
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(labels, scores)
    return RocCurve(false_positive, true_positive, area)
