"""cox against lifelines, scikit-survival, a slow oracle and closed forms; its edges and masks."""

import doctest
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from lifelines import CoxPHFitter
from lifelines.fitters.coxph_fitter import SemiParametricPHFitter
from sksurv.linear_model.coxph import CoxPHOptimizer

from modaltune_jax.losses import cox as module
from modaltune_jax.losses.cox import cox, is_known

NAN = math.nan
TIES = ("efron", "breslow")
compiled_cox = jax.jit(cox, static_argnames="ties")


def oracle(risk, time, event, where, strata, weight, ties):
    """The formula as written, in float64, one death and one case after the other."""
    risk, weight, num = np.float64(risk), np.float64(weight), len(risk)
    known = [where[i] and event[i] >= 0 and not math.isnan(time[i]) and weight[i] > 0 for i in range(num)]
    terms = np.zeros(num)
    for i in range(num):
        if not known[i] or event[i] != 1:
            continue
        stratum = [j for j in range(num) if known[j] and strata[j] == strata[i]]
        tied = [j for j in stratum if time[j] == time[i] and event[j] == 1]
        all_sum = math.fsum(weight[j] * math.exp(risk[j]) for j in stratum if time[j] >= time[i])
        tie_sum = math.fsum(weight[j] * math.exp(risk[j]) for j in tied)
        taken = [a / len(tied) if ties == "efron" else 0.0 for a in range(len(tied))]
        logs = [math.log(all_sum - part * tie_sum) for part in taken]
        terms[i] = weight[i] * (math.fsum(logs) / len(tied) - risk[i])
    return terms


def arrays(risk, time, event):
    return jnp.asarray(risk, jnp.float32), jnp.asarray(time, jnp.float32), jnp.asarray(event, jnp.int32)


