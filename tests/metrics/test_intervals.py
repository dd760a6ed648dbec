"""Bootstrap intervals against normal theory and by their meaning."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from modaltune_jax.metrics.classification import auroc, balanced_accuracy
from modaltune_jax.metrics.concordance import concordance_of_draws
from modaltune_jax.metrics.intervals import bootstrap, draw_cases, paired_bootstrap
from modaltune_jax.metrics.survival import harrell_c

VALUES = np.random.default_rng(0).normal(size=80)


def test_a_mean_has_the_interval_of_normal_theory():
    interval = bootstrap(lambda rows: float(VALUES[rows].mean()), 80)
    error = VALUES.std() / math.sqrt(80)
    # The 2.5 % quantile of 1 000 draws is itself known to 0.085 standard errors of the mean.
    expected = (VALUES.mean() - 1.96 * error, VALUES.mean() + 1.96 * error)
    np.testing.assert_allclose(interval, expected, atol=4 * 0.085 * error)


@pytest.mark.parametrize("is_stratified", [False, True])
def test_harrell_is_covered_as_often_as_it_says(is_stratified):
    """The error of 300 sets is 1.3 %."""
    truth = concordance_of_draws(*_patients(np.random.default_rng(9), 4000), np.arange(4000)[None])[0]
    covered = 0
    for seed in range(300):
        risk, time, event = _patients(np.random.default_rng(seed), 120)
        low, high = bootstrap(
            lambda rows, cases=(risk, time, event): concordance_of_draws(*cases, rows),
            120,
            strata=event if is_stratified else None,
            num_draws=400,
            seed=1000 + seed,
            is_batched=True,
        )
        covered += low <= truth <= high
    assert 0.93 <= covered / 300 <= 0.97


def _patients(rng, num):
    risk = rng.normal(size=num)
    death, end = rng.exponential(20 * np.exp(-risk)), rng.exponential(40.0, num)
    return risk, np.minimum(death, end), death <= end


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


def test_draws_keep_the_size_of_each_stratum():
    strata = np.array([2, 0, 2, 1, 2, 1])
    rows = draw_cases(6, 50, strata=strata)
    assert rows.shape == (50, 6)
    np.testing.assert_array_equal(np.sort(strata[rows], axis=1), np.tile(np.sort(strata), (50, 1)))
    assert set(rows.ravel()) == set(range(6))


def test_draws_without_strata_do_not():
    strata = np.array([0, 1, 1])
    assert len(set((strata[draw_cases(3, 50)] == 0).sum(1))) > 1


def test_strata_keep_a_rare_class_estimable():
    labels = np.array([0] * 30 + [1])
    scores = np.random.default_rng(0).random((31, 2))
    score = lambda rows: auroc(labels[rows], scores[rows]).value  # noqa: E731
    missing = sum(math.isnan(score(rows)) for rows in draw_cases(31, 100))
    assert missing > 20
    assert not any(math.isnan(score(rows)) for rows in draw_cases(31, 100, strata=labels))


def test_no_interval_of_the_lucky_draws():
    """A death among five cases, at the end of many draws: most have no comparable pair."""
    time, event = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0, 0, 0, 1, 0])
    score = lambda rows: harrell_c(np.ones(5), time[rows], event[rows]).value  # noqa: E731
    assert 0 < sum(math.isnan(score(rows)) for rows in draw_cases(5, 200)) < 200
    assert math.isnan(bootstrap(score, 5, num_draws=200).low)


def test_batched_is_the_same_in_one_call():
    singly = bootstrap(lambda rows: float(VALUES[rows].mean()), 80)
    assert bootstrap(lambda rows: VALUES[rows].mean(1), 80, is_batched=True) == pytest.approx(singly)


def test_a_paired_difference_has_the_p_of_a_paired_t_test():
    rng = np.random.default_rng(3)
    first = VALUES + rng.normal(0.12, 0.5, 80)
    difference = paired_bootstrap(
        lambda rows: first[rows].mean(1),
        lambda rows: VALUES[rows].mean(1),
        80,
        num_draws=4000,
        is_batched=True,
    )
    expected = ttest_rel(first, VALUES)
    assert difference.value == pytest.approx(np.mean(first - VALUES))
    assert 0.005 < expected.pvalue < 0.5
    assert difference.p == pytest.approx(expected.pvalue, abs=0.03)
    np.testing.assert_allclose(
        (difference.low, difference.high), expected.confidence_interval(), atol=0.1 * np.std(first - VALUES)
    )


def test_pairing_sees_what_two_intervals_do_not():
    """Two models with the same hard cases: the intervals overlap, the difference is beyond doubt."""
    first = VALUES + 0.05
    low, high = bootstrap(lambda rows: float(VALUES[rows].mean()), 80)
    assert low < first.mean() < high
    difference = paired_bootstrap(lambda r: float(first[r].mean()), lambda r: float(VALUES[r].mean()), 80)
    assert difference.low == pytest.approx(0.05)
    assert difference.p == pytest.approx(2 / 1001)


def test_p_is_uniform_where_there_is_no_difference():
    significant = 0
    for seed in range(300):
        first, second = np.random.default_rng(seed).normal(size=(2, 50))
        difference = paired_bootstrap(
            lambda rows, x=first: x[rows].mean(1),
            lambda rows, x=second: x[rows].mean(1),
            50,
            num_draws=400,
            seed=1000 + seed,
            is_batched=True,
        )
        significant += difference.p < 0.05
    assert 0.02 < significant / 300 < 0.09


def test_swapping_the_models_turns_the_sign():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 60)
    scores = [
        lambda rows, q=q: balanced_accuracy(labels[rows], q[rows]).value for q in rng.integers(0, 2, (2, 60))
    ]
    there, back = (
        paired_bootstrap(*scores, 60, strata=labels),
        paired_bootstrap(*scores[::-1], 60, strata=labels),
    )
    assert (there.value, there.p) == (-back.value, back.p)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@pytest.mark.parametrize(
    ("first", "second", "num_cases", "expected"),
    [
        pytest.param(lambda rows: 0.7, lambda rows: 0.7, 5, (0.0, 0.0, 0.0, 1.0, ""), id="the same model"),
        pytest.param(
            lambda rows: math.nan,
            lambda rows: 0.7,
            5,
            (math.nan, math.nan, math.nan, math.nan, "a model cannot be scored on these cases"),
            id="not estimable",
        ),
        pytest.param(
            lambda rows: 1.0,
            lambda rows: 0.7,
            0,
            (math.nan, math.nan, math.nan, math.nan, "a model cannot be scored on these cases"),
            id="no case",
        ),
        pytest.param(
            lambda rows: 0.75 if len(set(rows)) == 5 else math.nan,
            lambda rows: 0.5,
            5,
            (0.25, math.nan, math.nan, math.nan, "most draws cannot be estimated"),
            id="few draws",
        ),
    ],
)
def test_paired_edges(first, second, num_cases, expected):
    difference = paired_bootstrap(first, second, num_cases, num_draws=100)
    assert difference.reason == expected[-1]
    np.testing.assert_array_equal(difference[:-1], expected[:-1])
