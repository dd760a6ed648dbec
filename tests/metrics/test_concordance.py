"""Concordance of many draws against scikit-survival, draw by draw."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored

from modaltune_jax.metrics import concordance
from modaltune_jax.metrics.concordance import concordance_of_draws
from modaltune_jax.metrics.intervals import draw_cases
from modaltune_jax.metrics.survival import harrell_c, uno_c, uno_weights


@pytest.mark.parametrize("block", [256, 7], ids=["one block", "several blocks"])
@pytest.mark.parametrize("ties", [False, True])
def test_equals_sksurv_on_every_draw(monkeypatch, ties, block):
    monkeypatch.setattr(concordance, "_BLOCK", block)
    rng = np.random.default_rng(0)
    risk, time, event = rng.normal(size=80), rng.exponential(20.0, 80), rng.random(80) < 0.4
    if ties:
        risk, time = np.round(risk, 1), np.round(time)
    rows = draw_cases(80, 40, seed=1)
    expected = [concordance_index_censored(event[row], time[row], risk[row])[0] for row in rows]
    np.testing.assert_array_equal(concordance_of_draws(risk, time, event, rows), expected)


cases = st.lists(
    st.tuples(st.sampled_from([0.0, 0.4e-8, 0.9e-8, 1.1e-8, 0.5, 1.0]), st.integers(0, 4), st.booleans()),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(cases=cases, seed=st.integers(0, 9))
def test_equals_harrell_on_few_cases_with_many_ties(cases, seed):
    """Risks a few 1e-9 apart are tied; draws without a comparable pair are NaN."""
    risk, time, event = (np.array(column) for column in zip(*cases, strict=True))
    time = time.astype(float)
    rows = np.concatenate([np.arange(len(risk))[None], draw_cases(len(risk), 3, seed=seed)])
    expected = [harrell_c(risk[row], time[row], event[row]).value for row in rows]
    np.testing.assert_allclose(concordance_of_draws(risk, time, event, rows), expected, rtol=1e-14)


def test_with_the_weights_of_uno_it_is_uno():
    rng = np.random.default_rng(2)
    risk, time, event = rng.normal(size=60), np.round(rng.exponential(20.0, 60)), rng.random(60) < 0.5
    train = (np.append(rng.exponential(40.0, 60), 1e3), np.append(rng.random(60) < 0.5, False))
    rows = draw_cases(60, 20, seed=3)
    weight = uno_weights(time, event, *train, tau=15.0)
    expected = [uno_c(risk[row], time[row], event[row], *train, tau=15.0).value for row in rows]
    actual = concordance_of_draws(risk, time, event, rows, weight)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_no_draw():
    assert concordance_of_draws(np.ones(3), np.ones(3), np.ones(3), np.zeros((0, 3), int)).shape == (0,)
