"""Survival metrics on risks; a higher risk is worse for the patient."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from modaltune_jax.metrics.estimate import Estimate
from modaltune_jax.types import InputError


def harrell_c(
    risk: Float[np.ndarray, "n"], time: Float[np.ndarray, "n"], event: Shaped[np.ndarray, "n"]
) -> Estimate:
    """Harrell's concordance index (Harrell et al. 1996): how often the higher risk dies first.

    Counted over comparable pairs: one case's death is seen, the other lives longer or is censored at that
    very time. Two deaths at one time are not comparable. Risks closer than 1e-8 are tied and count half.
    0.5 is chance, 1 perfect, 0 the reverse order. Only the order of risks matters, and the unit of time
    does not.

    Args:
      risk: predicted risk, higher is worse.
      time: months to death or last follow-up, at least 0.
      event: 1 death seen, 0 censored (or bool).

    Returns:
      The index with the numbers of cases and deaths; not estimable without a comparable pair.

    Raises:
      InputError: a risk or time that is not finite, a negative time, an event that is neither 0 nor 1.
    """
    _check(risk, time, event)
    event = event.astype(bool)
    num, num_events = len(time), int(event.sum())
    if num_events == 0:
        return Estimate.missing("no death seen" if num else "no case", num)
    first = time[event].min()
    if not np.any((time > first) | ((time == first) & ~event)):
        return Estimate.missing("no comparable pair", num, num_events)
    from sksurv.metrics import concordance_index_censored

    return Estimate(float(concordance_index_censored(event, time, risk)[0]), num, num_events)


def _check(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> None:
    wrong = {
        "risk": ~np.isfinite(risk),
        "time": ~(np.isfinite(time) & (time >= 0)),
        "event": ~np.isin(event, (0, 1)),
    }
    values = {"risk": risk, "time": time, "event": event}
    for name, rows in wrong.items():
        if rows.any():
            row = int(np.argmax(rows))
            raise InputError(
                f"case {row} has {name} {values[name][row]}: drop such cases or correct the table"
            )