def draw(seed=0, num=40):
    """Few distinct times, 0 among them: deaths tie with deaths and with censored cases."""
    rng = np.random.default_rng(seed)
    data = arrays(rng.normal(size=num) * 1.5, rng.integers(0, num // 4, num), rng.integers(0, 2, num))
    strata, weight = rng.integers(0, 3, num), rng.uniform(0.2, 3.0, num)
    return data, jnp.asarray(strata, jnp.int32), jnp.asarray(weight, jnp.float32)


@functools.partial(jax.jit, static_argnames="ties")
def terms_and_gradient(risk, time, event, where=None, **options):
    def total(risk):
        terms = cox(risk, time, event, where, **options)
        return terms.sum(), terms

    gradient, terms = jax.grad(total, has_aux=True)(risk)
    return terms, gradient


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("ties", TIES)
def test_value_and_gradient_equal_scikit_survival(ties, seed):
    """With the identity as covariates, their coefficients are risks and their score is our gradient."""
    (risk, time, event), _, _ = draw(seed)
    num = len(risk)
    terms, gradient = terms_and_gradient(risk, time, event, ties=ties)
    theirs = CoxPHOptimizer(np.eye(num), np.asarray(event, bool), np.asarray(time), np.zeros(num), ties)
    theirs.update(np.float64(risk))
    assert terms.dtype == jnp.float32
    np.testing.assert_allclose(terms.sum(), num * theirs.nlog_likelihood(np.float64(risk)), rtol=1e-6)
    np.testing.assert_allclose(gradient, num * theirs.gradient, atol=2e-6)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_value_and_gradient_equal_lifelines(is_weighted):
    (risk, time, event), _, weight = draw(2)
    weight = weight if is_weighted else jnp.ones_like(weight)
    terms, gradient = terms_and_gradient(risk, time, event, weight=weight)
    order = np.argsort(time, kind="stable")
    covariates = pd.DataFrame(np.eye(len(risk))[order])
    outcome = (pd.Series(np.asarray(x)[order]) for x in (time, event, np.float64(weight)))
    _, score, log_likelihood = SemiParametricPHFitter()._get_efron_values_single(
        covariates, *outcome, None, np.float64(risk)
    )
    np.testing.assert_allclose(terms.sum(), -log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(gradient, -score, atol=5e-6)


def test_fit_of_lifelines_with_strata_and_weights_is_the_optimum():
    (x, time, event), strata, weight = draw(3, 120)
    columns = {"x": x, "time": time, "event": event, "strata": strata, "weight": weight}
    frame = pd.DataFrame({name: np.float64(column) for name, column in columns.items()})
    fit = CoxPHFitter().fit(frame, "time", "event", weights_col="weight", strata=["strata"], robust=True)
    terms, gradient = terms_and_gradient(
        jnp.float32(fit.params_["x"]) * x, time, event, strata=strata, weight=weight
    )
    np.testing.assert_allclose(terms.sum(), -fit.log_likelihood_, rtol=1e-6)
    np.testing.assert_allclose(gradient @ x, 0.0, atol=1e-4)
    assert jnp.abs(gradient * x).sum() > 10.0


# The worked examples of R's `survival` (Therneau & Grambsch 2000, appendix E): log-likelihoods in r = exp(β).
FIRST = {"x": [1, 1, 1, 0, 0, 0], "time": [1, 1, 6, 6, 8, 9], "event": [1, 0, 1, 1, 0, 1], "weight": None}
WEIGHTED = {
    "x": [2, 0, 1, 1, 0, 1, 0, 1, 0],
    "time": [1, 1, 2, 2, 2, 2, 3, 4, 5],
    "event": [1, 0, 1, 1, 1, 0, 0, 1, 0],
    "weight": jnp.array([1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 1.0, 2.0, 1.0]),
}


def first_breslow(r):
    return 2 * np.log(r) - np.log(3 * r + 3) - 2 * np.log(r + 3)


def first_efron(r):
    return 2 * np.log(r) - np.log(3 * r + 3) - np.log(r + 3) - np.log((r + 5) / 2)


def weighted_breslow(r):
    return 11 * np.log(r) - np.log(r**2 + 11 * r + 7) - 10 * np.log(11 * r + 5) - 2 * np.log(2 * r + 1)


def weighted_efron(r):
    tie = sum(np.log(11 * r + 5 - part * (7 * r + 3)) for part in (0, 1 / 3, 2 / 3))
    return 11 * np.log(r) - np.log(r**2 + 11 * r + 7) - 10 / 3 * tie - 2 * np.log(2 * r + 1)


@pytest.mark.parametrize(
    ("example", "ties", "log_likelihood"),
    [
        pytest.param(FIRST, "breslow", first_breslow, id="breslow"),
        pytest.param(FIRST, "efron", first_efron, id="efron"),
        pytest.param(WEIGHTED, "breslow", weighted_breslow, id="breslow weighted"),
        pytest.param(WEIGHTED, "efron", weighted_efron, id="efron weighted"),
    ],
)
@pytest.mark.parametrize("beta", [0.0, 1.5, -2.0])
def test_worked_examples(example, ties, log_likelihood, beta):
    risk, time, event = arrays(beta * np.array(example["x"]), example["time"], example["event"])
    terms, _ = terms_and_gradient(risk, time, event, ties=ties, weight=example["weight"])
    np.testing.assert_allclose(terms.sum(), -log_likelihood(np.exp(beta)), rtol=1e-6)


@pytest.mark.parametrize(
    ("example", "ties", "beta"),
    [
        pytest.param(FIRST, "breslow", 1.475285, id="breslow"),
        pytest.param(FIRST, "efron", 1.676857, id="efron"),
        pytest.param(WEIGHTED, "breslow", 0.85955744, id="breslow weighted"),
    ],
)
def test_score_is_zero_at_the_published_estimates(example, ties, beta):
    risk, time, event = arrays(beta * np.array(example["x"]), example["time"], example["event"])
    _, gradient = terms_and_gradient(risk, time, event, ties=ties, weight=example["weight"])
    np.testing.assert_allclose(gradient @ jnp.float32(np.array(example["x"])), 0.0, atol=3e-6)


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize(
    ("risk", "time", "event", "expected"),
    [
        pytest.param([0.3, 1.1], [1, 2], [1, 0], [np.log1p(np.exp(0.8)), 0], id="two cases"),
        pytest.param([0.3, 1.1], [1, 2], [0, 1], [0, 0], id="last death stands alone"),
        pytest.param([0.3, 1.1], [2, 2], [1, 0], [np.log1p(np.exp(0.8)), 0], id="censored at the death"),
        pytest.param([2.0, 2.0, 2.0], [1, 2, 3], [1, 1, 1], np.log([3, 2, 1]), id="all die, equal risks"),
        pytest.param([1.0, 2.0, 3.0], [1, 2, 3], [0, 0, 0], [0, 0, 0], id="all censored"),
        pytest.param([1.0, 2.0, 3.0], [1, 2, 3], [-1, -1, -1], [0, 0, 0], id="no event known"),
        pytest.param([1.0, 2.0, 3.0], [NAN] * 3, [1, 1, 1], [0, 0, 0], id="no time known"),
        pytest.param([1.0, 0.0, 9.0], [1, 2, NAN], [1, 0, 1], [np.log1p(np.exp(-1)), 0, 0], id="NaN time"),
        pytest.param(
            [1.0, 0.0, 9.0], [1, 2, 3], [1, 0, -1], [np.log1p(np.exp(-1)), 0, 0], id="unknown event"
        ),
        pytest.param([0.0, 0.0], [0.0, -0.0], [1, 0], [np.log(2), 0], id="both zeros are one time"),
        pytest.param([0.0, 0.0], [1, np.inf], [1, 0], [np.log(2), 0], id="followed for ever"),
        pytest.param([5.0], [1], [1], [0], id="one death"),
        pytest.param([5.0], [1], [0], [0], id="one censored case"),
        pytest.param([], [], [], [], id="no case"),
        pytest.param([80.0, -80.0], [1, 2], [1, 0], [0, 0], id="surely right"),
        pytest.param([-80.0, 80.0], [1, 2], [1, 0], [160, 0], id="surely wrong"),
        pytest.param([-1e4, 1e4], [1, 2], [1, 0], [2e4, 0], id="absurdly wrong"),
        pytest.param(
            [300.0, -300.0, -300.0], [1, 2, 3], [1, 1, 0], [0, np.log(2), 0], id="late and far below"
        ),
    ],
)
def test_closed_forms(risk, time, event, expected, ties):
    data = arrays(risk, time, event)
    terms, gradient = terms_and_gradient(*data, ties=ties)
    np.testing.assert_allclose(terms, expected, rtol=1e-6, atol=1e-7)
    assert jnp.isfinite(gradient).all()
    if not any(expected):
        np.testing.assert_array_equal(gradient, 0.0)


def test_ties_share_what_efron_and_breslow_give_them():
    """Four equal risks: Efron's denominators are 4, 3, 2, 1, Breslow's 4, 4, 4, 4."""
    data = arrays([0.7] * 4, [3.0] * 4, [1] * 4)
    np.testing.assert_allclose(compiled_cox(*data), np.full(4, np.log(24) / 4), rtol=1e-6)
    np.testing.assert_allclose(compiled_cox(*data, ties="breslow"), np.full(4, np.log(4)), rtol=1e-6)
    two = arrays([1.0, 0.0], [3.0, 3.0], [1, 1])
    both = np.log(np.e + 1)
    np.testing.assert_allclose(
        compiled_cox(*two), both - np.log(2) / 2 - np.array([1.0, 0.0]), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(compiled_cox(*two, ties="breslow"), both - np.array([1.0, 0.0]), rtol=1e-6)


@pytest.mark.parametrize("scale", [80.0, 500.0])
@pytest.mark.parametrize("ties", TIES)
def test_extreme_risks_equal_the_oracle(ties, scale):
    (risk, time, event), strata, weight = draw(4)
    risk = scale * jnp.tanh(risk)
    terms, gradient = terms_and_gradient(risk, time, event, ties=ties, strata=strata, weight=weight)
    expected = oracle(risk, time, event, np.ones(40, bool), strata, weight, ties)
    np.testing.assert_allclose(terms.sum(), expected.sum(), rtol=1e-6)
    assert jnp.isfinite(gradient).all()


SMALL = 6


@st.composite
def cases(draw):
    """Six cases, so that one compilation serves all; few values, so that they tie."""

    def column(values):
        return draw(st.lists(values, min_size=SMALL, max_size=SMALL))

    return {
        "risk": np.float32(column(st.floats(-8.0, 8.0, width=32))),
        "time": np.float32(column(st.sampled_from([0.0, 1.0, 1.0, 2.0, 2.0, 7.5, NAN]))),
        "event": np.int32(column(st.sampled_from([-1, 0, 1, 1, 1]))),
        "where": np.array(column(st.sampled_from([True, True, True, False]))),
        "strata": np.int32(column(st.sampled_from([0, 0, 7]))),
        "weight": np.float32(column(st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0]))),
    }


def evaluate(case, ties="efron"):
    return terms_and_gradient(**jax.tree.map(jnp.asarray, case), ties=ties)


def steepness(case, ties):
    """Differences of the oracle in float64."""
    steps = 1e-5 * np.eye(SMALL)
    totals = [
        [oracle(**{**case, "risk": case["risk"] + s * h}, ties=ties).sum() for h in steps] for s in (1, -1)
    ]
    return (np.array(totals[0]) - np.array(totals[1])) / 2e-5


@pytest.mark.parametrize("ties", TIES)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases())
def test_any_six_cases_equal_the_oracle(case, ties):
    terms, gradient = evaluate(case, ties)
    np.testing.assert_allclose(terms, oracle(**case, ties=ties), rtol=2e-6, atol=1e-5)
    np.testing.assert_allclose(gradient, steepness(case, ties), atol=1e-5)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases(), order=st.permutations(range(SMALL)), shift=st.sampled_from([-50.0, 3.0, 40.0]))
