"""Bootstrap intervals against normal theory and by their meaning."""

import math

import numpy as np
import pytest

from modaltune_jax.metrics.intervals import bootstrap

VALUES = np.random.default_rng(0).normal(size=80)


def test_a_mean_has_the_interval_of_normal_theory():
    interval = bootstrap(lambda rows: float(VALUES[rows].mean()), 80)
    error = VALUES.std() / math.sqrt(80)
    # The 2.5 % quantile of 1 000 draws is itself known to 0.085 standard errors of the mean.
    expected = (VALUES.mean() - 1.96 * error, VALUES.mean() + 1.96 * error)
    np.testing.assert_allclose(interval, expected, atol=4 * 0.085 * error)


def test_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        sample = rng.normal(size=60)
        low, high = bootstrap(lambda rows, x=sample: float(x[rows].mean()), 60, level=0.8, num_draws=200)
        covered += low <= 0.0 <= high
    assert 0.7 < covered / 200 < 0.9


def test_a_seed_gives_the_same_draws_and_another_seed_others():
    score = lambda rows: float(VALUES[rows].mean())  # noqa: E731
    assert bootstrap(score, 80) == bootstrap(score, 80)
    assert bootstrap(score, 80) != bootstrap(score, 80, seed=1)


def test_a_higher_level_is_wider():
    score = lambda rows: float(VALUES[rows].mean())  # noqa: E731
    narrow, wide = bootstrap(score, 80, level=0.5), bootstrap(score, 80, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("score", "num_cases", "expected"),
    [
        pytest.param(lambda rows: 0.7, 5, (0.7, 0.7), id="what does not vary"),
        pytest.param(lambda rows: math.nan, 5, (math.nan, math.nan), id="never estimable"),
        pytest.param(lambda rows: 1.0, 0, (math.nan, math.nan), id="no case"),
        pytest.param(lambda rows: 0.7 if rows[0] else math.nan, 5, (0.7, 0.7), id="draws without estimate"),
    ],
)
def test_edges(score, num_cases, expected):
    np.testing.assert_array_equal(bootstrap(score, num_cases), expected)
