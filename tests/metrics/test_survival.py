"""Ranks of risks against scikit-survival, lifelines and a count of all pairs; named edge rows."""

import math

import lifelines.utils
import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.util import Surv

from modaltune_jax.metrics.survival import harrell_c, time_dependent_auc, uno_c
from modaltune_jax.types import InputError


def draw(seed, num=150, ties=False):
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=num)
    time = rng.exponential(np.exp(-risk)) * 20
    event = rng.random(num) < 0.4
    if ties:
        risk, time = np.round(risk, 1), np.round(time)
    return risk, time, event


def count_pairs(risk, time, event):
    """Harrell's c by the definition, one pair after the other."""
    good = pairs = 0.0
    for i in np.flatnonzero(event):
        for j in range(len(time)):
            if time[j] > time[i] or (time[j] == time[i] and not event[j]):
                pairs += 1
                good += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    return good / pairs


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_count_of_pairs_and_sksurv(seed, ties):
    risk, time, event = draw(seed, ties=ties)
    estimate = harrell_c(risk, time, event)
    assert estimate.value == pytest.approx(count_pairs(risk, time, event), abs=1e-12)
    assert estimate.value == pytest.approx(concordance_index_censored(event, time, risk)[0], abs=1e-12)
    assert (estimate.num, estimate.num_events) == (150, event.sum())


def test_equals_lifelines_without_ties():
    risk, time, event = draw(7)
    expected = lifelines.utils.concordance_index(time, -risk, event)
    assert harrell_c(risk, time, event).value == pytest.approx(expected, abs=1e-12)


def test_invariant_to_unit_and_monotone_risk():
    risk, time, event = draw(8, ties=True)
    expected = harrell_c(risk, time, event).value
    assert harrell_c(np.exp(risk), time * 30.4, event.astype(int)).value == expected
    assert harrell_c(-risk, time, event).value == pytest.approx(1 - expected, abs=1e-12)


@pytest.mark.parametrize(
    ("risk", "time", "event", "value"),
    [
        pytest.param([3, 2, 1], [1, 2, 3], [1, 1, 1], 1.0, id="higher risk dies first"),
        pytest.param([1, 2, 3], [1, 2, 3], [1, 1, 1], 0.0, id="reversed"),
        pytest.param([1, 1, 1], [1, 2, 3], [1, 0, 1], 0.5, id="all risks tied"),
        pytest.param([2, 1], [5, 5], [1, 0], 1.0, id="censored at the time of a death"),
        pytest.param([2, 1, 9], [0, 4, 4], [1, 1, 1], 0.5, id="death at time zero; two deaths at one time"),
        pytest.param([1, 2, 3], [1, 2, 3], [0, 1, 0], 0.0, id="early censoring is not comparable"),
    ],
)
def test_by_hand(risk, time, event, value):
    assert harrell_c(np.array(risk, float), np.array(time, float), np.array(event)).value == value


@pytest.mark.parametrize(
    ("time", "event", "reason"),
    [
        pytest.param([], [], "no case", id="empty"),
        pytest.param([3, 4], [0, 0], "no death seen", id="all censored"),
        pytest.param([3], [1], "no comparable pair", id="one case"),
        pytest.param([2, 2], [1, 1], "no comparable pair", id="deaths at one time only"),
        pytest.param([1, 2], [0, 1], "no comparable pair", id="the one death comes last"),
    ],
)
def test_not_estimable(time, event, reason):
    estimate = harrell_c(np.zeros(len(time)), np.array(time, float), np.array(event, int))
    assert math.isnan(estimate.value)
    assert (estimate.num, estimate.num_events, estimate.reason) == (len(time), sum(event), reason)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("risk", math.nan),
        ("risk", math.inf),
        ("time", math.nan),
        ("time", -1.0),
        ("event", -1.0),
        ("event", 2.0),
    ],
)
def test_bad_input_names_the_case(name, value):
    columns = {"risk": np.ones(3), "time": np.ones(3), "event": np.ones(3)}
    columns[name][1] = value
    with pytest.raises(InputError, match=f"case 1 has {name} {value}"):
        harrell_c(**columns)


