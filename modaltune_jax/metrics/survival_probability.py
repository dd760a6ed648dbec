"""Survival metrics on predicted probabilities to be alive."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Integer, Shaped

from modaltune_jax.metrics.curves import kaplan_meier
from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.follow_up import Censoring, NotEstimableError, check_cases
from modaltune_jax.types import InputError


def integrated_brier(
    survival: Float[np.ndarray, "n m"],
    months: Float[np.ndarray, "m"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    train_time: Float[np.ndarray, "t"],
    train_event: Shaped[np.ndarray, "t"],
) -> Estimate:
    """Mean over months of the Brier score (Graf et al. 1999): lower is better.

    The Brier score at a month is the mean squared difference between the predicted probability to be alive
    and being so (1) or not (0). Cases censored before count nothing, and the others for them: deaths
    1 / G(death), cases alive 1 / G(month), G being the probability to be still followed. The mean is the
    integral by trapezia over the range of the months. 0 is perfect, 0.25 what a constant 0.5 gets.

    Args:
      survival: predicted probability to be alive at each of `months`.
      months: at least two, rising.
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).
      train_time, train_event: of the cases to estimate G from.

    Returns:
      The score with the numbers of cases and of deaths by the last month; not estimable without cases, with a
      month at which no case is left, or with a month or death beyond the training follow-up or where G is 0.

    Raises:
      InputError: a probability outside 0 to 1, months that do not rise, a time that is negative or not
        finite, an event that is neither 0 nor 1.
    """
    _check_probabilities(survival)
    check_cases(time, event)
    if len(months) < 2 or np.any(np.diff(months) <= 0):
        raise InputError(f"months are {months.tolist()}: give two or more, rising")
    num, num_events = len(time), int(np.sum(event.astype(bool) & (time <= months[-1])))
    if num == 0:
        return Estimate.missing("no case")
    try:
        by_case = integrated_brier_by_case(survival, months, time, event, Censoring(train_time, train_event))
    except NotEstimableError as error:
        return Estimate.missing(str(error), num, num_events)
    return Estimate(float(np.mean(by_case)), num, num_events)


def integrated_brier_by_case(
    survival: Float[np.ndarray, "n m"],
    months: Float[np.ndarray, "m"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    censoring: Censoring,
) -> Float[np.ndarray, "n"]:
    """What each case adds to `integrated_brier`, which is their mean.

    Raises:
      NotEstimableError: a month at which no case is left, or one beyond the follow-up that G is known for.
    """
    has_died, lives = event.astype(bool)[:, None] & (time[:, None] <= months), time[:, None] > months
    if not lives[:, -1].any():
        raise NotEstimableError(f"no case is followed beyond month {months[-1]:g}")
    followed = np.ones(len(time))
    rows = has_died[:, -1]
    followed[rows] = censoring.at(time[rows], "a death at month")
    weight = has_died / followed[:, None] + lives / censoring.at(months, "month")
    brier = weight * np.square(lives - survival)
    return np.trapezoid(brier, months, axis=1) / (months[-1] - months[0])


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Predicted and observed survival at a month, by groups of rising prediction.

    Attributes:
      month: the horizon.
      predicted: mean predicted probability to be alive.
      observed: Kaplan-Meier estimate; NaN where a group is not followed so long.
      low, high: of its 95 % interval.
      num: cases of each group.
      error: mean over cases of how far their group's observed survival is from its predicted one: 0 is
        perfect. Sampling alone makes it larger than 0.
    """

    month: float
    predicted: Float[np.ndarray, "g"]
    observed: Float[np.ndarray, "g"]
    low: Float[np.ndarray, "g"]
    high: Float[np.ndarray, "g"]
    num: Int[np.ndarray, "g"]
    error: Estimate


def calibration(
    survival_at: Float[np.ndarray, "n"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    month: float,
    num_groups: int,
) -> Calibration:
    """Compares predicted survival at a month with what happened.

    Cases are grouped at the quantiles of their predictions; equal predictions stay together, so there may be
    fewer groups than asked for. Kaplan-Meier counts the censored of each group.

    Args:
      survival_at: predicted probability to be alive at `month`.
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).
      month: the horizon.
      num_groups: at most so many groups.

    Returns:
      The groups; `error` is not estimable without cases, or if a group is not followed so long.

    Raises:
      InputError: a probability outside 0 to 1, a time that is negative or not finite, an event that is
        neither 0 nor 1.
    """
    _check_probabilities(survival_at[:, None])
    check_cases(time, event)
    group = _quantile_groups(survival_at, num_groups)
    members = [group == one for one in np.unique(group)]
    predicted = np.array([survival_at[rows].mean() for rows in members])
    seen = [kaplan_meier(time[rows], event[rows]).at(month) for rows in members]
    observed, low, high = np.array(seen).reshape(-1, 3).T
    num = np.array([rows.sum() for rows in members], int)
    error = _error(predicted, observed, num, time, event, month)
    return Calibration(month, predicted, observed, low, high, num, error)


def _error(
    predicted: np.ndarray,
    observed: np.ndarray,
    num: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    month: float,
) -> Estimate:
    num_events = int(np.sum(event.astype(bool) & (time <= month)))
    if len(num) == 0:
        return Estimate.missing("no case")
    unknown = int(np.isnan(observed).sum())
    if unknown:
        reason = f"{unknown} of {len(num)} groups are not followed until month {month:g}"
        return Estimate.missing(reason, len(time), num_events)
    return Estimate(float(np.average(np.abs(predicted - observed), weights=num)), len(time), num_events)


def _quantile_groups(values: np.ndarray, num_groups: int) -> Integer[np.ndarray, "n"]:
    if len(values) == 0:
        return np.zeros(0, int)
    edges = np.quantile(values, np.arange(1, num_groups) / num_groups)
    return np.searchsorted(edges, values, side="right")


def _check_probabilities(survival: np.ndarray) -> None:
    wrong = ~((survival >= 0) & (survival <= 1)).all(1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"case {row} has predicted survival {survival[row]}: probabilities lie within 0 to 1"
        )
