"""Similarity losses against optax, scikit-learn and loops in float64, at their edges and under masks."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from modaltune_jax.losses import text_similarity as module
from modaltune_jax.losses.text_similarity import (
    MAX_LOG_SCALE,
    allowed_classes,
    class_weights,
    probabilities,
    sigmoid,
    similarity_logits,
    softmax_cross_entropy,
)
from modaltune_jax.types import InputError

NAN = np.nan
LOG2 = np.log(2.0)


def softmax_loop(logits, label, allowed, weight):
    """The formula as written, in float64."""
    losses = []
    for z, y, may in zip(np.float64(logits), label, allowed, strict=True):
        is_counted = 0 <= y < len(z) and may[y]
        losses.append(weight[y] * (np.log(np.exp(z[may]).sum()) - z[y]) if is_counted else 0.0)
    return np.array(losses)


def sigmoid_loop(logits, labels, allowed):
    losses = []
    for z, y, may in zip(np.float64(logits), labels, allowed, strict=True):
        terms = [
            np.logaddexp(0, -v if u == 1 else v) for v, u, m in zip(z, y, may, strict=True) if m and u >= 0
        ]
        losses.append(np.mean(terms) if terms else 0.0)
    return np.array(losses)


def draw(seed=0, b=6, c=4):
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(3 * rng.normal(size=(b, c)), jnp.float32)
    allowed = rng.random((b, c)) < 0.6
    label = rng.integers(0, c, b)
    allowed[np.arange(b), label] = True
    return logits, jnp.asarray(label), jnp.asarray(allowed)


def cases(c):
    """Logits, labels (of which some are not allowed) and allowed classes (of which some rows have none)."""
    return st.tuples(
        hnp.arrays(np.float32, (5, c), elements=st.floats(-20, 20, width=32)),
        hnp.arrays(np.int32, 5, elements=st.integers(-1, c - 1)),
        hnp.arrays(np.int32, (5, c), elements=st.integers(-1, 1)),
        hnp.arrays(bool, (5, c)),
    )


def ints(*values):
    return jnp.asarray(values, jnp.int32)


def test_doctests():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# Similarity


def test_logits_are_scaled_cosines():
    rng = np.random.default_rng(0)
    embedding, bank = rng.normal(size=(5, 64)), rng.normal(size=(3, 64))
    cosine = [[x @ v / np.linalg.norm(x) / np.linalg.norm(v) for v in bank] for x in embedding]
    actual = similarity_logits(jnp.asarray(embedding), jnp.asarray(bank), jnp.log(1 / 0.07))
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, np.array(cosine) / 0.07, rtol=1e-5, atol=1e-5)
    longer = similarity_logits(jnp.asarray(7.0 * embedding), jnp.asarray(0.1 * bank), jnp.log(1 / 0.07))
    np.testing.assert_allclose(longer, actual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("log_scale", "scale", "slope"),
    [
        pytest.param(0.0, 1.0, 1.0, id="temperature 1"),
        pytest.param(np.log(1 / 0.07), 1 / 0.07, 1 / 0.07, id="as CLIP starts"),
        pytest.param(MAX_LOG_SCALE, 100.0, 100.0, id="at the limit"),
        pytest.param(MAX_LOG_SCALE + 0.1, 100.0, 0.0, id="above the limit"),
        pytest.param(1e4, 100.0, 0.0, id="far above the limit"),
        pytest.param(-1e4, 0.0, 0.0, id="uniform"),
    ],
)
def test_scale_and_its_gradient(log_scale, scale, slope):
    """At a cosine of 1, the logit is the scale and so is its derivative, below the limit."""
    x = jnp.array([[2.0, 0.0]])
    value, grad = jax.value_and_grad(lambda s: similarity_logits(x, x, s)[0, 0])(jnp.float32(log_scale))
    np.testing.assert_allclose([value, grad], [scale, slope], rtol=1e-5)


def test_gradients_of_the_whole_loss():
    rng = np.random.default_rng(1)
    embedding, bank = (jnp.asarray(rng.normal(size=(n, 5)), jnp.float32) for n in (4, 3))
    _, label, allowed = draw(1, 4, 3)

    def loss(embedding, bank, log_scale):
        logits = similarity_logits(embedding, bank, log_scale)
        return softmax_cross_entropy(logits, label, allowed=allowed)

    check_grads(jax.jit(loss), (embedding, bank, jnp.float32(0.5)), 2, atol=2e-2, rtol=2e-2, eps=1e-2)


@pytest.mark.parametrize("zeroed", ["embedding", "bank"])
def test_zero_vector_has_logit_zero_and_no_gradient(zeroed):
    rng = np.random.default_rng(2)
    vectors = {"embedding": rng.normal(size=(2, 8)), "bank": rng.normal(size=(3, 8))}
    vectors[zeroed][0] = 0.0
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in vectors.items()}
    logits, back = jax.vjp(lambda x: similarity_logits(**x, log_scale=jnp.float32(1.0)), arrays)
    grads = back(jnp.ones_like(logits))[0]
    np.testing.assert_array_equal(logits[0] if zeroed == "embedding" else logits[:, 0], 0.0)
    np.testing.assert_array_equal(grads[zeroed][0], 0.0)
    assert all(jnp.isfinite(x).all() for x in grads.values())


# Softmax


def test_softmax_equals_optax_and_sklearn():
    logits, label, _ = draw(3, b=20)
    losses = softmax_cross_entropy(logits, label)
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(
        losses, optax.softmax_cross_entropy_with_integer_labels(logits, label), rtol=1e-6
    )
    one_hot = jax.nn.one_hot(label, 4)
    np.testing.assert_allclose(losses, optax.softmax_cross_entropy(logits, one_hot), rtol=1e-6)
    expected = log_loss(label, scipy.special.softmax(np.float64(logits), axis=1), labels=range(4))
    np.testing.assert_allclose(losses.mean(), expected, rtol=1e-6)


def test_class_weights_are_those_of_sklearn():
    logits, label, _ = draw(4, b=20)
    weight = class_weights(np.asarray(label), 4)
    losses = softmax_cross_entropy(logits, label, class_weight=weight)
    expected = log_loss(
        label, scipy.special.softmax(np.float64(logits), axis=1), labels=range(4), sample_weight=weight[label]
    )
    np.testing.assert_allclose(losses.sum() / weight[label].sum(), expected, rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([1, 2, 5]).flatmap(cases))
def test_losses_equal_the_loops(drawn):
    logits, label, labels, allowed = drawn
    weight = np.linspace(0.5, 2.0, logits.shape[1])
    actual = softmax_cross_entropy(
        jnp.asarray(logits),
        jnp.asarray(label),
        allowed=jnp.asarray(allowed),
        class_weight=jnp.asarray(weight),
    )
    np.testing.assert_allclose(actual, softmax_loop(logits, label, allowed, weight), rtol=2e-6, atol=5e-6)
    actual = sigmoid(jnp.asarray(logits), jnp.asarray(labels), allowed=jnp.asarray(allowed))
    np.testing.assert_allclose(actual, sigmoid_loop(logits, labels, allowed), rtol=2e-6, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(cases(4))
def test_probabilities_are_a_softmax_over_the_allowed(drawn):
    logits, _, _, allowed = drawn
    actual = np.asarray(probabilities(jnp.asarray(logits), jnp.asarray(allowed)))
    np.testing.assert_array_equal(actual[~allowed], 0.0)
    for row, z, may in zip(actual, np.float64(logits), allowed, strict=True):
        np.testing.assert_allclose(row[may], scipy.special.softmax(z[may]) if may.any() else [], rtol=1e-5)
    np.testing.assert_allclose(actual.sum(1), allowed.any(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("label", "allowed", "expected"),
    [
        pytest.param(1, (True, True, True), np.log(3.0), id="all allowed"),
        pytest.param(1, (True, True, False), LOG2, id="another site's class does not compete"),
        pytest.param(1, (False, True, False), 0.0, id="only its own class allowed"),
        pytest.param(2, (True, True, False), 0.0, id="label not allowed"),
        pytest.param(-1, (True, True, True), 0.0, id="unknown label"),
        pytest.param(3, (True, True, True), 0.0, id="label beyond the classes"),
        pytest.param(1, (False, False, False), 0.0, id="no class allowed"),
        pytest.param(-1, (False, False, False), 0.0, id="nothing known"),
    ],
)
@pytest.mark.parametrize("other", [NAN, np.inf, -1e4])
def test_softmax_of_equal_logits(label, allowed, expected, other):
    allowed = jnp.array([allowed])
    logits = jnp.where(allowed, 0.0, other)
    loss, grad = jax.value_and_grad(lambda x: softmax_cross_entropy(x, ints(label), allowed=allowed).sum())(
        logits
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert jnp.isfinite(grad).all()
    np.testing.assert_array_equal(grad[~allowed], 0.0)
    assert (jnp.abs(grad).max() > 0) == (expected > 0)
    assert jnp.isfinite(probabilities(logits, allowed)).all()


def test_one_class_has_nothing_to_learn():
    loss, grad = jax.value_and_grad(lambda x: softmax_cross_entropy(x, ints(0)).sum())(jnp.array([[5.0]]))
    assert loss == 0.0
    np.testing.assert_array_equal(grad, [[0.0]])
    np.testing.assert_array_equal(probabilities(jnp.array([[5.0]])), [[1.0]])


@pytest.mark.parametrize("size", [80.0, 1e4])
def test_extreme_logits(size):
    logits = jnp.array([[size, -size, 0.0], [size, -size, 0.0]])
    softmax, grad = jax.value_and_grad(lambda x: softmax_cross_entropy(x, ints(0, 1)).sum())(logits)
    np.testing.assert_allclose(softmax, 2 * size, rtol=1e-6)
    np.testing.assert_allclose(grad, [[0, 0, 0], [1, -1, 0]], atol=1e-30)
    pairs, grad = jax.value_and_grad(lambda x: sigmoid(x, ints((1, 0, 1), (0, 1, 1))).sum())(logits)
    np.testing.assert_allclose(pairs, (2 * size + 2 * LOG2) / 3, rtol=1e-6)
    np.testing.assert_allclose(grad * 3, [[0, 0, -0.5], [1, -1, -0.5]], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(probabilities(logits), [[1, 0, 0], [1, 0, 0]], atol=1e-30)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("poison", [NAN, np.inf, -np.inf])
def test_masked_cases_leak_neither_value_nor_gradient(kind, poison):
    logits, label, allowed = draw(5)
    where = jnp.array([True, False, True, True, False, True])
    poisoned = logits.at[1].set(poison).at[4].set(poison)

    def loss(logits, rows, where=None):
        if kind == "softmax":
            return softmax_cross_entropy(logits, label[rows], where, allowed=allowed[rows])
        return sigmoid(logits, jax.nn.one_hot(label[rows], 4, dtype=int), where, allowed[rows])

    everyone = jnp.arange(6)
    value, grad = jax.value_and_grad(lambda x: loss(x, everyone, where).sum())(poisoned)
    clean, clean_grad = jax.value_and_grad(lambda x: loss(x, everyone[where]).sum())(logits[where])
    np.testing.assert_allclose(value, clean, rtol=1e-6)
    np.testing.assert_allclose(grad[where], clean_grad, rtol=1e-6)
    np.testing.assert_array_equal(grad[~where], 0.0)
    np.testing.assert_array_equal(loss(poisoned, everyone, where)[~where], 0.0)


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        pytest.param(-1, (True, True), id="unknown label"),
        pytest.param(2, (True, True), id="label beyond the classes"),
        pytest.param(1, (True, False), id="label not allowed"),
        pytest.param(1, (False, False), id="no class allowed"),
    ],
)
def test_cases_without_a_label_may_hold_anything(label, allowed):
    logits, allowed = jnp.array([[NAN, np.inf]]), jnp.array([allowed])
    loss, grad = jax.value_and_grad(lambda x: softmax_cross_entropy(x, ints(label), allowed=allowed).sum())(
        logits
    )
    assert loss == 0.0
    np.testing.assert_array_equal(grad, 0.0)


def test_order_of_cases_and_classes_does_not_matter():
    logits, label, allowed = draw(6)
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(6), rng.permutation(4)
    losses = softmax_cross_entropy(logits, label, allowed=allowed)
    shuffled = softmax_cross_entropy(logits[rows], label[rows], allowed=allowed[rows])
    np.testing.assert_array_equal(shuffled, losses[rows])
    renamed = jnp.asarray(np.argsort(columns))[label]
    moved = softmax_cross_entropy(logits[:, columns], renamed, allowed=allowed[:, columns])
    np.testing.assert_allclose(moved, losses, rtol=1e-6)


def test_gradients_to_second_order():
    logits, label, allowed = draw(7)
    labels = jax.nn.one_hot(label, 4, dtype=int)
    weight = np.array([0.5, 1.0, 1.5, 2.0])
    tolerance = {"atol": 2e-2, "rtol": 2e-2, "eps": 1e-2}
    check_grads(
        jax.jit(lambda x: softmax_cross_entropy(x, label, allowed=allowed, class_weight=weight)),
        (logits,),
        2,
        **tolerance,
    )
    check_grads(jax.jit(lambda x: sigmoid(x, labels, allowed=allowed)), (logits,), 2, **tolerance)


def test_half_precision_input_is_computed_in_float32():
    logits, label, allowed = draw(8)
    half = logits.astype(jnp.bfloat16)
    for function in (
        lambda x: softmax_cross_entropy(x, label, allowed=allowed),
        lambda x: sigmoid(x, jax.nn.one_hot(label, 4, dtype=int)),
        lambda x: probabilities(x, allowed),
        lambda x: similarity_logits(x, x, jnp.bfloat16(2.0)),
    ):
        assert function(half).dtype == jnp.float32
        np.testing.assert_array_equal(function(half), function(half.astype(jnp.float32)))


# Sigmoid


def test_sigmoid_equals_optax():
    logits, label, _ = draw(9)
    labels = jax.nn.one_hot(label, 4, dtype=int)
    expected = optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=1)
    np.testing.assert_allclose(sigmoid(logits, labels), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("labels", "allowed", "expected"),
    [
        pytest.param((1, 0, 1), (True, True, True), LOG2, id="several classes"),
        pytest.param((0, 0, 0), (True, True, True), LOG2, id="none of them"),
        pytest.param((1, -1, -1), (True, True, True), LOG2, id="unknown for some classes"),
        pytest.param((-1, -1, -1), (True, True, True), 0.0, id="unknown for all"),
        pytest.param((1, 0, 1), (False, False, False), 0.0, id="no class allowed"),
        pytest.param((-1, 1, 0), (True, False, False), 0.0, id="known where not allowed only"),
    ],
)
def test_sigmoid_of_equal_logits(labels, allowed, expected):
    allowed = jnp.array([allowed])
    counted = allowed & (ints(labels) >= 0)
    logits = jnp.where(counted, 0.0, NAN)
    loss, grad = jax.value_and_grad(lambda x: sigmoid(x, ints(labels), allowed=allowed).sum())(logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_array_equal(grad != 0, counted)


# Classes


def test_allowed_classes():
    actual = allowed_classes(ints(0, 1, 2, -1), ints(0, 0, 1, -1))
    expected = [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(actual, np.array(expected, bool))


@settings(deadline=None)
@given(hnp.arrays(np.int64, st.integers(1, 40), elements=st.integers(-1, 5)))
def test_class_weights(label):
    if not (label >= 0).any():
        with pytest.raises(InputError, match=f"none of {label.size} train cases has a class"):
            class_weights(label, 6)
        return
    weight = class_weights(label, 6)
    known = label[label >= 0]
    present = np.unique(known)
    np.testing.assert_allclose(weight[present], compute_class_weight("balanced", classes=present, y=known))
    np.testing.assert_array_equal(np.delete(weight, present), 0.0)
    np.testing.assert_allclose(weight[known].mean(), 1.0)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        pytest.param((0, 3), "row 1: label is 3; give a class from 0 to 2", id="beyond the classes"),
        pytest.param((-2, 0), "row 0: label is -2", id="below -1"),
        pytest.param((), "none of 0 train cases", id="no case"),
    ],
)
def test_labels_that_give_no_weights(label, message):
    with pytest.raises(InputError, match=message):
        class_weights(np.asarray(label, int), 3)
