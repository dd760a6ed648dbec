"""Follow-up: whether it makes sense, and how likely it was to be still under it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from modaltune_jax.types import InputError


class NotEstimableError(ValueError):
    """A metric does not exist for these cases; the message says why."""


def check_cases(
    time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"], whose: str = "case", **values: np.ndarray
) -> None:
    """Checks that `values`, one a case, are finite, times neither negative nor infinite, events 0 or 1.

    Raises:
      InputError: names the first case that fails.
    """
    wrong = {name: ~np.isfinite(value) for name, value in values.items()}
    wrong |= {"time": ~(np.isfinite(time) & (time >= 0)), "event": ~np.isin(event, (0, 1))}
    columns = {**values, "time": time, "event": event}
    for name, rows in wrong.items():
        if rows.any():
            row = int(np.argmax(rows))
            raise InputError(
                f"{whose} {row} has {name} {columns[name][row]}: drop such cases or correct the table"
            )


class Censoring:
    """Probability to be still followed at a time, from cases of known follow-up.

    Kaplan-Meier with the roles of death and censoring exchanged, so it needs censoring that does not depend
    on the risk. At a time of both, deaths leave before the censored. Metrics divide by it (inverse
    probability of censoring weights): a death that is seen stands for those at its time that were not.

    Args:
      time: months to death or last follow-up.
      event: 1 death seen, 0 censored (or bool).

    Raises:
      NotEstimableError: no case.
      InputError: a time that is negative or not finite, an event that is neither 0 nor 1.
    """

    def __init__(self, time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]):
        check_cases(time, event, "training case")
        if len(time) == 0:
            raise NotEstimableError("no training case")
        from sksurv.nonparametric import kaplan_meier_estimator

        self.months, self.followed = kaplan_meier_estimator(event.astype(bool), time, reverse=True)

    def at(self, months: Float[np.ndarray, "m"], what: str) -> Float[np.ndarray, "m"]:
        """The probability, always positive.

        Raises:
          NotEstimableError: `what`, the reader's word for what lies at `months`, is where nobody is followed.
        """
        end = self.months[-1]
        if np.any(months > end):
            raise NotEstimableError(
                f"{what} {months.max():g} is beyond the training follow-up of {end:g} months"
            )
        followed = np.append(1.0, self.followed)[np.searchsorted(self.months, months, side="right")]
        if np.any(followed <= 0):
            raise NotEstimableError(
                f"{what} {months[followed <= 0].min():g} is where the last training cases are censored"
            )
        return followed
