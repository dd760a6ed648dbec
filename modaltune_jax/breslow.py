"""From risks to survival: the baseline hazard of a Cox model by Breslow's estimator."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from modaltune_jax.ridge_cox import FitError


class Breslow(NamedTuple):
    """Cumulative baseline hazard, a step function; logarithms, because risks may be far apart.

    Attributes:
      time: months at which a death was seen in training, increasing.
      log_hazard: logarithm of the cumulative hazard from each of these months on, at risk 0.
      last_time: the longest follow-up in training, beyond which nothing is known.
    """

    time: Float[np.ndarray, "d"]
    log_hazard: Float[np.ndarray, "d"]
    last_time: float

    def survival(
        self, risk: Float[np.ndarray, "n"], months: Float[np.ndarray, "m"]
    ) -> Float[np.ndarray, "n m"]:
        """S(t) = exp(-exp(risk) H(t)); 1 before the first death, NaN for months < 0 or beyond `last_time`."""
        steps = np.searchsorted(self.time, months, side="right")
        log_hazard = np.append(-np.inf, self.log_hazard)[steps]
        with np.errstate(over="ignore"):  # an infinite hazard is survival 0
            survival = np.exp(-np.exp(risk.astype(np.float64)[:, None] + log_hazard))
        return np.where((months >= 0.0) & (months <= self.last_time), survival, np.nan)

    def median(self, risk: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        """First month at which survival is 0.5 or less; NaN (not estimable) where it stays above."""
        is_reached = risk.astype(np.float64)[:, None] + self.log_hazard >= math.log(math.log(2.0))
        return np.where(is_reached.any(axis=1), self.time[np.argmax(is_reached, axis=1)], np.nan)


def fit_breslow(
    risk: Float[np.ndarray, "n"], time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]
) -> Breslow:
    """Breslow's estimator (Breslow 1974): deaths at a time, over the sum of exp(risk) of who is at risk then.

    The sums are cumulative ones of logarithms, from the longest time down. scikit-survival's
    `BreslowEstimator` subtracts who leaves from the sum of all instead, which leaves rounding noise, and
    a survival that rises, once the largest risks leave others behind that are smaller by 30 or more.

    Args:
      risk: log hazard ratio of the training cases, finite.
      time: months to death or last follow-up.
      event: 1 death seen, 0 censored (or bool).

    Raises:
      FitError: no death seen.
    """
    if not np.any(event):
        raise FitError("no death seen in training")
    longest_first = np.argsort(-time, kind="stable")
    log_at_risk = np.logaddexp.accumulate(risk[longest_first].astype(np.float64))
    deaths, num_deaths = np.unique(time[event.astype(bool)], return_counts=True)
    num_at_risk = len(time) - np.searchsorted(np.sort(time), deaths, side="left")
    log_hazard = np.logaddexp.accumulate(np.log(num_deaths) - log_at_risk[num_at_risk - 1])
    return Breslow(deaths.astype(np.float64), log_hazard, float(time.max()))
