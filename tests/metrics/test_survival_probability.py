"""Integrated Brier score and calibration against scikit-survival and lifelines, and their edges."""

import math

import lifelines
import numpy as np
import pytest
from sksurv.metrics import integrated_brier_score
from sksurv.util import Surv

from modaltune_jax.metrics.survival_probability import calibration, integrated_brier
from modaltune_jax.types import InputError

MONTHS = np.array([3.0, 6.0, 12.0, 20.0])


def draw(seed, num=200, ties=False):
    """True hazards, what happened, and the true probabilities to be alive at MONTHS."""
    rng = np.random.default_rng(seed)
    hazard = np.exp(rng.normal(size=num)) / 30
    death, end = rng.exponential(1 / hazard), rng.exponential(40.0, num)
    time, event = np.minimum(death, end), death <= end
    if ties:
        time = np.round(time)
    return np.exp(-hazard[:, None] * MONTHS), time, event


def draw_train(seed, ties=False):
    _, time, event = draw(seed + 100, ties=ties)
    return np.append(time, 1e3), np.append(event, False)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_brier_equals_sksurv(seed, ties):
    survival, time, event = draw(seed, ties=ties)
    train_time, train_event = draw_train(seed, ties)
    estimate = integrated_brier(survival, MONTHS, time, event, train_time, train_event)
    train, test = Surv.from_arrays(train_event, train_time), Surv.from_arrays(event, time)
    assert estimate.value == pytest.approx(integrated_brier_score(train, test, survival, MONTHS), abs=1e-12)
    assert (estimate.num, estimate.num_events) == (200, np.sum(event & (time <= 20)))


TRAIN = (np.array([2.0, 5.0, 18.0, 30.0]), np.array([1, 0, 1, 0]))


@pytest.mark.parametrize(
    ("survival", "value"),
    [
        pytest.param([[1, 0, 0, 0], [1, 1, 1, 1]], 0.0, id="perfect"),
        pytest.param([[0, 1, 1, 1], [0, 0, 0, 0]], 1.0, id="always wrong"),
        pytest.param([[0.5] * 4] * 2, 0.25, id="a coin"),
    ],
)
def test_brier_by_hand(survival, value):
    train = (np.array([50.0]), np.array([1]))  # nobody is censored
    time, event = np.array([4.0, 25.0]), np.array([1, 0])
    assert integrated_brier(np.array(survival, float), MONTHS, time, event, *train).value == value


def test_months_before_the_first_case_is_lost_are_no_trouble():
    early = np.array([0.5, 1.0, 2.0])
    time, event = np.array([4.0, 25.0]), np.array([1, 0])
    assert integrated_brier(np.full((2, 3), 0.9), early, time, event, *TRAIN).value == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("time", "event", "train", "reason"),
    [
        pytest.param([], [], TRAIN, "no case", id="empty"),
        pytest.param([4, 20], [1, 0], TRAIN, "no case is followed beyond month 20", id="beyond follow-up"),
        pytest.param(
            [4, 25],
            [1, 0],
            (TRAIN[0] / 2, TRAIN[1]),
            "month 20 is beyond the training follow-up of 15 months",
            id="beyond the training follow-up",
        ),
        pytest.param(
            [4, 25],
            [1, 0],
            (np.array([5.0, 20.0]), np.array([1, 0])),
            "month 20 is where the last training cases are censored",
            id="censoring survival 0",
        ),
        pytest.param([4, 25], [1, 0], (np.zeros(0), np.zeros(0)), "no training case", id="no training case"),
    ],
)
def test_brier_not_estimable(time, event, train, reason):
    survival = np.full((len(time), 4), 0.5)
    estimate = integrated_brier(survival, MONTHS, np.array(time, float), np.array(event, int), *train)
    assert math.isnan(estimate.value)
    assert (estimate.num, estimate.reason) == (len(time), reason)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_no_probability(value):
    survival = np.array([[0.5] * 4, [0.5, 0.5, 0.5, value]])
    with pytest.raises(InputError, match="case 1 has predicted survival"):
        integrated_brier(survival, MONTHS, np.ones(2), np.ones(2), *TRAIN)


@pytest.mark.parametrize("months", [[3.0], [3.0, 3.0], [6.0, 3.0]])
def test_months_must_rise(months):
    with pytest.raises(InputError, match="give two or more, rising"):
        integrated_brier(np.full((2, len(months)), 0.5), np.array(months), np.ones(2), np.ones(2), *TRAIN)


def test_calibration_equals_lifelines_by_group():
    survival, time, event = draw(4)
    result = calibration(survival[:, 2], time, event, 12.0, 4)
    assert result.num.tolist() == [50] * 4
    order = np.argsort(survival[:, 2]).reshape(4, 50)
    for i, rows in enumerate(order):
        fitter = lifelines.KaplanMeierFitter().fit(time[rows], event[rows])
        assert result.predicted[i] == pytest.approx(survival[rows, 2].mean())
        assert result.observed[i] == pytest.approx(fitter.predict(12.0))
    assert np.all(result.low < result.observed)
    assert np.all(result.observed < result.high)
    expected = np.mean(np.abs(result.predicted - result.observed))
    assert result.error.value == pytest.approx(expected)
    assert (result.error.num, result.error.num_events) == (200, np.sum(event & (time <= 12)))


def test_true_probabilities_are_calibrated_and_others_not():
    survival, time, event = draw(5, num=4000)
    right = calibration(survival[:, 2], time, event, 12.0, 5).error.value
    wrong = calibration(survival[:, 2] ** 3, time, event, 12.0, 5).error.value
    assert right < 0.03
    assert wrong > 0.2


def test_equal_predictions_share_a_group():
    _, time, event = draw(6)
    prediction = np.where(np.arange(200) < 150, 0.4, 0.8)
    result = calibration(prediction, time, event, 12.0, 10)
    assert result.num.tolist() == [150, 50]
    np.testing.assert_allclose(result.predicted, [0.4, 0.8])


@pytest.mark.parametrize(
    ("time", "event", "reason"),
    [
        pytest.param([], [], "no case", id="empty"),
        pytest.param(
            [2, 3, 20, 20], [1, 0, 0, 0], "1 of 2 groups are not followed until month 12", id="lost"
        ),
    ],
)
def test_calibration_not_estimable(time, event, reason):
    prediction = np.linspace(0.2, 0.8, len(time))
    result = calibration(prediction, np.array(time, float), np.array(event, int), 12.0, 2)
    assert result.error.reason == reason
    assert not result.error.is_estimable


def test_a_group_of_which_all_died_is_known_for_ever():
    result = calibration(np.array([0.1, 0.2]), np.array([2.0, 3.0]), np.array([1, 1]), 12.0, 1)
    assert result.observed.tolist() == [0.0]
    assert result.error.value == pytest.approx(0.15)
