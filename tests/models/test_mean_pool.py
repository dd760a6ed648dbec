import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from modaltune_jax.models.encoders.mean_pool import MeanPool, MeanPoolConfig


@pytest.fixture
def model():
    return MeanPool(MeanPoolConfig(in_dim=5, width=8), rngs=nnx.Rngs(0))


def bags(b, l):
    features = np.random.default_rng(0).normal(size=(b, l, 5)).astype(np.float32)
    return features, np.zeros((b, l, 2), np.int32)


def test_embedding_is_the_mean_of_the_embedded_tiles(model):
    features, cells = bags(1, 7)
    tiles = jax.nn.gelu(model.patch_embed(jnp.asarray(features)), approximate=False)
    embedding = jax.jit(model)(features, cells, jnp.asarray([7]))
    np.testing.assert_allclose(embedding, np.mean(tiles, axis=1), rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing_and_gets_no_gradient(model):
    features, cells = bags(3, 9)
    lengths = (9, 4, 1)

    @functools.partial(jax.grad, has_aux=True)
    def run(features, cells, length):
        embeddings = model(features, cells, length)
        return jnp.sum(jnp.sin(embeddings)), embeddings

    gradient, embeddings = jax.device_get(jax.jit(run)(features, cells, jnp.asarray(lengths)))
    for i, n in enumerate(lengths):
        single = jax.jit(model)(features[i : i + 1, :n], cells[i : i + 1, :n], jnp.asarray([n]))
        np.testing.assert_allclose(embeddings[i : i + 1], single, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(gradient[i, n:], 0.0)
        assert np.all(np.any(gradient[i, :n], axis=-1))


def test_empty_bag_is_zero(model):
    features, cells = bags(2, 4)
    for l in (4, 0):
        embeddings = jax.jit(model)(features[:, :l], cells[:, :l], jnp.asarray([0, 0]))
        np.testing.assert_array_equal(embeddings, np.zeros((2, 8)))


def test_blocks_average_what_an_adapter_injected(model):
    features, cells = bags(2, 4)
    tokens = jax.jit(model.embed)(features, cells, jnp.asarray([4, 2]))
    injected = tokens._replace(tiles=tokens.tiles + 3.0)
    after = model.run_blocks(injected, 0, model.depth, jax.random.key(0))
    np.testing.assert_allclose(model.pool(after), tokens.cls + 3.0, rtol=1e-5)
    np.testing.assert_array_equal(after.tiles, injected.tiles)
