"""ranking against a slow oracle, closed forms and the concordance index; its edges and masks."""

import doctest
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from modaltune_jax.losses import ranking as module
from modaltune_jax.losses.ranking import ranking
from modaltune_jax.metrics.survival import harrell_c

NAN = math.nan
compiled_ranking = jax.jit(ranking, static_argnames="scale")


def oracle(risk, time, event, where, strata, scale=1.0):
    """The formula as written, in float64, pair by pair."""
    risk, num = np.float64(risk), len(risk)
    known = [where[i] and event[i] >= 0 and not math.isnan(time[i]) for i in range(num)]
    losses = np.zeros(num)
    for i in range(num):
        if not known[i] or event[i] != 1:
            continue
        pairs = [j for j in range(num) if known[j] and strata[i] == strata[j] and time[i] < time[j]]
        if pairs:
            losses[i] = np.mean([np.log1p(np.exp(-(risk[i] - risk[j]) / scale)) for j in pairs])
    return losses


def arrays(risk, time, event):
    return jnp.asarray(risk, jnp.float32), jnp.asarray(time, jnp.float32), jnp.asarray(event, jnp.int32)


def draw(seed=0, num=40):
    rng = np.random.default_rng(seed)
    data = arrays(rng.normal(size=num) * 1.5, rng.integers(0, num // 4, num), rng.integers(0, 2, num))
    return data, jnp.asarray(rng.integers(0, 3, num), jnp.int32)


@functools.partial(jax.jit, static_argnames="scale")
def losses_and_gradient(risk, time, event, where=None, **options):
    def total(risk):
        losses = ranking(risk, time, event, where, **options)
        return losses.sum(), losses

    gradient, losses = jax.grad(total, has_aux=True)(risk)
    return losses, gradient


@pytest.mark.parametrize(
    ("risk", "time", "event", "expected"),
    [
        pytest.param([0.3, 1.1], [1, 2], [1, 0], [np.logaddexp(0, 0.8), 0], id="two cases"),
        pytest.param([0.3, 1.1], [1, 2], [0, 1], [0, 0], id="nobody outlives the death"),
        pytest.param([0.3, 1.1], [2, 2], [1, 0], [0, 0], id="censored at the death"),
        pytest.param([0.3, 1.1], [2, 2], [1, 1], [0, 0], id="tied deaths"),
        pytest.param([1, 1, 1], [0, 1, 2], [1, 1, 1], [np.log(2), np.log(2), 0], id="all die, time zero"),
        pytest.param(
            [1, 0, 2], [1, 2, 3], [1, 0, 0], [np.logaddexp(0, [-1, 1]).mean(), 0, 0], id="two pairs"
        ),
        pytest.param([1, 2, 3], [1, 2, 3], [0, 0, 0], [0, 0, 0], id="all censored"),
        pytest.param([1, 2, 3], [1, 2, 3], [-1, -1, -1], [0, 0, 0], id="no event known"),
        pytest.param([1, 2, 3], [NAN] * 3, [1, 1, 1], [0, 0, 0], id="no time known"),
        pytest.param([1, 0, 9], [1, 2, NAN], [1, 0, 1], [np.logaddexp(0, -1), 0, 0], id="NaN time"),
        pytest.param([1, 0, 9], [1, 2, 3], [1, 0, -1], [np.logaddexp(0, -1), 0, 0], id="unknown event"),
        pytest.param([5], [1], [1], [0], id="one case"),
        pytest.param([], [], [], [], id="no case"),
        pytest.param([80, -80], [1, 2], [1, 0], [0, 0], id="surely right"),
        pytest.param([-80, 80], [1, 2], [1, 0], [160, 0], id="surely wrong"),
        pytest.param([-1e4, 1e4], [1, 2], [1, 0], [2e4, 0], id="absurdly wrong"),
    ],
)
def test_closed_forms(risk, time, event, expected):
    data = arrays(risk, time, event)
    losses, gradient = losses_and_gradient(*data)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    if not any(expected):
        np.testing.assert_array_equal(gradient, 0.0)


def test_gradient_of_a_pair_is_the_logistic_function():
    _, gradient = losses_and_gradient(*arrays([0.3, 1.1], [1, 2], [1, 0]), scale=2.0)
    pull = 1.0 / (1.0 + np.exp(-0.4)) / 2.0
    np.testing.assert_allclose(gradient, [-pull, pull], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_oracle(seed, scale):
    (risk, time, event), strata = draw(seed)
    loss = compiled_ranking(risk, time, event, strata=strata, scale=scale)
    assert loss.dtype == jnp.float32
    expected = oracle(risk, time, event, np.ones(40, bool), strata, scale)
    np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=1e-6)


def test_scale_is_the_unit_of_risk():
    (risk, time, event), _ = draw(2)
    wide = compiled_ranking(8.0 * risk, time, event, scale=8.0)
    np.testing.assert_array_equal(wide, compiled_ranking(risk, time, event))


@pytest.mark.parametrize("seed", range(5))
def test_bounds_the_discordance_from_above(seed):
    """Over all comparable pairs, loss / log 2 is at least 1 - c (no pair is tied in time here)."""
    rng = np.random.default_rng(seed)
    data = arrays(rng.normal(size=30), rng.permutation(30), rng.integers(0, 2, 30))
    risk, time, event = (np.asarray(x) for x in data)
    pairs = [np.sum(time > t) if dead else 0 for t, dead in zip(time, event, strict=True)]
    discordance = 1.0 - harrell_c(risk, time, event).value
    bound = np.average(compiled_ranking(*data), weights=pairs) / np.log(2)
    assert bound >= discordance


SMALL = 6


@st.composite
def cases(draw):
    """Six cases, so that one compilation serves all; few values, so that they tie."""

    def column(values):
        return draw(st.lists(values, min_size=SMALL, max_size=SMALL))

    return {
        "risk": np.float32(column(st.floats(-8.0, 8.0, width=32))),
        "time": np.float32(column(st.sampled_from([0.0, 1.0, 1.0, 2.0, 7.5, NAN]))),
        "event": np.int32(column(st.sampled_from([-1, 0, 1, 1, 1]))),
        "where": np.array(column(st.sampled_from([True, True, True, False]))),
        "strata": np.int32(column(st.sampled_from([0, 0, 7]))),
    }


def evaluate(case):
    return losses_and_gradient(**jax.tree.map(jnp.asarray, case))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases(), order=st.permutations(range(SMALL)), shift=st.sampled_from([-50.0, 3.0, 40.0]))
def test_any_six_cases(case, order, shift):
    """The oracle; order, a shift and the unit of time do not matter; strata are separate losses."""
    losses, gradient = evaluate(case)
    np.testing.assert_allclose(losses, oracle(**case), rtol=2e-6, atol=1e-6)
    order = np.array(order)
    permuted = evaluate({name: x[order] for name, x in case.items()})
    np.testing.assert_allclose(permuted[0], losses[order], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(permuted[1], gradient[order], atol=1e-6)
    shifted = evaluate({**case, "risk": case["risk"] + np.float32(shift)})
    np.testing.assert_allclose(shifted[0], losses, rtol=1e-5, atol=1e-5)
    other_clock = evaluate({**case, "time": 30.4 * case["time"] ** 2})
    np.testing.assert_array_equal(other_clock[0], losses)
    alone = [evaluate({**case, "where": case["where"] & (case["strata"] == s)}) for s in (0, 7)]
    np.testing.assert_allclose(alone[0][0] + alone[1][0], losses, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases(), poison=st.sampled_from([NAN, math.inf, 1e30]))
def test_cases_left_out_may_hold_anything(case, poison):
    losses, gradient = evaluate(case)
    masked = ~case["where"]
    dirty = {name: x.copy() for name, x in case.items()}
    dirty["risk"][masked], dirty["time"][masked] = poison, poison
    dirty["event"][masked], dirty["strata"][masked] = 1, -99
    dirty_losses, dirty_gradient = evaluate(dirty)
    np.testing.assert_array_equal(dirty_losses, losses)
    np.testing.assert_array_equal(dirty_gradient, gradient)
    np.testing.assert_array_equal(dirty_gradient[masked], 0.0)


def test_derivatives_of_first_and_second_order():
    (risk, time, event), strata = draw(3, 12)
    with jax.enable_x64(True):
        f = jax.jit(lambda x: ranking(x, time, event, strata=strata, scale=0.5))
        risk = jnp.asarray(np.float64(risk))
        assert f(risk).dtype == jnp.float64
        check_grads(f, (risk,), order=2, atol=1e-6, rtol=1e-6)


def test_half_precision_input_is_computed_in_float32():
    (risk, time, event), _ = draw(4)
    half = risk.astype(jnp.bfloat16)
    full = compiled_ranking(half.astype(jnp.float32), time, event)
    np.testing.assert_array_equal(compiled_ranking(half, time, event), full)


@pytest.mark.parametrize("scale", [0.0, -1.0, NAN])
def test_a_scale_that_is_not_positive_is_refused(scale):
    (risk, time, event), _ = draw()
    with pytest.raises(ValueError, match=f"scale {scale} is not positive"):
        ranking(risk, time, event, scale=scale)


def test_docstring_example():
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 0