def draw_train(seed, num=200, ties=False):
    """Follow-up that goes on longer than that of the cases to score."""
    rng = np.random.default_rng(seed + 1000)
    time, event = rng.exponential(60.0, num), rng.random(num) < 0.4
    time[0], event[0] = 1e4, False
    return (np.round(time) if ties else time), event


@pytest.mark.parametrize("tau", [None, 12.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_uno_equals_sksurv(seed, ties, tau):
    risk, time, event = draw(seed, ties=ties)
    train_time, train_event = draw_train(seed, ties=ties)
    estimate = uno_c(risk, time, event, train_time, train_event, tau=tau)
    train, test = Surv.from_arrays(train_event, train_time), Surv.from_arrays(event, time)
    expected = concordance_index_ipcw(train, test, risk, tau)[0]
    assert estimate.value == pytest.approx(expected, abs=1e-12)
    num_events = np.sum(event & (time < (tau or np.inf)))
    assert (estimate.num, estimate.num_events, estimate.reason) == (150, num_events, "")


def test_uno_without_censoring_is_harrell():
    risk, time, _ = draw(5, ties=True)
    everyone = np.ones(150, bool)
    uno = uno_c(risk, time, everyone, np.append(time, 1e4), np.ones(151, bool))
    assert uno.value == pytest.approx(harrell_c(risk, time, everyone).value, abs=1e-12)


def test_uno_does_not_depend_on_follow_up_where_harrell_does():
    """Early deaths are told apart, late ones are not; the shorter the follow-up, the more of the former."""
    rng = np.random.default_rng(0)
    time = rng.uniform(0, 100, 3000)
    risk = np.where(time < 30, 100 - time, 0.0) + rng.normal(size=3000)
    whole = np.ones(3000, bool)
    censored = rng.exponential(40.0, 3000)
    seen, until = time <= censored, np.minimum(time, censored)
    train_until = np.append(until, 200.0)
    truth = uno_c(risk, time, whole, np.append(time, 200.0), np.ones(3001, bool), tau=80.0).value
    uno = uno_c(risk, until, seen, train_until, np.append(seen, False), tau=80.0).value
    assert uno == pytest.approx(truth, abs=0.02)
    assert harrell_c(risk, until, seen).value > truth + 0.05


TRAIN = (np.array([2.0, 5.0, 8.0, 10.0]), np.array([1, 0, 1, 0]))


@pytest.mark.parametrize(
    ("time", "event", "train", "tau", "reason"),
    [
        pytest.param([], [], TRAIN, None, "no case", id="empty"),
        pytest.param([3, 4], [0, 0], TRAIN, None, "no death seen", id="all censored"),
        pytest.param([3, 3], [1, 1], TRAIN, None, "no comparable pair", id="deaths at one time only"),
        pytest.param([4, 6], [1, 0], TRAIN, 4.0, "no death before tau 4", id="a death at tau"),
        pytest.param(
            [4, 6],
            [1, 0],
            TRAIN,
            11.0,
            "tau 11 is beyond the training follow-up of 10 months",
            id="tau beyond follow-up",
        ),
        pytest.param(
            [4, 12, 13],
            [1, 1, 0],
            TRAIN,
            None,
            "a death at month 12 is beyond the training follow-up of 10 months",
            id="a death beyond follow-up",
        ),
        pytest.param(
            [4, 10, 13],
            [1, 1, 0],
            TRAIN,
            None,
            "a death at month 10 is where the last training cases are censored",
            id="censoring survival 0",
        ),
        pytest.param(
            [4, 6], [1, 0], (np.zeros(0), np.zeros(0)), None, "no training case", id="no training case"
        ),
        pytest.param(
            [4, 6],
            [1, 0],
            (np.array([9.0]), np.array([0])),
            None,
            "no death seen in training",
            id="no training death",
        ),
    ],
)
def test_uno_not_estimable(time, event, train, tau, reason):
    estimate = uno_c(
        np.arange(float(len(time))), np.array(time, float), np.array(event, int), *train, tau=tau
    )
    assert math.isnan(estimate.value)
    assert (estimate.num, estimate.reason) == (len(time), reason)


def test_tau_makes_late_deaths_harmless():
    time, event = np.array([4.0, 6.0, 10.0, 12.0]), np.array([1, 0, 1, 1])
    assert uno_c(np.array([2.0, 1.0, 3.0, 0.0]), time, event, *TRAIN, tau=5.0).value == pytest.approx(2 / 3)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_tau_must_be_positive(tau):
    with pytest.raises(InputError, match="tau is"):
        uno_c(np.ones(4), *TRAIN, *TRAIN, tau=tau)


def test_bad_training_case_is_named():
    with pytest.raises(InputError, match=r"training case 0 has time -1\.0"):
        uno_c(np.ones(4), *TRAIN, np.array([-1.0]), np.array([1]))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auc_equals_sksurv(seed, ties):
    risk, time, event = draw(seed, ties=ties)
    train_time, train_event = draw_train(seed, ties=ties)
    months = np.array([20.0, 5.0, 12.0])
    areas = time_dependent_auc(risk, time, event, train_time, train_event, months)
    train, test = Surv.from_arrays(train_event, train_time), Surv.from_arrays(event, time)
    expected = cumulative_dynamic_auc(train, test, risk, np.sort(months))[0][[2, 0, 1]]
    np.testing.assert_allclose([area.value for area in areas], expected, atol=1e-12)
    for month, area in zip(months, areas, strict=True):
        assert area.num_events == np.sum(event & (time <= month))
        assert area.num == area.num_events + np.sum(time > month)


@pytest.mark.parametrize(
    ("risk", "value"),
    [
        pytest.param([3, 2, 1, 0], 1.0, id="the dead had the higher risk"),
        pytest.param([0, 1, 2, 3], 0.0, id="reversed"),
        pytest.param([1, 1, 1, 1], 0.5, id="constant risk"),
    ],
)
def test_auc_by_hand(risk, value):
    time, event = np.array([1.0, 3.0, 7.0, 7.5]), np.array([1, 1, 0, 1])
    (area,) = time_dependent_auc(np.array(risk, float), time, event, *TRAIN, np.array([5.0]))
    assert (area.value, area.num, area.num_events) == (value, 4, 2)


@pytest.mark.parametrize(
    ("time", "event", "month", "reason"),
    [
        pytest.param([], [], 6.0, "no case", id="empty"),
        pytest.param([7, 8], [1, 1], 6.0, "no death by month 6", id="all die later"),
        pytest.param([5, 8], [0, 1], 6.0, "no death by month 6", id="censored before"),
        pytest.param([5, 6], [1, 0], 6.0, "no case is followed beyond month 6", id="nobody lives longer"),
        pytest.param(
            [10, 12],
            [1, 1],
            11.0,
            "a death at month 10 is where the last training cases are censored",
            id="censoring survival 0",
        ),
        pytest.param(
            [11, 13],
            [1, 1],
            12.0,
            "a death at month 11 is beyond the training follow-up of 10 months",
            id="beyond follow-up",
        ),
    ],
)
def test_auc_not_estimable(time, event, month, reason):
    risk = np.zeros(len(time))
    (area,) = time_dependent_auc(risk, np.array(time, float), np.array(event, int), *TRAIN, np.array([month]))
    assert math.isnan(area.value)
    assert area.reason == reason


def test_auc_of_a_month_does_not_ask_for_later_deaths():
    time, event = np.array([1.0, 3.0, 50.0]), np.array([1, 1, 1])
    near, far = time_dependent_auc(np.array([2.0, 1.0, 0.0]), time, event, *TRAIN, np.array([5.0, 60.0]))
    assert near.value == 1.0
    assert not far.is_estimable
