"""How far a metric would move with other cases: bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer, Shaped

Score = Callable[[Integer[np.ndarray, "n"]], float]
"""Of the cases at the given positions, 0 to n - 1 with repetitions; NaN where it cannot be estimated."""
BatchedScore = Callable[[Integer[np.ndarray, "draws n"]], Float[np.ndarray, "draws"]]
"""The same of many draws at once."""

MIN_SHARE = 0.5
"""Share of draws that must be estimable: an interval of fewer would be one of the lucky draws."""


class Interval(NamedTuple):
    """From `low` to `high`, NaN if it cannot be estimated."""

    low: float
    high: float


class Difference(NamedTuple):
    """Of two models on the same cases, the first less the second.

    Attributes:
      value: the difference of the metrics, NaN if it cannot be estimated.
      low, high: of its interval.
      p: two-sided, of no difference.
      reason: why there is no value, interval or p.
    """

    value: float
    low: float
    high: float
    p: float
    reason: str = ""


def draw_cases(
    num_cases: int, num_draws: int, *, strata: Shaped[np.ndarray, "n"] | None = None, seed: int = 0
) -> Integer[np.ndarray, "{num_draws} {num_cases}"]:
    """Positions of cases drawn with replacement, a row a draw.

    Args:
      num_cases: n.
      num_draws: number of draws.
      strata: of each case; every draw has as many cases of each stratum as there are.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    if strata is None:
        return rng.integers(max(num_cases, 1), size=(num_draws, num_cases))
    rows = np.empty((num_draws, num_cases), np.int64)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        rows[:, members] = rng.choice(members, size=(num_draws, len(members)))
    return rows


def bootstrap(
    score: Score | BatchedScore,
    num_cases: int,
    *,
    strata: Shaped[np.ndarray, "n"] | None = None,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
    is_batched: bool = False,
) -> Interval:
    """Percentile bootstrap over cases (Efron & Tibshirani 1993): `score` on cases drawn with replacement.

    Cases that belong together are scored together: to ask how far the mean over several models would move,
    let `score` average them on the same draw.

    Examples:
      >>> values = np.arange(50.0)
      >>> bootstrap(lambda rows: values[rows].mean(), 50)
      Interval(low=20.3995, high=28.44)

    Args:
      score: of the cases of a draw. Draws that cannot be estimated are left out; if they are more than half,
        there is no interval.
      num_cases: n.
      strata: of each case, such as its class or event; draws keep the size of each stratum, so that rare
        classes and few deaths stay estimable. Intervals get a little too narrow: docs/metrics.md has numbers.
      level: share of the draws within the interval.
      num_draws: number of draws.
      seed: of the draws.
      is_batched: `score` takes all draws at once, `[draws, n]` to `[draws]`, as `concordance_of_draws` does.
    """
    rows = draw_cases(num_cases, num_draws, strata=strata, seed=seed)
    return percentiles(_scores(score, rows, is_batched), level)


def paired_bootstrap(
    first: Score | BatchedScore,
    second: Score | BatchedScore,
    num_cases: int,
    *,
    strata: Shaped[np.ndarray, "n"] | None = None,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
    is_batched: bool = False,
) -> Difference:
    """The difference of two models on the same cases, both scored on the same draws.

    What makes a draw hard for one model makes it hard for the other, so the difference is known better than
    either value, and overlapping intervals of two models do not mean that they are alike.

    p is twice the share of draws in which the difference is on the rarer side of 0 or at it, the difference
    itself counted as a draw (Davison and Hinkley 1997): at least 2 / (num_draws + 1), and below 1 - `level`
    where the interval excludes 0, up to rounding by the number of draws.

    Args:
      first, second: score of either model on the cases of a draw, as for `bootstrap`.
      num_cases, strata, level, num_draws, seed, is_batched: as for `bootstrap`.
    """
    everyone = np.arange(num_cases)[None]
    value = float((_scores(first, everyone, is_batched) - _scores(second, everyone, is_batched))[0])
    if np.isnan(value):
        return Difference(np.nan, np.nan, np.nan, np.nan, "a model cannot be scored on these cases")
    rows = draw_cases(num_cases, num_draws, strata=strata, seed=seed)
    differences = _scores(first, rows, is_batched) - _scores(second, rows, is_batched)
    low, high = percentiles(differences, level)
    if np.isnan(low):
        return Difference(value, np.nan, np.nan, np.nan, "most draws cannot be estimated")
    num_estimable = int(np.sum(~np.isnan(differences)))
    rarer = min(int(np.sum(differences <= 0)), int(np.sum(differences >= 0)))
    return Difference(value, low, high, min(2 * (rarer + 1) / (num_estimable + 1), 1.0))


def _scores(
    score: Score | BatchedScore, rows: Integer[np.ndarray, "draws n"], is_batched: bool
) -> Float[np.ndarray, "draws"]:
    if rows.shape[1] == 0:
        return np.full(len(rows), np.nan)
    return np.asarray(score(rows) if is_batched else [score(row) for row in rows], np.float64)


def percentiles(scores: Float[np.ndarray, "draws"], level: float) -> Interval:
    """The interval of bootstrap scores, without those that are NaN; none if these are more than half."""
    estimable = scores[~np.isnan(scores)]
    if len(estimable) == 0 or len(estimable) < MIN_SHARE * len(scores):
        return Interval(np.nan, np.nan)
    low, high = np.quantile(estimable, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high))
