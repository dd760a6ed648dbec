"""Discrete-time survival against recorded numbers, a loop in float64, and at its edges."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from modaltune_jax.inputs.transforms import fit_transforms
from modaltune_jax.losses import discrete_hazard as module
from modaltune_jax.losses.discrete_hazard import (
    bin_of,
    logistic_hazard,
    median_survival,
    nll,
    risk,
    survival_at,
    survival_curve,
    time_bins,
)
from modaltune_jax.types import Case, InputError, Labels
from tests.golden import load

LOG2 = np.log(2.0)
NAN = np.nan
EDGES = np.array([6.0, 18.0, 40.0])


def loop(logits, time_bin, event, alpha=0.0, smallest=0.0):
    """MCAT's loss as written, a case at a time; `smallest` is its clamp."""
    losses = []
    for row, k, died in zip(np.float64(logits), time_bin, event, strict=True):
        hazard = 1 / (1 + np.exp(-row))
        survival = np.maximum(np.cumprod([1.0, *(1 - hazard)]), smallest)
        hazard = np.maximum(hazard, smallest)
        is_known = k >= 0 and died >= 0
        uncensored = -np.log(survival[k]) - np.log(hazard[k]) if is_known and died else 0.0
        censored = -np.log(survival[k + 1]) if is_known and not died else 0.0
        losses.append((1 - alpha) * (censored + uncensored) + alpha * uncensored)
    return np.array(losses)


def draw(seed=0, b=6, c=4):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(2 * rng.normal(size=(b, c)), jnp.float32)
    return logits, jnp.asarray(rng.integers(0, c, b)), jnp.asarray(rng.integers(0, 2, b))


def arrays(*shape, low=-8.0, high=8.0):
    return hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32))


def ints(*values):
    return jnp.asarray(values, jnp.int32)


def test_doctests():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_recorded_losses(alpha):
    golden = load("losses")
    event = jnp.asarray(1 - golden["censored"], jnp.int32)
    losses = nll(jnp.asarray(golden["logits"]), jnp.asarray(golden["label"]), event, alpha=alpha)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses.mean(), golden[f"nll_alpha{alpha}"], rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from([1, 2, 5]), st.sampled_from([0.0, 0.3, 1.0]))
def test_equals_the_loop(data, c, alpha):
    logits = data.draw(arrays(6, c))
    bins = data.draw(hnp.arrays(np.int32, 6, elements=st.integers(-1, c - 1)))
    event = data.draw(hnp.arrays(np.int32, 6, elements=st.integers(-1, 1)))
    actual = nll(jnp.asarray(logits), jnp.asarray(bins), jnp.asarray(event), alpha=alpha)
    np.testing.assert_allclose(actual, loop(logits, bins, event, alpha), rtol=2e-6, atol=1e-6)


def test_logistic_hazard_is_a_sum_of_binary_cross_entropies():
    logits, bins, event = draw(1)
    died = np.zeros((6, 4))
    died[np.arange(6), bins] = event
    entropy = np.asarray(optax.sigmoid_binary_cross_entropy(logits, jnp.asarray(died, jnp.float32)))
    expected = [row[: k + 1].sum() for row, k in zip(entropy, bins, strict=True)]
    assert 0 < event.sum() < 6
    np.testing.assert_allclose(logistic_hazard(logits, bins, event), expected, rtol=1e-6)
    np.testing.assert_allclose(nll(logits, bins, event, alpha=0.0), expected, rtol=1e-6)


def test_censoring_rounded_down_counts_the_bins_before_only():
    logits, _, _ = draw(3, b=4)
    bins, event = ints(0, 1, 3, 2), ints(0, 0, 0, 1)
    rounded = logistic_hazard(logits, jnp.where(event == 0, bins - 1, bins), event)
    log_survival = np.log(survival_curve(logits))
    expected = [0.0, -log_survival[1, 0], -log_survival[2, 2], nll(logits, bins, event)[3]]
    np.testing.assert_allclose(rounded, expected, rtol=1e-6)


