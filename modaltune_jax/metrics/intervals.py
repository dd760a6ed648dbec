"""How far a metric would move with other cases: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer


class Interval(NamedTuple):
    """From `low` to `high`, NaN if it cannot be estimated."""

    low: float
    high: float


def bootstrap(
    score: Callable[[Integer[np.ndarray, "n"]], float],
    num_cases: int,
    *,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over cases (Efron & Tibshirani 1993): `score` on cases drawn with replacement.

    Cases that belong together are scored together: to ask how far the mean over several models would move,
    let `score` average them on the same draw.

    Args:
      score: of the cases at the given positions, 0 to n - 1 with repetitions; NaN where it cannot be
        estimated on these, which leaves the draw out.
      num_cases: n.
      level: share of the draws within the interval.
      num_draws: number of draws.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    scores = np.array(
        [score(rng.integers(num_cases, size=num_cases)) for _ in range(num_draws if num_cases else 0)]
    )
    scores = scores[~np.isnan(scores)]
    if scores.size == 0:
        return Interval(np.nan, np.nan)
    low, high = np.quantile(scores, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high))
