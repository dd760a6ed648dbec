"""harrell_c against scikit-survival, lifelines and a count of all pairs; named edge rows."""

import math

import lifelines.utils
import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from modaltune_jax.metrics.survival import harrell_c
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