def test_pycox_agrees():
    torch = pytest.importorskip("torch")
    pycox = pytest.importorskip("pycox.models.loss")
    logits, bins, event = draw(4, b=50)
    phi, index, died = (torch.tensor(np.array(x)) for x in (logits, bins, event))
    expected = pycox.nll_logistic_hazard(phi.double(), index.long(), died.double(), reduction="none")
    np.testing.assert_allclose(logistic_hazard(logits, bins, event), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("bins", "event", "halvings"),
    [
        pytest.param((0, 0, 0), (1, 1, 1), (1, 1, 1), id="all died in the first bin"),
        pytest.param((3, 3, 3), (1, 1, 1), (4, 4, 4), id="all died in the last bin"),
        pytest.param((0, 1, 3), (0, 0, 0), (1, 2, 4), id="all censored"),
        pytest.param((-1, -1, 2), (1, 0, 1), (0, 0, 3), id="unknown bin"),
        pytest.param((0, 3, 2), (-1, -1, 1), (0, 0, 3), id="unknown event"),
        pytest.param((-1, -1, -1), (-1, -1, -1), (0, 0, 0), id="nothing known"),
    ],
)
def test_hazards_of_one_half(bins, event, halvings):
    loss, grad = jax.value_and_grad(lambda x: logistic_hazard(x, ints(*bins), ints(*event)).sum())(
        jnp.zeros((3, 4))
    )
    np.testing.assert_allclose(loss, sum(halvings) * LOG2, rtol=1e-6)
    # d/dz softplus(z) = 1/2 for a survived bin, -1/2 for the bin of death, 0 for bins never entered.
    np.testing.assert_array_equal(np.abs(grad).sum(1), np.array(halvings) / 2)


@pytest.mark.parametrize("size", [80.0, 1e4])
@pytest.mark.parametrize("event", [0, 1])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (-1, -1, 1), (1, -1, -1)])
def test_extreme_logits(size, event, signs):
    logits = jnp.array([signs]) * size
    outcome = (np.arange(3) == 2) & (event == 1)
    expected = np.logaddexp(0, np.where(outcome, -1, 1) * np.float64(logits)).sum()
    loss, grad = jax.value_and_grad(lambda x: nll(x, ints(2), ints(event)).sum())(logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    wrong = (np.array(signs) > 0) != outcome
    np.testing.assert_allclose(grad[0], np.array(signs) * wrong, atol=1e-30)
    assert jnp.isfinite(survival_curve(logits)).all()
    assert jnp.isfinite(jax.grad(lambda x: risk(x).sum())(logits)).all()


@pytest.mark.parametrize(
    ("logits", "event", "difference"),
    [
        pytest.param((-15.0, 0.0), 1, 0.0, id="hazard 3e-7"),
        pytest.param((15.0, 0.0), 0, 0.0, id="survival 3e-7"),
        pytest.param((-80.0, 0.0), 1, 80.0 + np.log(1e-7), id="died at hazard 2e-35"),
        pytest.param((80.0, 0.0), 0, 80.0 + np.log(1e-7), id="censored at survival 2e-35"),
    ],
)
def test_distance_to_the_clamped_loss(logits, event, difference):
    published = loop([logits], [0], [event], smallest=1e-7)
    actual = nll(jnp.array([logits]), ints(0), ints(event))
    np.testing.assert_allclose(actual - published, difference, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("poison", [NAN, np.inf, -np.inf])
def test_masked_cases_leak_neither_value_nor_gradient(poison):
    logits, bins, event = draw(5)
    where = jnp.array([True, False, True, True, False, True])
    poisoned = logits.at[1].set(poison).at[4].set(poison)
    bins = bins.at[4].set(99)
    event = event.at[2].set(-1)
    values, grad = jax.value_and_grad(lambda x: nll(x, bins, event, where).sum())(poisoned)
    clean, clean_grad = jax.value_and_grad(lambda x: nll(x, bins[where], event[where]).sum())(logits[where])
    np.testing.assert_allclose(values, clean, rtol=1e-6)
    np.testing.assert_array_equal(grad[where], clean_grad)
    np.testing.assert_array_equal(grad[~where], 0.0)
    np.testing.assert_array_equal(nll(poisoned, bins, event, where)[~where], 0.0)


def test_bins_never_entered_do_not_matter_and_bins_without_a_logit_do():
    poisoned = jnp.array([[0.0, NAN, np.inf]])
    loss, grad = jax.value_and_grad(lambda x: nll(x, ints(0), ints(1)).sum())(poisoned)
    np.testing.assert_allclose(loss, LOG2, rtol=1e-6)
    np.testing.assert_array_equal(grad, [[-0.5, 0.0, 0.0]])
    beyond = nll(jnp.zeros((3, 4)), ints(4, 4, 4), ints(1, 0, -1))
    np.testing.assert_array_equal(jnp.isnan(beyond), [True, True, False])


def test_order_of_cases_does_not_matter():
    logits, bins, event = draw(6)
    order = np.random.default_rng(0).permutation(6)
    shuffled = nll(logits[order], bins[order], event[order], alpha=0.2)
    np.testing.assert_array_equal(shuffled, nll(logits, bins, event, alpha=0.2)[order])


def test_life_table_is_the_optimum():
    """Without covariates the maximum likelihood hazards are deaths / cases at risk."""
    _, bins, event = draw(7, b=400)
    deaths = np.bincount(bins[event == 1], minlength=4)
    at_risk = np.array([(bins >= k).sum() for k in range(4)])
    logits = jnp.asarray(np.log(deaths / (at_risk - deaths)), jnp.float32)
    slope = jax.jit(jax.grad(lambda x: logistic_hazard(jnp.tile(x, (400, 1)), bins, event).sum()))
    np.testing.assert_allclose(slope(logits), 0.0, atol=1e-3)
    np.testing.assert_allclose(slope(0.0 * logits), at_risk / 2 - deaths, rtol=1e-5)


def test_gradients_to_second_order():
    logits, bins, event = draw(8)
    loss = jax.jit(lambda x: nll(x, bins, event, alpha=0.4))
    check_grads(loss, (logits,), 2, atol=1e-2, rtol=1e-2, eps=1e-2)


def test_half_precision_input_is_computed_in_float32():
    logits, bins, event = draw(9)
    half = logits.astype(jnp.bfloat16)
    np.testing.assert_array_equal(nll(half, bins, event), nll(half.astype(jnp.float32), bins, event))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, NAN])
