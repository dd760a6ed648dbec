"""Survival metrics on risks; a higher risk is worse for the patient."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.metrics.follow_up import Censoring, NotEstimableError, check_cases
from modaltune_jax.types import InputError


def harrell_c(
    risk: Float[np.ndarray, "n"], time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]
) -> Estimate:
    """Harrell's concordance index (Harrell et al. 1996): how often the higher risk dies first.

    Counted over comparable pairs: one case's death is seen, the other lives longer or is censored at that
    very time. Two deaths at one time are not comparable. Risks closer than 1e-8 are tied and count half.
    0.5 is chance, 1 perfect, 0 the reverse order. Only the order of risks matters, and the unit of time
    does not. What it estimates depends on the censoring: see `uno_c`.

    Args:
      risk: predicted risk, higher is worse.
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).

    Returns:
      The index with the numbers of cases and deaths; not estimable without a comparable pair.

    Raises:
      InputError: a risk or time that is not finite, a negative time, an event that is neither 0 nor 1.
    """
    check_cases(time, event, risk=risk)
    event = event.astype(bool)
    num, num_events = len(time), int(event.sum())
    if num_events == 0:
        return Estimate.missing("no death seen" if num else "no case", num)
    if not _is_any_comparable(time, event, event):
        return Estimate.missing("no comparable pair", num, num_events)
    from sksurv.metrics import concordance_index_censored

    return Estimate(float(concordance_index_censored(event, time, risk)[0]), num, num_events)


def uno_c(
    risk: Float[np.ndarray, "n"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    train_time: Float[np.ndarray, "t"],
    train_event: Shaped[np.ndarray, "t"],
    *,
    tau: float | None = None,
) -> Estimate:
    """Uno's concordance index (Uno et al. 2011): Harrell's, as if nobody had been censored before `tau`.

    A pair counts 1 / G², G being the probability that the earlier death could be seen at its time. So cohorts
    of different follow-up compare, where Harrell's index sees early deaths more and more as follow-up gets
    shorter. Pairs, ties and direction are those of `harrell_c`; without censoring they are equal.

    Args:
      risk: predicted risk, higher is worse.
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).
      train_time, train_event: of the cases to estimate G from.
      tau: months; only deaths before count. None counts all, which late deaths with huge weights make
        unstable, if it can be done at all.

    Returns:
      The index with the numbers of cases and of deaths that counted; not estimable without a comparable pair,
      with a death or `tau` beyond the training follow-up, or at a death where G is 0.

    Raises:
      InputError: a risk or time that is not finite, a negative time, an event that is neither 0 nor 1, or a
        `tau` that is not positive.
    """
    check_cases(time, event, risk=risk)
    event = event.astype(bool)
    try:
        counts = event & (uno_weights(time, event, train_time, train_event, tau=tau) > 0)
    except NotEstimableError as error:
        return Estimate.missing(str(error), len(time), int(event.sum()))
    num, num_events = len(time), int(counts.sum())
    if not _is_any_comparable(time, event, counts):
        return Estimate.missing("no comparable pair", num, num_events)
    from sksurv.metrics import concordance_index_ipcw
    from sksurv.util import Surv

    train, test = Surv.from_arrays(train_event.astype(bool), train_time), Surv.from_arrays(event, time)
    return Estimate(float(concordance_index_ipcw(train, test, risk, tau)[0]), num, num_events)


def uno_weights(
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    train_time: Float[np.ndarray, "t"],
    train_event: Shaped[np.ndarray, "t"],
    *,
    tau: float | None = None,
) -> Float[np.ndarray, "n"]:
    """1 / G² of the deaths that `uno_c` counts, 0 for all other cases.

    Raises:
      NotEstimableError: why there is no index.
      InputError: as of `uno_c`.
    """
    if tau is not None and not tau > 0:
        raise InputError(f"tau is {tau}: give the months within which deaths count")
    check_cases(time, event)
    censoring = Censoring(train_time, train_event)
    if not np.any(train_event):
        raise NotEstimableError("no death seen in training")
    if len(time) == 0:
        raise NotEstimableError("no case")
    if not np.any(event):
        raise NotEstimableError("no death seen")
    if tau is not None and tau > censoring.months[-1]:
        end = censoring.months[-1]
        raise NotEstimableError(f"tau {tau:g} is beyond the training follow-up of {end:g} months")
    rows = event.astype(bool) & (time < (np.inf if tau is None else tau))
    if not rows.any():
        raise NotEstimableError(f"no death before tau {tau:g}")
    weights = np.zeros(len(time))
    weights[rows] = censoring.at(time[rows], "a death at month") ** -2.0
    return weights


def time_dependent_auc(
    risk: Float[np.ndarray, "n"],
    time: Float[np.ndarray, "n"],
    event: Shaped[np.ndarray, "n"],
    train_time: Float[np.ndarray, "t"],
    train_event: Shaped[np.ndarray, "t"],
    months: Float[np.ndarray, "m"],
) -> list[Estimate]:
    """Cumulative/dynamic AUC (Uno et al. 2007; Hung and Chiang 2010) by month.

    How often a case that has died by then has the higher risk than a case known to live longer. Cases
    censored before are in neither group; deaths count 1 / G for them, G being the probability to be still
    followed. Risks closer than 1e-8 are tied and count half. 0.5 is chance, 1 perfect.

    Args:
      risk: predicted risk, higher is worse.
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).
      train_time, train_event: of the cases to estimate G from.
      months: horizons, in any order.

    Returns:
      One a month, with the number of cases in either group and of deaths; not estimable if a group is empty,
      or at a death beyond the training follow-up or where G is 0.

    Raises:
      InputError: a risk or time that is not finite, a negative time, an event that is neither 0 nor 1.
    """
    check_cases(time, event, risk=risk)
    event = event.astype(bool)
    return [_auc_at(month, risk, time, event, train_time, train_event) for month in months.tolist()]


def _auc_at(
    month: float,
    risk: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
) -> Estimate:
    has_died, lives = event & (time <= month), time > month
    num, num_events = int((has_died | lives).sum()), int(has_died.sum())
    reason = ""
    try:
        censoring = Censoring(train_time, train_event)
        if not np.any(train_event):
            reason = "no death seen in training"
        elif len(time) == 0:
            reason = "no case"
        elif num_events == 0:
            reason = f"no death by month {month:g}"
        elif not lives.any():
            reason = f"no case is followed beyond month {month:g}"
        else:
            censoring.at(time[has_died], "a death at month")
    except NotEstimableError as error:
        reason = str(error)
    if reason:
        return Estimate.missing(reason, num, num_events)
    from sksurv.metrics import cumulative_dynamic_auc
    from sksurv.util import Surv

    # Deaths after the month are those of cases that live, and need no weight.
    train, test = Surv.from_arrays(train_event.astype(bool), train_time), Surv.from_arrays(has_died, time)
    area = cumulative_dynamic_auc(train, test, risk, [month])[0][0]
    return Estimate(float(area), num, num_events)


def _is_any_comparable(time: np.ndarray, event: np.ndarray, counts: np.ndarray) -> bool:
    """Whether some case outlives the first of the deaths that count, or is censored at its time."""
    if not counts.any():
        return False
    first = time[counts].min()
    return bool(np.any((time > first) | ((time == first) & ~event)))