def test_order_shift_and_clock_do_not_matter(case, order, shift):
    terms, gradient = evaluate(case)
    order = np.array(order)
    permuted = evaluate({name: x[order] for name, x in case.items()})
    np.testing.assert_allclose(permuted[0], terms[order], rtol=1e-6, atol=3e-6)
    np.testing.assert_allclose(permuted[1], gradient[order], atol=3e-6)
    shifted = evaluate({**case, "risk": case["risk"] + np.float32(shift)})
    np.testing.assert_allclose(shifted[0], terms, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(shifted[1], gradient, atol=1e-4)
    other_clock = evaluate({**case, "time": 30.4 * case["time"] ** 2})
    np.testing.assert_array_equal(other_clock[0], terms)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(case=cases(), poison=st.sampled_from([NAN, math.inf, 1e30]))
def test_cases_left_out_may_hold_anything(case, poison):
    """By mask or by weight 0; where the mask says so, time, event, stratum and weight are garbage too."""
    terms, gradient = evaluate(case)
    masked, weightless = ~case["where"], case["where"] & (case["weight"] == 0.0)
    dirty = {name: x.copy() for name, x in case.items()}
    for name in ("risk", "time"):
        dirty[name][masked | weightless] = poison
    dirty["weight"][masked] = poison
    dirty["event"][masked], dirty["strata"][masked] = 1, -99
    dirty_terms, dirty_gradient = evaluate(dirty)
    np.testing.assert_array_equal(dirty_terms, terms)
    np.testing.assert_array_equal(dirty_gradient, gradient)
    np.testing.assert_array_equal(dirty_gradient[masked | weightless], 0.0)


def test_no_step_of_the_computation_is_nan():
    """Empty risk sets are avoided rather than masked afterwards."""
    risk, time, event = arrays([1.0, 0.0, 2.0, 5.0], [1, 2, 3, 4], [1, 0, -1, 1])
    with jax.debug_nans(True):
        gradient = jax.grad(lambda x: cox(x, time, event, jnp.array([True, True, True, False])).sum())(risk)
    np.testing.assert_array_equal(gradient != 0.0, [True, True, False, False])


@pytest.mark.parametrize(
    ("time", "event", "where", "expected"),
    [
        pytest.param(3.0, 1, True, True, id="death"),
        pytest.param(0.0, 0, True, True, id="censored at once"),
        pytest.param(NAN, 1, True, False, id="NaN time"),
        pytest.param(3.0, -1, True, False, id="unknown event"),
        pytest.param(3.0, 1, False, False, id="masked"),
    ],
)
def test_is_known(time, event, where, expected):
    assert is_known(jnp.array([time]), jnp.array([event]), jnp.array([where])) == expected
    assert is_known(jnp.array([time]), jnp.array([event])) == (expected or not where)


@pytest.mark.parametrize("ties", TIES)
def test_strata_are_separate_losses(ties):
    (risk, time, event), strata, weight = draw(5)
    loss = compiled_cox(risk, time, event, ties=ties, strata=strata, weight=weight)
    for stratum in range(3):
        rows = np.asarray(strata == stratum)
        alone = compiled_cox(risk[rows], time[rows], event[rows], ties=ties, weight=weight[rows])
        np.testing.assert_allclose(loss[rows], alone, rtol=1e-6, atol=1e-6)
    assert not np.allclose(loss, compiled_cox(risk, time, event, ties=ties, weight=weight))


def test_weights():
    """With Breslow's ties a weight of 2 is the case twice; a common factor is one factor outside."""
    (risk, time, event), _, _ = draw(6, 12)
    weight = jnp.asarray(np.random.default_rng(0).integers(1, 4, 12), jnp.float32)
    repeats = np.int32(weight)
    twice = (jnp.repeat(x, repeats) for x in (risk, time, event))
    loss = compiled_cox(risk, time, event, ties="breslow", weight=weight).sum()
    np.testing.assert_allclose(loss, compiled_cox(*twice, ties="breslow").sum(), rtol=1e-6)
    # log(5 D) = log(5) + log(D), for a weight of 5 · weight a death.
    weighted, five = (compiled_cox(risk, time, event, weight=w) for w in (weight, 5.0 * weight))
    np.testing.assert_allclose(
        five, 5.0 * (weighted + (event == 1) * weight * np.log(5.0)), rtol=1e-5, atol=1e-5
    )


def test_moving_risks_the_right_way_lowers_the_loss():
    """Risks in the right order: the loss falls as they spread, down to 0."""
    data = arrays([3.0, 2.0, 1.0, 0.0], [1, 2, 3, 4], [1, 1, 1, 0])
    losses = [
        float(compiled_cox(scale * data[0], *data[1:]).sum()) for scale in (-1.0, 0.0, 1.0, 10.0, 100.0)
    ]
    assert losses == sorted(losses, reverse=True)
    np.testing.assert_allclose(losses[1], np.log(24), rtol=1e-6)
    assert losses[-1] == 0.0


@pytest.mark.parametrize("ties", TIES)
def test_derivatives_of_first_and_second_order(ties):
    (risk, time, event), strata, weight = draw(7, 10)
    with jax.enable_x64(True):
        risk = jnp.asarray(np.float64(risk))
        f = jax.jit(lambda x: cox(x, time, event, ties=ties, strata=strata, weight=weight))
        assert f(risk).dtype == jnp.float64
        check_grads(f, (risk,), order=2, atol=1e-6, rtol=1e-6)


def test_hessian_of_a_tie_is_finite_at_extreme_risks():
    data = arrays([80.0, -80.0, 80.0, -80.0], [1, 1, 2, 2], [1, 1, 1, 0])
    hessian = jax.jit(jax.hessian(lambda x: cox(x, *data[1:]).sum()))(data[0])
    assert jnp.isfinite(hessian).all()
    np.testing.assert_allclose(hessian.sum(axis=1), 0.0, atol=1e-6)


def test_half_precision_input_is_computed_in_float32():
    (risk, time, event), _, _ = draw(8)
    half = risk.astype(jnp.bfloat16)
    np.testing.assert_array_equal(
        compiled_cox(half, time, event), compiled_cox(half.astype(jnp.float32), time, event)
    )


def test_a_diverged_risk_is_not_hidden():
    risk, time, event = arrays([NAN, 0.0], [2, 1], [0, 1])
    assert jnp.isnan(compiled_cox(risk, time, event)[1])


def test_other_rules_for_ties_are_refused():
    (risk, time, event), _, _ = draw()
    with pytest.raises(ValueError, match="ties 'exact' is neither 'efron' nor 'breslow'"):
        compiled_cox(risk, time, event, ties="exact")


def test_docstring_example():
    failed, attempted = doctest.testmod(module)
    assert failed == 0
    assert attempted > 0