def test_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match="outside 0 to 1"):
        nll(*draw(), alpha=alpha)


# Bins


@pytest.mark.parametrize(
    ("time", "event", "num_bins", "edges"),
    [
        pytest.param((1, 2, 3, 4, 5), (1, 1, 1, 1, 1), 2, (3,), id="median"),
        pytest.param((1, 99, 2, 99, 3), (1, 0, 1, 0, 1), 2, (2,), id="censored left out"),
        pytest.param((1, 99, 2, 99, 3), (1, -1, 1, -1, 1), 2, (2,), id="unknown event left out"),
        pytest.param((1, NAN, 2, NAN, 3), (1, 1, 1, -1, 1), 2, (2,), id="unknown time left out"),
        pytest.param((0, 0, 4, 4), (1, 1, 1, 1), 2, (2,), id="times of zero, ties"),
        pytest.param((7,), (1,), 1, (), id="one bin has no edge"),
        pytest.param((1, 2, 3), (True, True, True), 3, (5 / 3, 7 / 3), id="event as bool"),
    ],
)
def test_time_bins(time, event, num_bins, edges):
    actual = time_bins(np.asarray(time, float), np.asarray(event), num_bins)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, edges)


@pytest.mark.parametrize(
    ("time", "event", "num_bins", "message"),
    [
        pytest.param((1, 2), (0, 0), 1, "0 uncensored train times .* fill 0 of 1", id="all censored"),
        pytest.param((), (), 2, "0 uncensored", id="no case"),
        pytest.param((5, 5, 5, 5), (1, 1, 1, 1), 2, r"4 .* \(1 distinct\) fill 1 of 2", id="all tied"),
        pytest.param((1, 1, 1, 2, 3, 4), (1,) * 6, 4, "ask for fewer bins", id="first bin empty by ties"),
        pytest.param((1, 10), (1, 1), 4, "fill 2 of 4", id="more bins than deaths"),
        pytest.param((3, -1), (1, 1), 1, "row 1: time is -1.0 months", id="negative"),
        pytest.param((np.inf, 1), (0, 1), 1, "row 0: time is inf months", id="infinite"),
        pytest.param((1, 2), (1, 1), 0, "0 survival bins", id="no bin"),
        pytest.param((1, 2), (1, 1), -3, "-3 survival bins", id="negative number of bins"),
    ],
)
def test_times_that_give_no_bins(time, event, num_bins, message):
    with pytest.raises(InputError, match=message):
        time_bins(np.asarray(time, float), np.asarray(event, int), num_bins)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 300)), st.integers(1, 6))
def test_edges_increase_and_every_bin_holds_a_death(time, num_bins):
    try:
        edges = time_bins(time, np.ones(time.size), num_bins)
    except InputError:
        quantiles = np.quantile(time, np.linspace(0, 1, num_bins + 1)[1:-1])
        assert np.histogram(time, [-1.0, *quantiles, 301.0])[0].min() == 0
        return
    assert edges.shape == (num_bins - 1,)
    assert np.all(np.diff(edges) > 0)
    assert np.bincount(bin_of(time, edges), minlength=num_bins).min() > 0


