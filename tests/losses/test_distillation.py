"""kl_to_text against scipy in float64, at its edges, and under masks."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads

from modaltune_jax.losses import distillation
from modaltune_jax.losses.distillation import kl_to_text


def reference(embedding, target, temperature=1.0, scale=10.0):
    """The formula as written, in float64."""
    embedding, target = np.float64(embedding), np.float64(target)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) / temperature for x in (target, embedding)]
    p, q = (scipy.special.softmax(x, axis=-1) for x in unit)
    return scale * scipy.special.rel_entr(p, q).sum(axis=(1, 2))


def draw(seed=0, shape=(5, 3, 256)):
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))


@pytest.mark.parametrize(
    ("temperature", "scale"),
    [
        pytest.param(1.0, 10.0, id="as published"),
        pytest.param(0.07, 1.0, id="sharp"),
        pytest.param(0.05, 1.0, id="sharpest allowed"),
        pytest.param(4.0, 100.0, id="flat"),
    ],
)
def test_equals_scipy(temperature, scale):
    embedding, target = draw()
    loss = kl_to_text(embedding, target, temperature=temperature, scale=scale)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(embedding, target, temperature, scale), rtol=5e-6)


def test_keeps_its_digits_near_the_optimum():
    target, noise = draw(1)
    embedding = target + 0.01 * noise
    np.testing.assert_allclose(kl_to_text(embedding, target), reference(embedding, target), rtol=1e-3)
    np.testing.assert_allclose(kl_to_text(3.0 * target, target), np.zeros(5), atol=1e-7)


@pytest.mark.parametrize("temperature", [0.05, 0.0499, 0.0, -1.0])
def test_opposite_one_hots_at_the_lowest_temperature(temperature):
    target = jnp.zeros((1, 1, 256)).at[0, 0, 0].set(1.0)
    if temperature < 0.05:
        with pytest.raises(ValueError, match=r"below 0\.05"):
            kl_to_text(-target, target, temperature=temperature)
    else:
        expected = reference(-target, target, temperature)
        np.testing.assert_allclose(kl_to_text(-target, target, temperature=temperature), expected, rtol=1e-5)


def test_gradient_of_embedding():
    embedding, target = draw(2, (2, 3, 8))
    # float32 differences with a step of 1e-2: their own error is near 1e-3.
    check_grads(
        lambda x: kl_to_text(jnp.asarray(x), target),
        (embedding,),
        order=1,
        modes=["rev"],
        atol=2e-3,
        rtol=2e-3,
        eps=1e-2,
    )


def test_gradient_is_the_softmax_difference_on_the_sphere():
    embedding, target = draw(3, (2, 1, 16))
    norm = jnp.linalg.norm(embedding, axis=-1, keepdims=True)
    u, v = target / jnp.linalg.norm(target, axis=-1, keepdims=True), embedding / norm
    flow = 10.0 * (jax.nn.softmax(v) - jax.nn.softmax(u))
    expected = (flow - v * jnp.sum(flow * v, axis=-1, keepdims=True)) / norm
    actual = jax.grad(lambda x: kl_to_text(x, target).sum())(embedding)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("zeroed", ["embedding", "target", "both"])
def test_zero_vector_is_uniform_and_finite(zeroed):
    embedding, target = draw(4)
    embedding = embedding.at[0, 1].set(0.0) if zeroed != "target" else embedding
    target = target.at[0, 1].set(0.0) if zeroed != "embedding" else target
    loss, grads = jax.value_and_grad(lambda *x: kl_to_text(*x).sum(), argnums=(0, 1))(embedding, target)
    assert jnp.isfinite(loss)
    assert all(jnp.isfinite(g).all() for g in grads)
    if zeroed != "target":
        np.testing.assert_array_equal(grads[0][0, 1], 0.0)
    if zeroed == "both":
        rest = [0, 2]
        np.testing.assert_allclose(
            kl_to_text(embedding, target)[0], kl_to_text(embedding[:, rest], target[:, rest])[0], atol=5e-6
        )


@pytest.mark.parametrize("poison", [np.nan, np.inf, 7.0])
def test_masked_terms_leak_neither_value_nor_gradient(poison):
    embedding, target = draw(5)
    where = jnp.ones((5, 3), bool).at[0, 2].set(False).at[4].set(False)
    clean = kl_to_text(embedding[:, :2], target[:, :2])[0]
    embedding = embedding.at[4].set(poison)
    target = target.at[0, 2].set(poison).at[4].set(poison)
    loss, grad = jax.value_and_grad(lambda x: kl_to_text(x, target, where).sum())(embedding)
    values = kl_to_text(embedding, target, where)
    np.testing.assert_allclose(values[0], clean, rtol=1e-6)
    assert values[4] == 0.0
    assert jnp.isfinite(loss)
    assert jnp.isfinite(grad).all()
    np.testing.assert_array_equal(grad[0, 2], 0.0)
    np.testing.assert_array_equal(grad[4], 0.0)
    assert (jnp.abs(grad[0, :2]).sum(-1) > 0).all()


def test_half_precision_input_is_computed_in_float32():
    embedding, target = draw(6)
    half = embedding.astype(jnp.bfloat16)
    np.testing.assert_array_equal(kl_to_text(half, target), kl_to_text(half.astype(jnp.float32), target))


def test_docstring_example():
    assert doctest.testmod(distillation).failed == 0
    assert doctest.testmod(distillation).attempted > 0
