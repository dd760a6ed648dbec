"""Heads: shapes, the temperature, what a model of one task does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.models.heads import Heads, HeadsConfig

ALL = HeadsConfig(has_risk=True, num_bins=3, num_classes=4, text_dim=5, terms=("cox", "text_similarity"))


def embedding(tasks=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(4, tasks, 6)), jnp.float32)


def test_shapes():
    said = Heads(ALL, 6, rngs=nnx.Rngs(0))(embedding())
    shapes = [value.shape for value in said[:4]]
    assert shapes == [(4,), (4, 3), (4, 4), (4, 5)]
    assert said.log_variance.keys() == {"cox", "text_similarity"}
    assert np.exp(-said.log_scale) == pytest.approx(0.07)


def test_absent_heads_say_nothing():
    said = Heads(HeadsConfig(has_risk=True), 6, rngs=nnx.Rngs(0))(embedding())
    assert (said.hazard, said.text, said.log_scale, said.log_variance) == (None, None, None, None)


@pytest.mark.parametrize(("head", "task"), [("risk", 2), ("hazard", 2), ("classes", 1), ("text", 1)])
def test_a_head_reads_the_embedding_of_its_task(head, task):
    heads = Heads(ALL, 6, rngs=nnx.Rngs(0))
    grad = jax.grad(lambda x: jnp.sum(getattr(heads(x), head) ** 2))(embedding())
    sizes = np.abs(np.asarray(grad)).max(axis=(0, 2))
    assert (sizes[np.arange(3) != task] == 0).all()
    assert sizes[task] > 0
    one = heads(embedding()[:, task : task + 1])
    np.testing.assert_array_equal(getattr(one, head), getattr(heads(embedding()), head))


def test_the_scale_of_an_embedding_does_not_matter():
    heads = Heads(ALL, 6, rngs=nnx.Rngs(0))
    for one, other in zip(heads(embedding())[:4], heads(50.0 * embedding())[:4], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_plain_heads_are_linear_in_the_embedding():
    heads = Heads(HeadsConfig(has_risk=True, num_classes=4, is_standardised=False), 6, rngs=nnx.Rngs(0))
    one = heads(embedding())
    np.testing.assert_allclose(one.risk, embedding()[:, 2] @ heads.risk.kernel[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.classes, heads.classes(embedding()[:, 1]), rtol=1e-6)


def test_a_fixed_temperature_is_not_learnt():
    heads = Heads(HeadsConfig(text_dim=5, temperature=0.5), 6, rngs=nnx.Rngs(0))
    assert np.exp(-heads(embedding()).log_scale) == pytest.approx(0.5)
    assert heads.temperature is None


def test_the_learnt_temperature_has_a_limit_and_a_gradient_there():
    graph, state = nnx.split(Heads(ALL, 6, rngs=nnx.Rngs(0)))

    def log_scale(value):
        state["temperature"] = state["temperature"].replace(value)
        return nnx.merge(graph, state)(embedding()).log_scale

    assert float(jnp.exp(log_scale(jnp.float32(30.0)))) == pytest.approx(100.0, rel=1e-4)
    assert float(jax.grad(log_scale)(jnp.float32(8.0))) > 0