def test_edges_are_those_of_the_sentences():
    time = np.random.default_rng(0).exponential(30, 60)
    event = np.arange(60) % 3 % 2
    labels = (Labels(time=float(t), event=int(e)) for t, e in zip(time, event, strict=True))
    transforms = fit_transforms((Case("A", "brca", "train", (), None, x) for x in labels), num_bins=4)
    edges = time_bins(time, event, 4)
    np.testing.assert_array_equal(edges, transforms.survival_edges["brca"][1:-1])
    np.testing.assert_array_equal(bin_of(time, edges), [transforms.survival_bin("brca", t) for t in time])


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        pytest.param(0.0, 0, id="zero"),
        pytest.param(np.nextafter(6.0, 0.0), 0, id="just below an edge"),
        pytest.param(6.0, 1, id="at an edge"),
        pytest.param(40.0, 3, id="at the last edge"),
        pytest.param(1e9, 3, id="beyond the last edge"),
        pytest.param(NAN, -1, id="unknown"),
    ],
)
def test_bin_of(time, expected):
    bins = bin_of(np.array([time]), EDGES)
    assert bins.dtype == np.int32
    np.testing.assert_array_equal(bins, [expected])
    np.testing.assert_array_equal(bin_of(np.array([time]), np.empty(0)), [min(expected, 0)])


# Predictions


def test_survival_curve_is_the_product_of_survived_bins():
    logits, _, _ = draw(10)
    expected = np.cumprod(1 - 1 / (1 + np.exp(-np.float64(logits))), axis=1)
    np.testing.assert_allclose(survival_curve(logits), expected, rtol=2e-6)
    np.testing.assert_allclose(risk(logits), -expected.sum(1), rtol=2e-6)


@pytest.mark.parametrize("c", [1, 4, 1000])
def test_survival_curve_never_increases(c):
    """Prefix sums of a thousand bins do increase, by rounding, unless something is done about it."""
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(-8, 4, (300, c)), jnp.float32)
    curve = survival_curve(logits)
    assert (jnp.diff(curve, axis=1) <= 0).all()
    assert ((curve >= 0) & (curve <= 1)).all()


def test_a_higher_hazard_is_a_higher_risk():
    logits, _, _ = draw(11)
    assert (risk(logits + 0.1) > risk(logits)).all()
    np.testing.assert_array_equal(risk(jnp.array([[-1e4] * 4, [1e4] * 4])), [-4.0, 0.0])


def test_survival_is_log_linear_inside_a_bin():
    logits, _, _ = draw(12)
    months = np.array([0.0, 1.0, 6.0, 7.5, 18.0, 39.0, 40.0, 55.0, 60.0])
    log_curve = np.log(np.cumprod(1 - 1 / (1 + np.exp(-np.float64(logits))), axis=1))
    ends = [0.0, *EDGES, 60.0]
    expected = [np.exp(np.interp(months, ends, [0.0, *row])) for row in log_curve]
    actual = survival_at(logits, EDGES, months, horizon=60.0)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, rtol=5e-6)
    np.testing.assert_array_equal(actual[:, 0], 1.0)
    np.testing.assert_allclose(survival_at(logits, EDGES, EDGES), survival_curve(logits)[:, :3], rtol=1e-6)


@pytest.mark.parametrize(
    ("months", "horizon", "estimable"),
    [
        pytest.param(0.0, None, True, id="start"),
        pytest.param(40.0, None, True, id="at the last edge"),
        pytest.param(40.01, None, False, id="in the last bin, which has no end"),
        pytest.param(40.01, 60.0, True, id="in the last bin up to a horizon"),
        pytest.param(60.0, 60.0, True, id="at the horizon"),
        pytest.param(60.01, 60.0, False, id="beyond the horizon"),
        pytest.param(-0.01, 60.0, False, id="negative"),
        pytest.param(NAN, 60.0, False, id="unknown"),
        pytest.param(np.inf, 60.0, False, id="infinite"),
    ],
)
def test_where_survival_is_estimable(months, horizon, estimable):
    logits, _, _ = draw(13)
    survival = survival_at(logits, EDGES, np.array([months]), horizon=horizon)
    np.testing.assert_array_equal(jnp.isfinite(survival), np.full((6, 1), estimable))


@settings(deadline=None, max_examples=40)
@given(arrays(3, 4, low=-100, high=100), arrays(16, low=0, high=60))
def test_survival_never_increases_in_time(logits, months):
    survival = survival_at(jnp.asarray(logits), EDGES, np.sort(months), horizon=60.0)
    assert (jnp.diff(survival, axis=1) <= 0).all()
    assert ((survival >= 0) & (survival <= 1)).all()


