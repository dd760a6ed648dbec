"""DeLong's method: intervals and tests of areas under ROC curves, without drawing cases."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Shaped

from modaltune_jax.metrics.intervals import Difference, Interval
from modaltune_jax.types import InputError


def delong_interval(
    is_class: Shaped[np.ndarray, "n"], scores: Float[np.ndarray, "n"], *, level: float = 0.95
) -> Interval:
    """Normal interval of one area under the ROC curve, cut off at 0 and 1 (DeLong et al. 1988).

    Args:
      is_class: 1 for cases of the class, 0 for others (or bool).
      scores: higher for cases held to belong to it.
      level: how often the interval covers the area of the population, in large samples.

    Returns:
      The interval; NaN with fewer than two cases of either kind, or with an area of 0 or 1, to which this
      method gives no width.

    Raises:
      InputError: a label that is neither 0 nor 1, or a score that is not finite.
    """
    _check(is_class, scores[None])
    areas, covariance = _areas(is_class.astype(bool), scores[None])
    if not covariance[0, 0] > 0:
        return Interval(math.nan, math.nan)
    half = _normal_quantile(level) * math.sqrt(covariance[0, 0])
    return Interval(max(float(areas[0]) - half, 0.0), min(float(areas[0]) + half, 1.0))


def delong_test(
    is_class: Shaped[np.ndarray, "n"],
    first: Float[np.ndarray, "n"],
    second: Float[np.ndarray, "n"],
    *,
    level: float = 0.95,
) -> Difference:
    """Difference of the areas of two models on the same cases (DeLong et al. 1988), with a two-sided p.

    It agrees with the paired bootstrap in large samples, and takes no draws. For areas of one class against
    the rest; of the mean over several classes, take `paired_bootstrap`.

    Args:
      is_class: 1 for cases of the class, 0 for others (or bool).
      first, second: scores of either model, higher for cases held to belong to it.
      level: of the interval.

    Returns:
      The difference; p is 1 for two models of the same order. No p without a variance: with fewer than two
      cases of either kind, or two areas of 0 or 1 that differ.

    Raises:
      InputError: a label that is neither 0 nor 1, or a score that is not finite.
    """
    from scipy.stats import norm

    scores = np.stack([first, second])
    _check(is_class, scores)
    areas, covariance = _areas(is_class.astype(bool), scores)
    value = float(areas[0] - areas[1])
    if np.isnan(covariance).any():
        reason = "fewer than two cases of the class or of the rest"
        return Difference(value, math.nan, math.nan, math.nan, reason)
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-12 * max(np.trace(covariance), 1e-12):  # rounding of models of the same order
        if abs(value) > 1e-12:
            return Difference(value, math.nan, math.nan, math.nan, "no variance")
        return Difference(0.0, 0.0, 0.0, 1.0)
    error = math.sqrt(variance)
    half = _normal_quantile(level) * error
    return Difference(value, value - half, value + half, float(2 * norm.sf(abs(value) / error)))


def _areas(
    is_class: np.ndarray, scores: Float[np.ndarray, "k n"]
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k k"]]:
    """Areas and their covariance, from how many of the others each case beats (by midranks, Sun and Xu 2014).

    NaN where there are too few cases.
    """
    from scipy.stats import rankdata

    num, num_rest = int(is_class.sum()), int((~is_class).sum())
    if min(num, num_rest) == 0:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    ranks = rankdata(scores, axis=1)
    beats = (ranks[:, is_class] - rankdata(scores[:, is_class], axis=1)) / num_rest
    beaten = 1.0 - (ranks[:, ~is_class] - rankdata(scores[:, ~is_class], axis=1)) / num
    areas = beats.mean(1)
    if min(num, num_rest) == 1:
        return areas, np.full((len(scores), len(scores)), np.nan)
    return areas, np.atleast_2d(np.cov(beats) / num + np.cov(beaten) / num_rest)


def _normal_quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1.0 + level) / 2.0))


def _check(is_class: np.ndarray, scores: Float[np.ndarray, "k n"]) -> None:
    for name, column, is_right in (
        ("label", is_class, np.isin(is_class, (0, 1))),
        ("score", scores.T, np.isfinite(scores).all(0)),
    ):
        if not is_right.all():
            row = int(np.argmin(is_right))
            raise InputError(f"case {row} has {name} {column[row]}: drop such cases or correct them")
