"""Breslow's estimator by hand, against scikit-survival, and where risks are far apart."""

import numpy as np
import pytest
from sksurv.linear_model.coxph import BreslowEstimator

from modaltune_jax.breslow import fit_breslow
from modaltune_jax.ridge_cox import FitError


def draw(seed, num=80, scale=1.0):
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=num) * scale
    time = np.ceil(rng.exponential(np.exp(-risk / scale)) * 20)
    event = rng.random(num) < 0.5
    assert len(np.unique(time[event])) < event.sum(), "tied deaths"
    return risk, time, event


@pytest.mark.parametrize(
    ("risk", "time", "event", "deaths", "hazard"),
    [
        pytest.param([2, 1, 1], [5, 6, 8], [1, 0, 1], [5, 8], [1 / 4, 1 / 4 + 1], id="one after the other"),
        pytest.param([2, 1, 3], [5, 5, 8], [1, 1, 0], [5], [2 / 6], id="two deaths at one time"),
        pytest.param([2, 1, 3], [5, 5, 5], [0, 1, 0], [5], [1 / 6], id="censored then is at risk then"),
        pytest.param(
            [2, 1, 4], [9, 0, 3], [1, 1, 0], [0, 9], [1 / 7, 1 / 7 + 1 / 2], id="death at 0, unsorted"
        ),
    ],
)
def test_cumulative_hazard_by_hand(risk, time, event, deaths, hazard):
    baseline = fit_breslow(np.log(np.array(risk, float)), np.array(time, float), np.array(event))
    np.testing.assert_array_equal(baseline.time, deaths)
    np.testing.assert_allclose(np.exp(baseline.log_hazard), hazard, rtol=1e-12)
    assert baseline.last_time == max(time)


def test_survival_by_hand():
    baseline = fit_breslow(np.log([2.0, 1.0, 1.0]), np.array([5.0, 6.0, 8.0]), np.array([1, 0, 1]))
    months = np.array([-1.0, 0.0, 4.9, 5.0, 7.9, 8.0, 8.1])
    expected = [np.nan, 1.0, 1.0, np.exp(-0.5), np.exp(-0.5), np.exp(-2.5), np.nan]
    np.testing.assert_allclose(baseline.survival(np.log([2.0]), months), [expected], rtol=1e-12)


@pytest.mark.parametrize(
    ("hazard_ratio", "median"),
    [
        pytest.param(4.0, 5.0, id="at the first death"),
        pytest.param(2.0, 8.0, id="at the second"),
        pytest.param(0.5, np.nan, id="not reached"),
        pytest.param(np.nan, np.nan, id="unknown risk"),
    ],
)
def test_median_by_hand(hazard_ratio, median):
    baseline = fit_breslow(np.log([2.0, 1.0, 1.0]), np.array([5.0, 6.0, 8.0]), np.array([1, 0, 1]))
    np.testing.assert_array_equal(baseline.median(np.log([hazard_ratio])), [median])


@pytest.mark.parametrize("seed", range(3))
def test_equals_sksurv(seed):
    risk, time, event = draw(seed)
    baseline = fit_breslow(risk, time, event)
    theirs = BreslowEstimator().fit(risk, event, time)
    # From the first death on: before it, theirs goes on with the value at the first time of all.
    months = np.linspace(time[event].min(), time.max(), 50)
    expected = [curve(months) for curve in theirs.get_survival_function(risk)]
    np.testing.assert_allclose(baseline.survival(risk, months), expected, rtol=1e-9)


def test_only_differences_of_risks_matter():
    risk, time, event = draw(3)
    months = np.linspace(0.0, time.max(), 20)
    expected = fit_breslow(risk, time, event).survival(risk, months)
    moved = fit_breslow(risk + 300.0, time, event).survival(risk + 300.0, months)
    np.testing.assert_allclose(moved, expected, rtol=1e-9)


def test_risks_far_apart_leave_survival_falling_from_1_to_0():
    risk, time, event = draw(4, scale=60.0)
    assert np.ptp(risk) > 200.0
    survival = fit_breslow(risk, time, event).survival(risk, np.linspace(0.0, time.max(), 200))
    assert np.isfinite(survival).all()
    assert (np.diff(survival, axis=1) <= 0.0).all()
    assert (survival[:, 0] == 1.0).all()
    assert survival.min() >= 0.0


def test_no_death_has_no_baseline():
    with pytest.raises(FitError, match="no death seen in training"):
        fit_breslow(np.zeros(3), np.arange(3.0), np.zeros(3, int))