@settings(deadline=None, max_examples=40)
@given(arrays(3, 4))
def test_survival_at_the_median_is_one_half(logits):
    logits = jnp.asarray(logits)
    assume(np.all(np.abs(survival_curve(logits)[:, -1] - 0.5) > 1e-5))
    median = median_survival(logits, EDGES, horizon=60.0)
    np.testing.assert_array_equal(jnp.isnan(median), survival_curve(logits)[:, -1] > 0.5)
    at = jnp.diagonal(survival_at(logits, EDGES, median, horizon=60.0))
    np.testing.assert_allclose(at, jnp.where(jnp.isnan(median), NAN, 0.5), rtol=1e-4)


def test_median_of_a_constant_rate():
    rate = np.array([0.01, 0.05, 0.3, 0.011])
    # 1 - h = exp(-rate width), so that logit h = log(exp(rate width) - 1).
    logits = np.log(np.expm1(rate[:, None] * np.diff([0.0, *EDGES, 60.0])))
    median = median_survival(jnp.asarray(logits, jnp.float32), EDGES, horizon=60.0)
    np.testing.assert_allclose(median, [NAN, LOG2 / 0.05, LOG2 / 0.3, NAN], rtol=1e-5)


@pytest.mark.parametrize(
    ("logits", "horizon", "expected"),
    [
        pytest.param((0.0, 0.0, 0.0, 0.0), None, 6.0, id="at the first edge"),
        pytest.param((0.0, -1e4, -1e4, -1e4), None, 6.0, id="first of a flat stretch at one half"),
        pytest.param((-1e4, -1e4, 0.0, 0.0), None, 40.0, id="at the last edge"),
        pytest.param((-1e4, -1e4, -1e4, 0.0), 60.0, 60.0, id="at the horizon"),
        pytest.param((-1e4, -1e4, -1e4, 0.0), None, NAN, id="in the last bin, which has no end"),
        pytest.param((-9.0, -9.0, -9.0, -9.0), 60.0, NAN, id="never"),
        pytest.param((1e4, 0.0, 0.0, 0.0), None, 6 * LOG2 / 1e4, id="at once"),
        pytest.param((NAN, 0.0, 0.0, 0.0), None, NAN, id="no number"),
    ],
)
def test_median_survival(logits, horizon, expected):
    median = median_survival(jnp.array([logits]), EDGES, horizon=horizon)
    np.testing.assert_allclose(median, [expected], rtol=1e-6)


def test_one_bin_has_no_end_without_a_horizon():
    logits, none = jnp.zeros((1, 1)), np.empty(0)
    months = np.array([0.0, 5.0, 10.0])
    np.testing.assert_allclose(survival_at(logits, none, months), [[1.0, NAN, NAN]])
    np.testing.assert_allclose(
        survival_at(logits, none, months, horizon=10.0), [[1.0, 0.5**0.5, 0.5]], rtol=1e-6
    )
    np.testing.assert_array_equal(median_survival(logits, none), [NAN])
    np.testing.assert_array_equal(median_survival(logits, none, horizon=10.0), [10.0])


def test_predictions_compile():
    logits, _, _ = draw(14)
    months = jnp.array([3.0, 20.0, 99.0])
    for function in (
        lambda x: survival_at(x, EDGES, months),
        lambda x: median_survival(x, EDGES, horizon=60.0),
    ):
        np.testing.assert_allclose(jax.jit(function)(logits), function(logits), rtol=1e-6)


@pytest.mark.parametrize(
    ("edges", "horizon"),
    [
        pytest.param((6.0, 18.0), 18.0, id="horizon at the last edge"),
        pytest.param((6.0, 18.0), 3.0, id="horizon before the last edge"),
        pytest.param((6.0, 18.0), NAN, id="horizon unknown"),
        pytest.param((18.0, 6.0), None, id="edges fall"),
        pytest.param((6.0, 6.0), None, id="edges tied"),
        pytest.param((0.0, 6.0), None, id="first bin empty"),
    ],
)
def test_edges_that_do_not_increase(edges, horizon):
    message = "do not increase from above 0"
    with pytest.raises(InputError, match=message):
        survival_at(jnp.zeros((1, 3)), np.array(edges), np.array([1.0]), horizon=horizon)
    with pytest.raises(InputError, match=message):
        median_survival(jnp.zeros((1, 3)), np.array(edges), horizon=horizon)
