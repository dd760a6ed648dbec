"""Kaplan-Meier, risk groups, log-rank and ROC against lifelines and scikit-learn, and their edges."""

import math

import lifelines
import numpy as np
import pytest
from lifelines.statistics import multivariate_logrank_test
from sklearn.metrics import roc_auc_score

from modaltune_jax.metrics.curves import kaplan_meier, log_rank, risk_cutoffs, risk_groups, roc
from modaltune_jax.types import InputError


def draw(seed, num=120, ties=False):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, num)
    time, event = rng.exponential(20.0 + 10.0 * group), rng.random(num) < 0.5
    return (np.round(time) if ties else time), event, group


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_kaplan_meier_equals_lifelines(seed, ties):
    time, event, _ = draw(seed, ties=ties)
    curve = kaplan_meier(time, event)
    fitter = lifelines.KaplanMeierFitter().fit(time, event)
    months = np.linspace(0.0, time.max(), 40)
    seen = np.array([curve.at(month) for month in months])
    np.testing.assert_allclose(seen[:, 0], fitter.survival_function_at_times(months), atol=1e-12)
    bounds = fitter.confidence_interval_.to_numpy()
    rows = np.searchsorted(fitter.timeline, months, side="right") - 1
    lives = seen[:, 0] > 0
    np.testing.assert_allclose(seen[lives, 1:], bounds[rows][lives], atol=1e-9)
    assert curve.median == fitter.median_survival_time_
    at_risk = [np.sum(time >= month) for month in months]
    np.testing.assert_array_equal(curve.num_at_risk(months), at_risk)
    assert curve.num_censored.sum() == np.sum(~event)


@pytest.mark.parametrize(
    ("time", "event", "month", "expected"),
    [
        pytest.param([], [], 0.0, 1.0, id="no case, at the start"),
        pytest.param([], [], 1.0, math.nan, id="no case, later"),
        pytest.param([3, 5], [0, 0], 4.0, 1.0, id="no death"),
        pytest.param([3, 5], [1, 0], 5.0, 0.5, id="at the last follow-up"),
        pytest.param([3, 5], [1, 0], 5.1, math.nan, id="after the last follow-up"),
        pytest.param([3, 5], [1, 1], 99.0, 0.0, id="after all have died"),
        pytest.param([0, 5], [1, 0], 0.0, 0.5, id="death at time zero"),
        pytest.param([3, 3], [1, 0], 3.0, 0.5, id="death and censoring at one time"),
    ],
)
def test_survival_at(time, event, month, expected):
    curve = kaplan_meier(np.array(time, float), np.array(event, int))
    np.testing.assert_equal(curve.at(month)[0], expected)


def test_no_median_of_a_curve_above_one_half():
    assert math.isnan(kaplan_meier(np.array([1.0, 2.0, 3.0]), np.array([1, 0, 0])).median)


def test_a_higher_level_is_wider():
    time, event, _ = draw(3)
    narrow, wide = (
        kaplan_meier(time, event, level=0.5).at(20.0),
        kaplan_meier(time, event, level=0.99).at(20.0),
    )
    assert wide[1] < narrow[1] < narrow[2] < wide[2]


def test_groups_are_parted_where_training_says():
    cutoffs = risk_cutoffs(np.array([3.0, 1.0, 2.0]))
    assert cutoffs.tolist() == [2.0]
    assert risk_groups(np.array([9.0, 2.0, 2.1, -5.0]), cutoffs).tolist() == [1, 0, 1, 0]


def test_several_quantiles_in_any_order():
    cutoffs = risk_cutoffs(np.arange(5.0), (0.75, 0.25))
    assert cutoffs.tolist() == [1.0, 3.0]
    assert risk_groups(np.array([0.5, 2.0, 8.0]), cutoffs).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("risk", "message"),
    [
        pytest.param([], "no training case", id="empty"),
        pytest.param([0.1, math.nan], "training case 1 has risk nan", id="NaN"),
    ],
)
def test_cutoffs_of_bad_risks(risk, message):
    with pytest.raises(InputError, match=message):
        risk_cutoffs(np.array(risk, float))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_groups", [2, 3])
def test_log_rank_equals_lifelines(num_groups, ties):
    time, event, group = draw(num_groups, ties=ties)
    group %= num_groups
    result = log_rank(time, event, group)
    expected = multivariate_logrank_test(time, group, event)
    assert result.statistic == pytest.approx(expected.test_statistic)
    assert result.p == pytest.approx(expected.p_value)
    assert (result.num_groups, result.reason) == (num_groups, "")


def test_a_group_that_left_before_the_first_death_is_left_out():
    time, event, group = draw(4)
    early = (np.append(time + 2, [1.0, 1.5]), np.append(event, [False] * 2), np.append(group, [7, 7]))
    result = log_rank(*early)
    assert result.reason == "without group 7"
    assert result[:3] == log_rank(time + 2, event, group)[:3]


@pytest.mark.parametrize(
    ("time", "event", "group", "reason"),
    [
        pytest.param([], [], [], "no case", id="empty"),
        pytest.param([1, 2], [0, 0], [0, 1], "no death seen", id="no death"),
        pytest.param([1, 2], [1, 1], [0, 0], "one group only", id="one group"),
        pytest.param([1, 2, 3], [0, 1, 1], [0, 1, 1], "one group only", id="one group at the first death"),
        pytest.param([2, 2], [1, 1], [0, 1], "all die at one time", id="all die at once"),
    ],
)
def test_log_rank_not_estimable(time, event, group, reason):
    result = log_rank(np.array(time, float), np.array(event, int), np.array(group, int))
    assert math.isnan(result.p)
    assert result.reason == reason


@pytest.mark.parametrize("ties", [False, True])
def test_roc_has_the_area_under_its_points(ties):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.round(labels + rng.normal(size=60), 0 if ties else 12)
    curve = roc(labels, scores)
    area = np.trapezoid(curve.true_positive, curve.false_positive)
    assert area == pytest.approx(curve.area.value)
    assert area == pytest.approx(roc_auc_score(labels, scores))
    assert (curve.false_positive[0], curve.true_positive[0]) == (0.0, 0.0)
    assert (curve.false_positive[-1], curve.true_positive[-1]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [pytest.param([], "no case", id="empty"), pytest.param([1, 1], "one class only", id="one class")],
)
def test_no_roc(labels, reason):
    curve = roc(np.array(labels, int), np.arange(float(len(labels))))
    assert (len(curve.false_positive), curve.area.reason) == (0, reason)
